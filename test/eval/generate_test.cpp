// Generation against teacher forcing and exhaustive search; independence of batch, padding and neighbours. The recorded case is judged in cli/parity.
#include "eval/generate.hpp"

#include "eval/ending_models.hpp"
#include "model/decoding.hpp"
#include "ops/elementwise.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>

using namespace flanmoe;
using namespace flanmoe::test;

namespace {

using Distribution = std::vector<double>;  // log-probabilities

// The tokens of a row's input: without padding and, decoder-only, without the start mark.
Tokens input_of(const Transformer& model, const Batch& inputs, int64_t row) {
    const bool encoder = model.config().encoder_decoder;
    const Batch one = cut(inputs, row, 1);
    const auto &ids = encoder ? one.encoder_ids : one.decoder_ids, &segments = encoder ? one.encoder_segments : one.decoder_segments;
    Tokens tokens;
    for (size_t i = encoder ? 0 : 1; i < ids.size(); ++i)
        if (segments[i] != 0) tokens.push_back(ids[i]);
    return tokens;
}

// Of every position of `ids` when they follow the input of row `row`, among the first `valid` ids (0 = all).
std::vector<Distribution> teacher_forced(const Transformer& model, const Batch& inputs, int64_t row, const Tokens& ids, int64_t valid = 0) {
    Context context;
    Pass pass = evaluation_pass(context, model);
    const Tokens input = input_of(model, inputs, row);
    const Tokens *source = &input, *target = &ids;
    const Batch batch = scoring_batch(model.config(), {&source, 1}, {&target, 1});
    TransformerSaved saved;
    const Tensor logits = model.logits(pass, model.forward(pass, batch, saved));
    const int64_t n = logits.cols();
    std::vector<double> values(static_cast<size_t>(logits.elements()));
    ops::cast(context, logits, Tensor(values.data(), DType::f64, logits.shape));
    std::vector<Distribution> result;
    for (int64_t t = logits.rows() - static_cast<int64_t>(ids.size()); t < logits.rows(); ++t) {
        Distribution p(values.begin() + t * n, values.begin() + t * n + (valid ? valid : n));
        double sum = 0;
        for (const double x : p) sum += std::exp(x);
        for (double& x : p) x -= std::log(sum);
        result.push_back(std::move(p));
    }
    return result;
}

double sum_of(const std::vector<Distribution>& p, const Tokens& ids) {
    double sum = 0;
    for (size_t t = 0; t < ids.size(); ++t) sum += p[t][static_cast<size_t>(ids[t])];
    return sum;
}

// One input, `rows` times.
Batch repeated(const Batch& one, int64_t rows) {
    Batch many = one;
    many.rows = rows;
    for (auto* values : {&many.encoder_ids, &many.encoder_segments}) {
        const std::vector<int32_t> row = *values;
        for (int64_t r = 1; r < rows; ++r) values->insert(values->end(), row.begin(), row.end());
    }
    return many;
}

// Probabilities of one draw: the k most probable ids, sharpened.
std::map<size_t, double> sampling_distribution(const Distribution& log_p, double temperature, size_t k) {
    std::vector<size_t> order(log_p.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return log_p[a] > log_p[b]; });
    std::map<size_t, double> p;
    double total = 0;
    for (size_t i = 0; i < k; ++i) total += p[order[i]] = std::exp(log_p[order[i]] / temperature);
    for (auto& [id, share] : p) share /= total;
    return p;
}

Exit refusal(const Transformer& model, const Batch& inputs, const GenerationSettings& settings) {
    try {
        run(model, inputs, settings);
        return Exit::done;
    } catch (const Error& error) {
        return error.code;
    }
}

}  // namespace

TEST_SUITE("eval/generate") {
    TEST_CASE("greedy decoding picks what teacher forcing finds most probable") {
        for (const ModelConfig& config : {small_t5(true), small_t5(false), roomy_switch(), small_decoder(), small_prefix_decoder()}) {
            for (const DType dtype : {DType::f64, DType::f32}) {
                const auto model = make(config, dtype);
                const Batch inputs = some_inputs(config, 6);
                const std::vector<Generated> results = run(*model, inputs, {.max_new_tokens = 10});
                for (size_t r = 0; r < results.size(); ++r) {
                    const auto p = teacher_forced(*model, inputs, static_cast<int64_t>(r), results[r].ids);
                    for (size_t t = 0; t < p.size(); ++t) CHECK(results[r].ids[t] == std::max_element(p[t].begin(), p[t].end()) - p[t].begin());
                    CHECK(std::abs(results[r].score - sum_of(p, results[r].ids)) < (dtype == DType::f64 ? 1e-10 : 1e-4));  // rounding of ten tokens' logits
                }
            }
        }
    }

    TEST_CASE("rows end on their own, and what is left goes on as it would alone") {
        for (const ModelConfig& base : {small_t5(true), untied(roomy_switch()), small_decoder(), small_prefix_decoder()}) {
            const Batch inputs = some_inputs(base, 13);
            const auto model = ending_model(base, inputs);
            const int64_t end = model->config().eos_id;
            for (const double temperature : {0.0, 1.0}) {
                const GenerationSettings settings{.max_new_tokens = 12, .temperature = temperature, .seed = 9};
                const std::vector<Generated> together = run(*model, inputs, settings);
                std::set<size_t> lengths;
                for (int64_t r = 0; r < inputs.rows; ++r) {
                    GenerationSettings alone = settings;
                    alone.numbers = {r};
                    const Generated single = run(*model, cut(inputs, r, 1), alone)[0], &mine = together[static_cast<size_t>(r)];
                    CHECK(mine.ids == single.ids);
                    CHECK(mine.ended == single.ended);
                    CHECK(mine.score == doctest::Approx(single.score).epsilon(1e-10));
                    CHECK(mine.ended == (mine.ids.back() == end));
                    CHECK(std::count(mine.ids.begin(), mine.ids.end(), end) == mine.ended);
                    lengths.insert(mine.ids.size());
                }
                CHECK(lengths.size() >= (temperature > 0 ? 2 : 3));
            }
        }
    }

    TEST_CASE("padding changes nothing") {
        const ModelConfig config = roomy_switch();
        const auto model = make(config);
        const Batch inputs = some_inputs(config, 5);
        Batch wider = inputs;
        wider.encoder_length += 7;
        wider.encoder_ids.assign(static_cast<size_t>(wider.rows * wider.encoder_length), static_cast<int32_t>(config.pad_id));
        wider.encoder_segments.assign(wider.encoder_ids.size(), 0);
        for (int64_t r = 0; r < inputs.rows; ++r) {
            for (int64_t i = 0; i < inputs.encoder_length; ++i) {
                const auto from = static_cast<size_t>(r * inputs.encoder_length + i), to = static_cast<size_t>(r * wider.encoder_length + i);
                wider.encoder_ids[to] = inputs.encoder_ids[from], wider.encoder_segments[to] = inputs.encoder_segments[from];
            }
        }
        for (const int64_t beams : {1, 3}) {
            const GenerationSettings settings{.max_new_tokens = 6, .beams = beams};
            const std::vector<Generated> a = run(*model, inputs, settings), b = run(*model, wider, settings);
            CHECK(ids_of(a) == ids_of(b));
            for (size_t r = 0; r < a.size(); ++r) CHECK(a[r].score == doctest::Approx(b[r].score).epsilon(1e-12));
        }
    }

    TEST_CASE("beams that can hold everything find the best of all sequences") {
        const ModelConfig config = small_t5(false);
        const auto model = make(config);
        const Batch inputs = some_inputs(config, 2);
        const auto n = static_cast<int32_t>(config.vocab_size);
        for (const double penalty : {0.0, 1.0, 2.0}) {
            const std::vector<Generated> found = run(*model, inputs, {.max_new_tokens = 2, .beams = n, .length_penalty = penalty});
            for (int64_t r = 0; r < inputs.rows; ++r) {
                Generated best{.ids = {}, .score = -1e30};
                const auto consider = [&](const Tokens& ids, double sum) {
                    const double score = sum / std::pow(static_cast<double>(ids.size()), penalty);
                    if (score > best.score) best = {ids, score};
                };
                for (int32_t a = 0; a < n; ++a) {
                    const auto p = teacher_forced(*model, inputs, r, {a, 0});
                    if (a == config.eos_id) consider({a}, sum_of(p, {a}));
                    for (int32_t b = 0; a != config.eos_id && b < n; ++b) consider({a, b}, sum_of(p, {a, b}));
                }
                CHECK(found[static_cast<size_t>(r)].ids == best.ids);
                CHECK(found[static_cast<size_t>(r)].score == doctest::Approx(best.score).epsilon(1e-10));
            }
        }
    }

    TEST_CASE("a beam's score is that of its sequence, however often beams have changed places") {
        for (const ModelConfig& base : {small_t5(true), untied(roomy_switch()), small_decoder(), small_prefix_decoder()}) {
            const Batch inputs = some_inputs(base, 13);
            const auto model = ending_model(base, inputs);
            for (const int64_t beams : {2, 3, 6}) {
                const GenerationSettings settings{.max_new_tokens = 9, .beams = beams, .length_penalty = 0.7, .early_stopping = beams == 3};
                const std::vector<Generated> results = run(*model, inputs, settings);
                for (size_t r = 0; r < results.size(); ++r) {
                    const Generated& g = results[r];
                    const double sum = sum_of(teacher_forced(*model, inputs, static_cast<int64_t>(r), g.ids), g.ids);
                    CHECK(g.score == doctest::Approx(sum / std::pow(static_cast<double>(g.ids.size()), settings.length_penalty)).epsilon(1e-10));
                    CHECK(g.ended == (g.ids.back() == model->config().eos_id));
                    CHECK(std::count(g.ids.begin(), g.ids.end(), model->config().eos_id) == g.ended);
                }
            }
        }
    }

    TEST_CASE("beam results do not depend on the rows beside them") {
        for (const ModelConfig& base : {small_t5(true), small_decoder(), small_prefix_decoder()}) {
            const Batch inputs = some_inputs(base, 13);
            const auto model = ending_model(base, inputs);
            const GenerationSettings settings{.max_new_tokens = 8, .beams = 3};
            const std::vector<Generated> together = run(*model, inputs, settings);
            for (int64_t r = 0; r < inputs.rows; ++r) CHECK(run(*model, cut(inputs, r, 1), settings)[0].ids == together[static_cast<size_t>(r)].ids);
        }
    }

    TEST_CASE("sampling: seeds, and the cuts down to one token") {
        const ModelConfig config = small_t5(true);
        const auto model = make(config);
        const Batch inputs = some_inputs(config, 4);
        GenerationSettings settings{.max_new_tokens = 8, .temperature = 1.3, .seed = 1};
        const std::vector<Tokens> first = ids_of(run(*model, inputs, settings));
        CHECK(ids_of(run(*model, inputs, settings)) == first);
        settings.seed = 2;
        CHECK(ids_of(run(*model, inputs, settings)) != first);
        const std::vector<Tokens> greedy = ids_of(run(*model, inputs, {.max_new_tokens = 8}));
        settings.top_k = 1;
        CHECK(ids_of(run(*model, inputs, settings)) == greedy);
        settings.top_k = 0, settings.top_p = 1e-9;
        CHECK(ids_of(run(*model, inputs, settings)) == greedy);
        settings.top_p = 1, settings.temperature = 1e-6;
        CHECK(ids_of(run(*model, inputs, settings)) == greedy);
    }

    TEST_CASE("sampled tokens follow the sharpened and cut distribution") {
        const ModelConfig config = small_t5(true);
        const auto model = make(config);
        constexpr int64_t draws = 4000;
        const Batch one = some_inputs(config, 1);
        const auto expected = sampling_distribution(teacher_forced(*model, one, 0, {0})[0], 0.7, 5);
        std::map<size_t, int64_t> counted;
        for (const Generated& g : run(*model, repeated(one, draws), {.max_new_tokens = 1, .temperature = 0.7, .top_k = 5, .seed = 4})) ++counted[static_cast<size_t>(g.ids[0])];
        for (const auto& [id, share] : expected) {
            const double deviation = std::sqrt(share * (1 - share) / draws);
            CHECK(std::abs(static_cast<double>(counted[id]) / draws - share) < 4.5 * deviation);  // normal approximation: one in 150,000 by chance
        }
        for (const auto& [id, count] : counted) CHECK(expected.contains(id));
    }

    TEST_CASE("ids without a piece are never produced") {
        const ModelConfig config = small_t5(true);
        const auto model = make(config);
        const Batch inputs = some_inputs(config, 8);
        const int64_t valid = 7;
        for (const GenerationSettings& settings : {GenerationSettings{.max_new_tokens = 6, .valid_ids = valid}, {.max_new_tokens = 6, .beams = 4, .valid_ids = valid},
                                                   {.max_new_tokens = 6, .temperature = 5, .valid_ids = valid}}) {
            const std::vector<Generated> results = run(*model, inputs, settings);
            for (size_t r = 0; r < results.size(); ++r) {
                for (const int32_t id : results[r].ids) CHECK(id < valid);
                if (settings.beams > 1) continue;
                const auto p = teacher_forced(*model, inputs, static_cast<int64_t>(r), results[r].ids, valid);
                CHECK(results[r].score == doctest::Approx(sum_of(p, results[r].ids)).epsilon(1e-10));
            }
        }
    }

    TEST_CASE("what cannot be is refused") {
        const ModelConfig config = small_t5(true);
        const auto model = make(config);
        const Batch inputs = some_inputs(config, 2);
        CHECK(refusal(*model, inputs, {.max_new_tokens = 0}) == Exit::usage);
        CHECK(refusal(*model, inputs, {.beams = 0}) == Exit::usage);
        CHECK(refusal(*model, inputs, {.beams = 2, .temperature = 1}) == Exit::usage);
        model->parameters().master(*model->parameters().find("decoder.final_layer_norm.weight")).as<double>()[0] = std::nan("");
        for (const GenerationSettings& settings : {GenerationSettings{}, {.beams = 2}, {.temperature = 1}}) CHECK(refusal(*model, inputs, settings) == Exit::diverged);
    }
}

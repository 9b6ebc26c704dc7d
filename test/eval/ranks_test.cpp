// Evaluation and generation on meshes of threads: every rank gets what one rank alone gets, whoever computed it; batches do not divide, rows end at different times.
#include "eval/dealing.hpp"
#include "eval/ending_models.hpp"
#include "eval/evaluate.hpp"

#include "data/fixtures.hpp"
#include "comm/agreement.hpp"
#include "model/layouts.hpp"

#include <atomic>
#include <cmath>

using namespace flanmoe;
using namespace flanmoe::test;

namespace {

constexpr double rounding = 1e-10;  // of f64, where ranks add in another order

ModelConfig of_heads(ModelConfig config) {
    config.heads = 4, config.kv_heads = config.kv_heads ? 4 : 0;
    return config;
}

std::vector<Family> evaluated_families() {
    ModelConfig by_choice = routed_model("expert_choice");  // its decoder has a fixed capacity even in decoding
    by_choice.decoder_routing = by_choice.encoder_routing, by_choice.decoder_routing.force_causal = true;
    std::vector<Family> all{{"dense T5", small_t5(true)}, {"Switch", small_switch()}, {"expert choice", by_choice}, {"decoder-only", small_decoder()}};
    for (Family& f : all) f.config = of_heads(untied(f.config));
    return all;
}

std::vector<MeshShape> meshes_for(const ModelConfig& config) {
    if (config.experts == 0) return {{2, 1, 1}, {1, 1, 2}, {3, 1, 1}, {2, 1, 2}};
    return {{2, 1, 1}, {1, 2, 1}, {1, 1, 2}, {2, 2, 1}, {1, 2, 2}, {1, 4, 1}};
}

/// A rank's part of a model on one rank.
std::unique_ptr<Transformer> part_of(const Transformer& whole, const NamedValues& weights, const Mesh& mesh) {
    auto model = std::make_unique<Transformer>(whole.config(), mesh);
    model->parameters().allocate(DType::f64, false);
    load_parts(model->parameters(), weights);
    return model;
}

bool close(double a, double b) { return std::abs(a - b) <= rounding * std::max(1.0, std::abs(b)); }

void compare(const std::vector<Generated>& found, const std::vector<Generated>& expected, int rank, Findings& findings) {
    if (found.size() != expected.size()) return findings.add("rank {}: {} results instead of {}", rank, found.size(), expected.size());
    for (size_t r = 0; r < found.size(); ++r)
        if (found[r].ids != expected[r].ids || found[r].ended != expected[r].ended || !close(found[r].score, expected[r].score))
            findings.add("rank {}, row {}: [{}] {} instead of [{}] {}", rank, r, fmt::join(found[r].ids, " "), found[r].score, fmt::join(expected[r].ids, " "), expected[r].score);
}

// Uneven examples, some with options, whose number no mesh divides.
std::vector<TaskExample> some_examples(int count) {
    std::vector<TaskExample> examples;
    for (int i = 0; i < count; ++i) {
        TaskExample e;
        e.inputs = testing::synthetic_text(1 + i % 3, static_cast<uint64_t>(i));
        e.targets = {i % 2 ? "bread" : "the old miller"};
        if (i % 3 == 0) e.options = {"sheep of the hill", e.targets[0], "rain"};
        e.file = "memory", e.line = i + 1;
        examples.push_back(e);
    }
    return examples;
}

void compare(const TaskResult& found, const TaskResult& expected, int rank, Findings& findings) {
    for (const auto value : {&TaskResult::loss, &TaskResult::exact_match, &TaskResult::f1, &TaskResult::rouge_l, &TaskResult::accuracy, &TaskResult::accuracy_by_length})
        if (!(found.*value) || !close(*(found.*value), *(expected.*value))) findings.add("rank {}: a metric is not {}", rank, *(expected.*value));
    for (size_t i = 0; i < expected.answers.size(); ++i) {
        const Answer &a = found.answers[i], &b = expected.answers[i];
        if (a.output != b.output || a.ended != b.ended || a.choice != b.choice || !close(a.nll, b.nll)) findings.add("rank {}, example {}: '{}' {} instead of '{}' {}", rank, i, a.output, a.nll, b.output, b.nll);
        for (size_t o = 0; o < b.option_log_p.size(); ++o)
            if (!close(a.option_log_p[o], b.option_log_p[o])) findings.add("rank {}, example {}: option {} has {} instead of {}", rank, i, o, a.option_log_p[o], b.option_log_p[o]);
    }
}

std::unique_ptr<Transformer> speaking_model(ModelConfig config) {
    config.vocab_size = testing::small_tokenizer()->vocabulary_rows();
    return make(config, DType::f64, 11);
}

EvalSettings small_batches() {
    EvalSettings settings;
    settings.batch = {3, 60};
    settings.generation.max_new_tokens = 5;
    return settings;
}

}  // namespace

TEST_SUITE("eval/ranks") {
    TEST_CASE("every row is some replica's own, and ranks that share experts have equally many") {
        for (const MeshShape shape : {MeshShape{1, 1, 1}, {3, 1, 1}, {2, 2, 1}, {1, 2, 2}}) {
            for (const int64_t rows : {1, 2, 7, 8}) {
                std::vector<Hand> hands(static_cast<size_t>(shape.ranks()));
                run_ranks(shape.ranks(), [&](Communicator& world) { hands[static_cast<size_t>(world.rank())] = hand_of(Mesh(world, shape), rows); });
                std::vector<int> owners(static_cast<size_t>(rows));
                for (const Hand& hand : hands) {
                    for (size_t i = 0; i < hand.own; ++i) ++owners[hand.rows[i]];
                    CHECK(hand.own <= hand.rows.size());
                    if (shape.expert > 1) CHECK(hand.rows.size() == hands[0].rows.size());
                    else CHECK(hand.rows.size() == hand.own);
                    CHECK(static_cast<int64_t>(hand.rows.size()) <= (rows + shape.replicas() - 1) / shape.replicas());
                }
                for (const int count : owners) CHECK(count == shape.tensor);
            }
        }
    }

    TEST_CASE("generation gives every rank what one rank gives: greedy, sampling and beams") {
        for (const Family& family : evaluated_families()) {
            CAPTURE(family.name);
            const Batch inputs = some_inputs(family.config, 7);
            const auto alone = ending_model(family.config, inputs);
            const NamedValues weights = values_of(alone->parameters(), false);
            for (const GenerationSettings& settings : {GenerationSettings{.max_new_tokens = 12}, {.max_new_tokens = 12, .temperature = 1, .seed = 9, .numbers = {9, 8, 7, 1, 2, 3, 4}},
                                                       {.max_new_tokens = 6, .beams = 3}}) {
                const std::vector<Generated> expected = run(*alone, inputs, settings);
                for (const MeshShape& shape : meshes_for(family.config)) {
                    CAPTURE(shape.text());
                    Findings findings;
                    run_ranks(shape.ranks(), [&](Communicator& world) {
                        const Mesh mesh(world, shape);
                        compare(run(*part_of(*alone, weights, mesh), inputs, settings), expected, world.rank(), findings);
                    });
                    CHECK(findings.text() == "");
                }
            }
        }
    }

    TEST_CASE("evaluation gives every rank the metrics and answers of one") {
        for (const Family& family : evaluated_families()) {
            CAPTURE(family.name);
            const auto alone = speaking_model(family.config);
            const NamedValues weights = values_of(alone->parameters(), false);
            EvalSettings settings = small_batches();
            settings.generation.temperature = 0.8;  // keyed by the example, whatever batch and rank it comes to
            const auto result_of = [&](const Transformer& model, const EvalSettings& with) {
                Context context;
                return evaluate_examples(context, model, *testing::small_tokenizer(), some_examples(11), with, "memory");
            };
            const TaskResult expected = result_of(*alone, settings);
            EvalSettings other = settings;
            other.batch = {256, 8192};
            Findings findings;
            compare(result_of(*alone, other), expected, 0, findings);
            for (const MeshShape& shape : meshes_for(family.config)) {
                run_ranks(shape.ranks(), [&](Communicator& world) {
                    const Mesh mesh(world, shape);
                    compare(result_of(*part_of(*alone, weights, mesh), settings), expected, world.rank(), findings);
                });
                CAPTURE(shape.text());
                CHECK(findings.text() == "");
            }
        }
    }

    TEST_CASE("ranks that have read other examples refuse, all of them") {
        const auto alone = speaking_model(of_heads(small_t5(true)));
        const NamedValues weights = values_of(alone->parameters(), false);
        std::atomic<int> refused = 0;
        run_ranks(2, [&](Communicator& world) {
            const Mesh mesh(world, {2, 1, 1});
            const auto model = part_of(*alone, weights, mesh);
            Context context;
            std::vector<TaskExample> examples = some_examples(5);
            if (world.rank() == 1) examples[3].inputs += " x";
            try {
                evaluate_examples(context, *model, *testing::small_tokenizer(), examples, small_batches());
            } catch (const SharedError& error) {
                refused += error.code == Exit::usage && std::string(error.what()).starts_with("rank 1 has another view of the examples than rank 0");
            }
        });
        CHECK(refused == 2);
    }

    TEST_CASE("a rank whose outputs are not finite ends all") {
        const auto alone = make(of_heads(small_t5(true)));
        const NamedValues weights = values_of(alone->parameters(), false);
        const Batch inputs = some_inputs(alone->config(), 4);
        const auto generated = [&](Communicator& world) {
            const Mesh mesh(world, {2, 1, 1});
            const auto model = part_of(*alone, weights, mesh);
            if (world.rank() == 1) model->parameters().master(*model->parameters().find("decoder.final_layer_norm.weight")).as<double>()[0] = std::nan("");
            run(*model, inputs, {});
        };
        CHECK(testing::contains(testing::failure(Exit::diverged, [&] { run_ranks(2, generated); }), "not finite"));
    }
}

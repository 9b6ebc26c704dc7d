// Evaluation and incremental decoding with models that ranks share: the same batch on all of them, the same losses and logits as on one rank.
#include "model/decoding.hpp"
#include "model/layouts.hpp"

#include <doctest/doctest.h>

using namespace flanmoe;
using namespace flanmoe::test;

namespace {

const MeshShape shared_by[] = {{1, 1, 2}, {1, 2, 1}, {1, 2, 2}, {1, 1, 4}, {1, 4, 1}};

std::vector<Family> decoded_families() {
    std::vector<Family> all{{"GShard", routed_model("gshard")}, {"ST-MoE", routed_model("st_moe", true)}, {"decoder-only", small_decoder()}, {"prefix decoder", small_prefix_decoder()}};
    for (Family& f : all) f.config.heads = f.config.kv_heads ? 8 : 4, f.config.kv_heads = f.config.kv_heads ? 4 : 0;
    return all;
}

Batch batch_for(const ModelConfig& config) {
    return config.encoder_decoder ? random_batch(3, 11, 7, 61, 12) : random_decoder_batch(3, 9, 61, 12, config.bidirectional_prefix);
}

Pass evaluation(Context& context, const Transformer& model) {
    Pass pass{.context = context, .parameters = model.parameters(), .config = model.config()};
    pass.route_rows_alone = true;
    return pass;
}

// Loss of every token, then logits of four steps with two beams, which change places after the second.
std::vector<double> numbers_of(Transformer& model) {
    model.parameters().allocate(DType::f64, false);
    model.parameters().initialise(5);
    Context context;
    std::vector<double> numbers;
    {
        Pass pass = evaluation(context, model);
        const LossSums sums = model.evaluate(pass, batch_for(model.config()), &numbers);
        numbers.push_back(sums.output.nll), numbers.push_back(static_cast<double>(sums.output.correct)), numbers.push_back(sums.balance());
    }
    Pass pass = evaluation(context, model);
    DecoderCache cache(model, pass, batch_for(model.config()), 2, 4);
    std::vector<int32_t> ids = cache.first_ids();
    for (int32_t t = 0; t < 4; ++t) {
        Arena::Scope scope(context.arena);
        const Tensor logits = cache.step(pass, context.upload(ids, {cache.rows()}));
        CHECK(logits.cols() == 61);
        numbers.insert(numbers.end(), logits.as<double>(), logits.as<double>() + logits.elements());
        for (size_t r = 0; r < ids.size(); ++r) ids[r] = 2 + static_cast<int32_t>(7 * t + static_cast<int32_t>(r)) % 50;
        if (t == 1) cache.reorder(pass, context.upload(std::vector<int32_t>{1, 0, 3, 2, 5, 4}, {6}));
    }
    return numbers;
}

}  // namespace

TEST_SUITE("model/parallel_decoding") {
    TEST_CASE("losses of tokens and logits of every step, on layouts of 2 and 4 ranks") {
        for (const Family& family : decoded_families()) {
            CAPTURE(family.name);
            Transformer alone(family.config);
            const std::vector<double> expected = numbers_of(alone);
            for (const MeshShape& shape : shared_by) {
                CAPTURE(shape.text());
                Findings findings;
                run_ranks(shape.ranks(), [&](Communicator& world) {
                    const Mesh mesh(world, shape);
                    Transformer model(family.config, mesh);
                    const std::vector<double> numbers = numbers_of(model);
                    if (numbers.size() != expected.size()) return findings.add("{} numbers instead of {}", numbers.size(), expected.size());
                    for (size_t i = 0; i < numbers.size(); ++i)
                        if (!(std::abs(numbers[i] - expected[i]) <= 1e-11 * std::max(1.0, std::abs(expected[i])))) return findings.add("number {}: {} instead of {}", i, numbers[i], expected[i]);
                });
                CHECK(findings.text() == "");
            }
        }
    }
}

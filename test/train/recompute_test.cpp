// train.recompute: the same loss and gradients bit by bit, whatever is computed again, in less memory.
#include "model/families.hpp"
#include "train/step.hpp"

#include <doctest/doctest.h>

#include <cstring>

using namespace flanmoe;
using namespace flanmoe::test;

namespace {

struct Outcome {
    double loss = 0, norm = 0;
    std::vector<char> gradients;
    std::vector<double> demand;
    int64_t peak = 0;
};

Outcome outcome_of(const ModelConfig& config, DType compute, DType forward, Recompute recompute, const StepBatch& batches) {
    Transformer model(config);
    model.parameters().allocate(compute, true, forward);
    model.parameters().initialise(1);
    Context context;
    const StepGradients step = compute_gradients(context, model, batches, {0.01, 0.001, 0.0001}, 5, 2, true, recompute);
    Outcome outcome{step.loss, step.gradient_norm, {}, {}, context.arena.peak_bytes()};
    const Tensor flat = model.parameters().flat_gradient();
    outcome.gradients.assign(static_cast<const char*>(flat.data), static_cast<const char*>(flat.data) + flat.bytes());
    for (const RoutingReport& report : step.sums.routing) outcome.demand.insert(outcome.demand.end(), report.demand.begin(), report.demand.end());
    return outcome;
}

}  // namespace

TEST_SUITE("train/recompute") {
    TEST_CASE("loss, gradients and routing are the same bits in all models and types, dropout on") {
        std::vector<ModelConfig> configs = {small_t5(), small_t5(false), small_decoder(), small_prefix_decoder()};
        for (const Family& family : families()) configs.push_back(family.config);
        configs.push_back(routed_model("gshard"));
        configs.back().encoder_layers = 3, configs.back().shared_d_ff = 12, configs.back().shared_gate = true;
        for (const ModelConfig& config : configs) {
            CAPTURE(&config - configs.data());
            StepBatch batches = {family_batch(config, 4, 3), family_batch(config, 2, 4, 4)};
            if (config.shared_d_ff && config.encoder_decoder) batches.push_back(random_batch(2, 5, 13, config.vocab_size, 5, 6));  // a decoder longer than the encoder
            for (const auto& [compute, forward] : {std::pair{DType::f32, DType::f32}, {DType::bf16, DType::f32}, {DType::bf16, DType::bf16}}) {
                const Outcome none = outcome_of(config, compute, forward, Recompute::none, batches);
                for (const Recompute recompute : {Recompute::cheap, Recompute::full}) {
                    CAPTURE(static_cast<int>(recompute));
                    const Outcome again = outcome_of(config, compute, forward, recompute, batches);
                    CHECK(again.loss == none.loss);
                    CHECK(again.norm == none.norm);
                    CHECK(again.demand == none.demand);
                    CHECK(again.gradients == none.gradients);
                }
            }
        }
    }
    TEST_CASE("cheap takes less memory than none, full much less") {
        for (ModelConfig config : {small_t5(), small_switch()}) {
            config.encoder_layers = config.decoder_layers = 6;
            if (config.experts) config.encoder_sparse = config.decoder_sparse = {1, 3, 5};
            const StepBatch batches = {random_batch(4, 40, 32, config.vocab_size, 3)};
            const auto peak = [&](Recompute recompute) { return static_cast<double>(outcome_of(config, DType::f32, DType::f32, recompute, batches).peak); };
            const double none = peak(Recompute::none);
            CHECK(peak(Recompute::cheap) < 0.85 * none);
            CHECK(peak(Recompute::full) < 0.45 * none);
        }
    }
}

// Freezing: every part keeps its bits through steps of every optimizer, holds no state and counts in no norm; the rest is trained as it would be.
#include "optim/freezing.hpp"

#include "core/error.hpp"
#include "model/small_models.hpp"
#include "train/step.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>

using namespace flanmoe;
using namespace flanmoe::test;

namespace {

/// Untied, so that there is a head; experts in one layer of each stack.
ModelConfig sparse_model() {
    ModelConfig c = small_switch();
    c.tied = c.scale_outputs = false;
    return c;
}

std::string refusal(const ModelConfig& config, const std::vector<std::string>& parts) {
    Transformer model(config);
    try {
        freeze_parameters(model.parameters(), parts);
    } catch (const Error& error) {
        CHECK(error.code == Exit::usage);
        return error.what();
    }
    return "";
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

struct Outcome {
    std::vector<std::vector<float>> before, after;  // of every tensor
    std::vector<bool> frozen;
    std::vector<std::string> names;
    double norm = 0, norm_of_trained = 0;
    size_t slots = 0;
};

Outcome steps_with(const std::vector<std::string>& parts, OptimizerKind kind, DType type, double clip) {
    Transformer model(sparse_model());
    ParameterStore& store = model.parameters();
    freeze_parameters(store, parts);
    store.allocate(type, true);
    store.initialise(7);
    OptimizerConfig settings;
    settings.kind = kind, settings.weight_decay = 0.1, settings.decay_vectors = true;
    Optimizer optimizer(settings, store);
    Outcome outcome;
    outcome.slots = optimizer.state().size();
    const auto weights = [&] {
        std::vector<std::vector<float>> copy;
        for (const Parameter& p : store.records())
            for (int64_t e = 0; e < p.tensors(); ++e) copy.emplace_back(store.master(p, e).as<float>(), store.master(p, e).as<float>() + p.shape.elements());
        return copy;
    };
    outcome.before = weights();
    Context context;
    for (int64_t step = 0; step < 3; ++step) {
        const StepGradients g = compute_gradients(context, model, {random_batch(4, 12, 9, model.config().vocab_size, 3)}, {0.01, 0.001, 0.0001}, 5, step);
        if (step == 0) outcome.norm = g.gradient_norm;
        double squares = 0;
        for (const Parameter& p : store.records())
            for (int64_t e = 0; e < p.tensors(); ++e)
                for (int64_t i = 0; !p.frozen && i < p.shape.elements(); ++i) squares += std::pow(store.gradient(p, e).as<float>()[i], 2);
        if (step == 0) outcome.norm_of_trained = std::sqrt(squares);
        apply_gradients(context, model, optimizer, g, clip, step, 0.05);
    }
    outcome.after = weights();
    for (const Parameter& p : store.records())
        for (int64_t e = 0; e < p.tensors(); ++e) {
            outcome.frozen.push_back(p.frozen), outcome.names.push_back(p.tensor_name(e));
            for (const auto& [name, tensor, slice] : optimizer.state()) CHECK_FALSE((p.frozen && name.starts_with(p.tensor_name(e) + ".")));
        }
    return outcome;
}

}  // namespace

TEST_SUITE("optim/freezing") {
    TEST_CASE("each part keeps its bits, everything else moves, and only that counts in the norm") {
        for (const std::string part : {"gate", "experts", "moe", "non_moe", "embedding", "attention", "norm", "ffn", "head"}) {
            for (const OptimizerKind kind : {OptimizerKind::adafactor, OptimizerKind::adamw}) {
                CAPTURE(part);
                const Outcome o = steps_with({part}, kind, DType::f32, 0.5);
                size_t frozen = 0;
                for (size_t i = 0; i < o.before.size(); ++i) {
                    CAPTURE(o.names[i]);
                    const bool same = std::memcmp(o.before[i].data(), o.after[i].data(), o.before[i].size() * sizeof(float)) == 0;
                    CHECK(same == o.frozen[i]);
                    const bool router = contains(o.names[i], ".router."), expert = contains(o.names[i], ".expert_");
                    if (part == "gate") CHECK(o.frozen[i] == router);
                    if (part == "experts") CHECK(o.frozen[i] == expert);
                    if (part == "moe") CHECK(o.frozen[i] == (router || expert));
                    if (part == "non_moe") CHECK(o.frozen[i] == !(router || expert));
                    frozen += o.frozen[i];
                }
                CHECK((frozen > 0 && frozen < o.before.size()));
                CHECK(o.norm == doctest::Approx(o.norm_of_trained).epsilon(1e-6));
            }
        }
    }

    TEST_CASE("parts add up, and bf16's master weights keep their bits too") {
        const Outcome o = steps_with({"gate", "attention", "norm"}, OptimizerKind::adafactor, DType::bf16, 0);
        for (size_t i = 0; i < o.before.size(); ++i) {
            CAPTURE(o.names[i]);
            CHECK(o.frozen[i] == (contains(o.names[i], ".router.") || contains(o.names[i], "Attention") || contains(o.names[i], "norm")));
            CHECK((o.before[i] == o.after[i]) == o.frozen[i]);
        }
    }

    TEST_CASE("the norm is smaller by what is frozen") { CHECK(steps_with({"experts"}, OptimizerKind::adamw, DType::f32, 0).norm < steps_with({}, OptimizerKind::adamw, DType::f32, 0).norm); }

    TEST_CASE("nothing left to train, and parts that the model lacks, are refused") {
        CHECK(contains(refusal(sparse_model(), {"moe", "non_moe"}), "train.freeze freezes every parameter"));
        CHECK(contains(refusal(sparse_model(), {"gate", "experts", "embedding", "attention", "norm", "ffn", "head"}), "nothing to train"));
        CHECK(contains(refusal(small_t5(), {"non_moe"}), "nothing to train"));
        CHECK(contains(refusal(small_t5(), {"experts"}), "train.freeze names experts, but the model has nothing of that kind"));
        CHECK(contains(refusal(small_t5(false), {"head"}), "names head"));  // tied
        CHECK(refusal(sparse_model(), {"non_moe"}).empty());
    }
}

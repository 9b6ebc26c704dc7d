// Gradients of whole models on the device that the tests run on (`--device cuda`), parameter by parameter, against the CPU's.
//
// f32 against f64 on the CPU: a gradient's distance is at most 1e-5 of its norm, and every router decides alike. bf16 against bf16 on the CPU: the table's bound for
// chains (4e-2) for each of the two, together times the root of 2, with the routers of both fed the logits of one, since rounding may change a decision.
// Dropout, jitter and all losses are on.
#include "device.hpp"
#include "model/families.hpp"
#include "ops/check.hpp"
#include "ops/elementwise.hpp"

#include <doctest/doctest.h>

#include <cmath>

using namespace flanmoe;
using namespace flanmoe::test;

namespace {

/// A model with given weights on a device, and what one training pass left.
struct Run {
    Transformer model;
    Context context;
    LossSums sums;
    std::vector<std::vector<double>> logits;  ///< of the routers, encoder first
    std::vector<std::vector<int32_t>> decisions;

    Run(const ModelConfig& config, Device device, Engine& engine, DType type, const std::vector<float>& weights) : model(config), context(device, engine) {
        model.parameters().allocate(type, true, type, context);
        std::vector<double> wide(weights.begin(), weights.end());
        size_t next = 0;
        for (const Parameter& p : model.parameters().records()) {
            for (int64_t e = 0; e < p.tensors(); ++e) {
                const Tensor to = model.parameters().master(p, e);
                const bool f64 = to.dtype == DType::f64;
                context.engine->upload(to.data, f64 ? static_cast<const void*>(wide.data() + next) : weights.data() + next, to.bytes());
                next += static_cast<size_t>(p.shape.elements());
            }
        }
        model.parameters().update_compute();
    }

    Pass pass(const Batch& batch) {
        Pass pass{.context = context, .parameters = model.parameters(), .config = model.config(), .training = true, .seed = 3, .step = 7};
        pass.loss = {.balance = 0.02, .router_z = 0.003, .output_z = 1e-4, .tokens = batch.target_tokens()};
        count_groups(model.config(), {batch}, pass.loss);
        return pass;
    }

    /// A forward pass alone, for the routers' logits and decisions.
    void route(const Batch& batch) {
        Arena::Scope scope(context.arena);
        Pass forward = pass(batch);
        TransformerSaved saved;
        model.forward(forward, batch, saved);
        for (const RoutedLayer& layer : model.routed_layers(saved)) {
            const Tensor wide = context.allocate(DType::f64, layer.route->logits.shape);
            ops::cast(context, layer.route->logits, wide);
            logits.push_back(context.download<double>(wide));
            decisions.push_back(context.download<int32_t>(layer.route->offsets));
            const std::vector<int32_t> rows = context.download<int32_t>(layer.route->row_token);
            decisions.back().insert(decisions.back().end(), rows.begin(), rows.begin() + decisions.back().back());
        }
    }

    /// Gradients, with `given` logits by sparse layer if there are any.
    void train(const Batch& batch, const std::vector<std::vector<double>>& given = {}) {
        Arena::Scope scope(context.arena);
        Pass training = pass(batch);
        std::vector<Tensor> by_layer(static_cast<size_t>(model.config().encoder_layers + model.config().decoder_layers));
        size_t next = 0;
        const auto place = [&](const std::vector<int64_t>& sparse, int64_t first) {
            for (const int64_t layer : sparse) {
                const std::vector<float> values(given[next].begin(), given[next].end());
                by_layer[static_cast<size_t>(first + layer)] = context.upload(values, {static_cast<int64_t>(values.size()) / model.config().experts, model.config().experts});
                ++next;
            }
        };
        if (!given.empty()) {
            place(model.config().encoder_sparse, 0), place(model.config().decoder_sparse, model.config().encoder_layers);
            training.router_logits = &by_layer;
        }
        model.parameters().zero_gradients();
        const Tensor report = context.zeros(DType::f64, {model.report_size()});
        model.train(training, upload(context, model.config(), batch), report);
        sums = model.read_report(context.download<double>(report).data());
    }

    std::vector<double> gradient(const Parameter& p, int64_t expert) {
        Arena::Scope scope(context.arena);
        const Tensor wide = context.allocate(DType::f64, p.shape);
        ops::cast(context, model.parameters().gradient(p, expert), wide);
        return context.download<double>(wide);
    }
};

/// Weights of a model whose routers tell tokens apart, in the order of the records.
std::vector<float> weights_of(const ModelConfig& config) {
    Transformer model(config);
    model.parameters().allocate(DType::f64, false);
    randomise(model, 5);
    std::vector<float> weights;
    for (const Parameter& p : model.parameters().records()) {
        for (int64_t e = 0; e < p.tensors(); ++e) {
            const Tensor t = model.parameters().master(p, e);
            for (int64_t i = 0; i < t.elements(); ++i) weights.push_back(static_cast<float>(t.as<double>()[i]));
        }
    }
    return weights;
}

/// Every gradient of `got` within a share of its norm; one that is next to nothing beside the others is measured by theirs.
/// Returns the largest share of the tolerance.
double compare_gradients(Run& got, Run& expected, double tolerance) {
    std::vector<std::vector<double>> gradients;
    double total = 0, count = 0;
    for (const Parameter& p : expected.model.parameters().records()) {
        for (int64_t e = 0; e < p.tensors(); ++e) {
            gradients.push_back(expected.gradient(p, e));
            for (const double g : gradients.back()) total += g * g, ++count;
        }
    }
    size_t next = 0;
    double worst = 0;
    for (const Parameter& p : got.model.parameters().records()) {
        for (int64_t e = 0; e < p.tensors(); ++e) {
            const std::vector<double> values = got.gradient(p, e), &right = gradients[next++];
            double distance = 0, norm = 1e-6 * total / count * static_cast<double>(right.size());
            for (size_t i = 0; i < values.size(); ++i) distance += (values[i] - right[i]) * (values[i] - right[i]), norm += right[i] * right[i];
            CAPTURE(p.tensor_name(e));
            CHECK(std::sqrt(distance / norm) <= tolerance);
            worst = std::max(worst, std::sqrt(distance / norm) / tolerance);
        }
    }
    CHECK(next == gradients.size());
    return worst;
}

std::vector<Family> all_families() {
    std::vector<Family> all = families();
    all.insert(all.begin(), {{"T5 v1.0", small_t5(false)}, {"T5 v1.1", small_t5()}, {"decoder-only, rotary, shared expert", small_decoder()}});
    return all;
}

}  // namespace

TEST_SUITE("model/device") {
    TEST_CASE("gradients of every parameter of every family in f32: as in f64 on the CPU, with the same decisions") {
        double worst = 0;
        for (const Family& family : all_families()) {
            INFO("family: ", family.name);
            const std::vector<float> weights = weights_of(family.config);
            const Batch batch = family_batch(family.config, 3, 3);
            Run here(family.config, test_device(), test_engine(), DType::f32, weights), exact(family.config, Device::cpu, host_engine(), DType::f64, weights);
            here.route(batch), exact.route(batch);
            CHECK(here.decisions == exact.decisions);
            here.train(batch), exact.train(batch);
            CHECK(here.sums.output.nll == doctest::Approx(exact.sums.output.nll).epsilon(1e-6));
            CHECK(here.sums.output.correct == exact.sums.output.correct);
            worst = std::max(worst, compare_gradients(here, exact, 1e-5));
        }
        MESSAGE("largest share of the allowance: ", worst);
    }

    TEST_CASE("gradients of every parameter of every family in bf16, decisions forced: as in bf16 on the CPU") {
        if (test_device() == Device::cpu) return;  // its other device
        double worst = 0;
        for (const Family& family : all_families()) {
            INFO("family: ", family.name);
            const std::vector<float> weights = weights_of(family.config);
            const Batch batch = family_batch(family.config, 3, 3);
            Run here(family.config, test_device(), test_engine(), DType::bf16, weights), there(family.config, Device::cpu, host_engine(), DType::bf16, weights);
            there.route(batch);
            here.train(batch, there.logits), there.train(batch, there.logits);
            CHECK(here.sums.output.nll == doctest::Approx(there.sums.output.nll).epsilon(0.01));
            worst = std::max(worst, compare_gradients(here, there, std::sqrt(2.0) * tolerance(DType::bf16, Kind::chain)));
        }
        MESSAGE("largest share of the allowance: ", worst);
    }
}

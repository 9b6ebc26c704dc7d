// A step: micro-batches add up to the whole, and clipping. (Learning one batch by heart is in model/transformer_test.cpp.)
#include "train/step.hpp"

#include "model/small_models.hpp"

#include <doctest/doctest.h>

#include <cmath>

using namespace flanmoe;
using namespace flanmoe::test;

namespace {

// Largest difference of two stores' gradients, relative to the norm.
double difference(const ParameterStore& a, const ParameterStore& b) {
    double squares = 0, norm = 0;
    for (int64_t i = 0; i < a.flat_gradient().elements(); ++i) {
        const double x = a.flat_gradient().as<double>()[i], y = b.flat_gradient().as<double>()[i];
        squares += (x - y) * (x - y), norm += x * x;
    }
    return std::sqrt(squares / norm);
}

}  // namespace

TEST_SUITE("train/step") {
    TEST_CASE("micro-batches add up to the whole batch, dropout and jitter on") {
        ModelConfig config = small_switch();
        config.encoder_routing.group_rows = config.decoder_routing.group_rows = 1;
        Transformer whole(config), parts(config);
        for (Transformer* model : {&whole, &parts}) model->parameters().allocate(DType::f64, true), model->parameters().initialise(1);
        const Batch batch = random_batch(6, 12, 9, config.vocab_size, 3);
        Context context;
        const LossCoefficients coefficients{0.01, 0.001, 0.0001};
        const StepGradients a = compute_gradients(context, whole, {batch}, coefficients, 5, 2);
        const StepGradients b = compute_gradients(context, parts, {cut(batch, 0, 2), cut(batch, 2, 2), cut(batch, 4, 2)}, coefficients, 5, 2);
        CHECK(a.loss == doctest::Approx(b.loss).epsilon(1e-12));
        CHECK(a.gradient_norm == doctest::Approx(b.gradient_norm).epsilon(1e-12));
        CHECK(difference(whole.parameters(), parts.parameters()) < 1e-12);  // sums in another order
        const StepGradients other = compute_gradients(context, parts, {batch}, coefficients, 5, 3);  // another step draws another dropout
        CHECK(std::fabs(other.loss - a.loss) > 1e-6);
    }
    TEST_CASE("clipping scales the gradient to the given norm and leaves smaller ones") {
        ModelConfig config = small_t5();
        OptimizerConfig settings;
        settings.kind = OptimizerKind::adamw, settings.epsilon = 1e3;  // steps in proportion to the gradient
        Context context;
        const auto moved = [&](double clip) {
            Transformer model(config);
            model.parameters().allocate(DType::f64, true);
            model.parameters().initialise(1);
            Optimizer optimizer(settings, model.parameters());
            const StepGradients g = compute_gradients(context, model, {random_batch(2, 8, 6, config.vocab_size, 3)}, {}, 0, 0);
            const double* weight = model.parameters().master(*model.parameters().find("decoder.final_layer_norm.weight")).as<double>();
            const double before = *weight;
            apply_gradients(context, model, optimizer, g, clip, 0, 1.0);
            return std::pair(*weight - before, g.gradient_norm);
        };
        const auto [free, norm] = moved(0);
        REQUIRE(free != 0);
        CHECK(moved(2 * norm).first == free);
        CHECK(moved(norm / 4).first == doctest::Approx(free / 4).epsilon(1e-3));
    }
}

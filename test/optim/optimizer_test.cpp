// Which state the optimizer keeps for which parameter, and that it touches what it should and nothing else.
#include "optim/optimizer.hpp"

#include "core/tensor.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <set>

using namespace flanmoe;

namespace {

// A factored matrix, two experts' small matrices, a vector and a frozen matrix; gradients are all `gradient`.
void fill(ParameterStore& store, float gradient) {
    store.declare({{.name = "big", .shape = {130, 128}, .init = Init::normal}});
    store.declare({{.name = "expert_{e}.wi", .shape = {3, 5}, .experts = 2, .init = Init::normal}});
    store.declare({{.name = "norm", .shape = {7}, .init = Init::ones}});
    store.declare({{.name = "fixed", .shape = {4, 4}, .init = Init::ones, .frozen = true}});
    store.allocate(DType::f32, true);
    store.initialise(3);
    for (const Parameter& p : store.records())
        for (int64_t e = 0; e < p.tensors(); ++e)
            for (int64_t i = 0; i < p.shape.elements(); ++i) store.gradient(p, e).as<float>()[i] = gradient;
}

std::set<std::string> names(const Optimizer& optimizer) {
    std::set<std::string> found;
    for (const auto& [name, tensor, slice] : optimizer.state()) found.insert(name);
    return found;
}

}  // namespace

TEST_SUITE("optim/optimizer") {
    TEST_CASE("state by kind of parameter; none for frozen ones") {
        ParameterStore store;
        fill(store, 1);
        CHECK(names(Optimizer({}, store)) == std::set<std::string>{"big.v_row", "big.v_col", "expert_0.wi.v", "expert_1.wi.v", "norm.v"});
        OptimizerConfig whole;
        whole.factored = false;
        CHECK(names(Optimizer(whole, store)) == std::set<std::string>{"big.v", "expert_0.wi.v", "expert_1.wi.v", "norm.v"});
        OptimizerConfig adamw;
        adamw.kind = OptimizerKind::adamw;
        CHECK(names(Optimizer(adamw, store)) ==
              std::set<std::string>{"big.m", "big.v", "expert_0.wi.m", "expert_0.wi.v", "expert_1.wi.m", "expert_1.wi.v", "norm.m", "norm.v"});
    }
    TEST_CASE("an update moves every parameter against its gradient, frozen ones not") {
        for (const OptimizerKind kind : {OptimizerKind::adafactor, OptimizerKind::adamw}) {
            ParameterStore store, before;
            fill(store, 0.5f), fill(before, 0);
            OptimizerConfig config;
            config.kind = kind;
            Optimizer optimizer(config, store);
            Context context;
            optimizer.update(context, 0, 0.01, 1.0);
            for (size_t r = 0; r < store.records().size(); ++r) {
                const Parameter& p = store.records()[r];
                for (int64_t e = 0; e < p.tensors(); ++e) {
                    const float *now = store.master(p, e).as<float>(), *then = before.master(before.records()[r], e).as<float>();
                    for (int64_t i = 0; i < p.shape.elements(); ++i) CHECK((p.frozen ? now[i] == then[i] : now[i] < then[i]));
                }
            }
        }
    }
    TEST_CASE("weight decay of AdamW leaves vectors alone unless told otherwise") {
        for (const bool vectors : {false, true}) {
            ParameterStore store;
            fill(store, 0);  // without gradients only decay moves anything
            OptimizerConfig config;
            config.kind = OptimizerKind::adamw, config.weight_decay = 0.1, config.decay_vectors = vectors;
            Optimizer optimizer(config, store);
            Context context;
            optimizer.update(context, 0, 0.5, 1.0);
            CHECK(store.master(*store.find("norm")).as<float>()[0] == (vectors ? doctest::Approx(0.95) : doctest::Approx(1.0)));
        }
    }
    TEST_CASE("scaling gradients is the same as giving scaled ones; reset forgets") {
        ParameterStore a, b;
        fill(a, 3), fill(b, 1);
        OptimizerConfig config;
        config.kind = OptimizerKind::adamw, config.epsilon = 0.1;  // so that the scale shows
        Optimizer first(config, a), second(config, b);
        Context context;
        first.update(context, 0, 0.01, 1.0 / 3.0), second.update(context, 0, 0.01, 1.0);
        CHECK(a.master(*a.find("norm")).as<float>()[3] == doctest::Approx(b.master(*b.find("norm")).as<float>()[3]).epsilon(1e-6));
        first.reset();
        for (const auto& [name, tensor, slice] : first.state()) CHECK(tensor.as<float>()[0] == 0);
    }
    TEST_CASE("clipping by the norm of a tensor is clipping by the norm; gradients that are not finite are not applied") {
        ParameterStore a, b;
        fill(a, 3), fill(b, 3);
        OptimizerConfig config;
        config.kind = OptimizerKind::adamw, config.epsilon = 0.1;
        Optimizer first(config, a), second(config, b);
        Context context;
        const Tensor squares = context.zeros(DType::f64, {1});
        gradient_squares(context, b, squares);
        first.update(context, 0, 0.01, 2.0 / gradient_norm(context, a)), second.update(context, 0, 0.01, 1.0, squares, 2.0);
        const auto weight = [](const ParameterStore& store) { return store.master(*store.find("norm")).as<float>()[3]; };
        CHECK(weight(a) == weight(b));
        b.gradient(b.records()[1], 1).as<float>()[14] = NAN;
        gradient_squares(context, b, squares);
        second.update(context, 1, 0.01, 1.0, squares, 2.0);
        CHECK(weight(a) == weight(b));
    }
    TEST_CASE("the gradient norm leaves frozen parameters out and shows what is not finite") {
        ParameterStore store;
        fill(store, 2);
        Context context;
        CHECK(gradient_norm(context, store) == doctest::Approx(2 * std::sqrt(130.0 * 128 + 30 + 7)));
        store.gradient(*store.find("fixed")).as<float>()[0] = NAN;
        CHECK(std::isfinite(gradient_norm(context, store)));
        store.gradient(store.records()[1], 1).as<float>()[14] = NAN;
        CHECK(!std::isfinite(gradient_norm(context, store)));
    }
}

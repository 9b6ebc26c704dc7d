// Whatever the layout of data, expert and tensor ranks: the same gradients of every parameter as one rank's, the same losses and the same routing.
#include "comm/mpi.hpp"
#include "model/layouts.hpp"
#include "optim/freezing.hpp"

#include <doctest/doctest.h>

#include <cmath>

using namespace flanmoe;
using namespace flanmoe::test;

namespace {

const LossCoefficients all_losses{0.02, 0.003, 0.0001};

// Widths that four tensor ranks can share; a vocabulary (61) that they share unevenly.
ModelConfig divisible(ModelConfig c) {
    c.heads = 4, c.kv_heads = 0;
    return c;
}

std::vector<Family> parallel_families() {
    std::vector<Family> all{{"T5 v1.1", divisible(small_t5(true))}, {"T5 v1.0", divisible(small_t5(false))}};
    for (const Family& family : families()) {
        all.push_back(family);
        all.back().config = divisible(family.config);
    }
    for (Family& family : all) family.config.attention_dropout = 0.2;
    Family decoder{"decoder-only with a shared expert", small_decoder()};
    decoder.config.heads = 8, decoder.config.kv_heads = 4;
    all.push_back(decoder);
    Family prefix{"prefix decoder", small_prefix_decoder()};
    prefix.config.heads = 8, prefix.config.kv_heads = 4, prefix.config.dropout_broadcast = true;
    all.push_back(prefix);
    return all;
}

StepBatch two_micro_batches(const ModelConfig& config) { return {family_batch(config, 8, 3), family_batch(config, 8, 4, 8)}; }

// Weights with decided routers, in double.
NamedValues weights_of(const ModelConfig& config, bool opinion = true) {
    Transformer model(config);
    model.parameters().allocate(DType::f64, false);
    randomise(model, 5);
    for (const Parameter& p : model.parameters().records())
        if (!opinion && p.kind == ParameterKind::router) std::fill_n(model.parameters().master(p).as<double>(), p.elements(), 0.0);
    return values_of(model.parameters(), false);
}

struct Reference {
    NamedValues weights, gradients;
    LossSums sums;
    double norm = 0;

    Reference(const ModelConfig& config, const StepBatch& batches, DType type, bool opinion = true, const std::vector<std::string>& freeze = {}) : weights(weights_of(config, opinion)) {
        Transformer model(config);
        freeze_parameters(model.parameters(), freeze);
        model.parameters().allocate(type, true);
        load_parts(model.parameters(), weights);
        Context context;
        sums = step_on(context, model, batches, all_losses);
        gradients = values_of(model.parameters(), true);
        norm = gradient_norm(context, model.parameters());
    }
};

void compare_sums(const LossSums& got, const LossSums& expected, double tolerance, Findings& findings) {
    const auto near = [&](double a, double b, const char* what) {
        if (!(std::abs(a - b) <= tolerance * std::max(1.0, std::abs(b)))) findings.add("{}: {} instead of {}", what, a, b);
    };
    near(got.output.nll, expected.output.nll, "loss");
    near(got.output.z, expected.output.z, "z");
    if (got.output.tokens != expected.output.tokens || got.output.correct != expected.output.correct) findings.add("tokens or correct predictions");
    for (size_t i = 0; i < expected.routing.size(); ++i) {
        for (size_t s = 0; s < expected.routing[i].statistics.size(); ++s) near(got.routing[i].statistics[s], expected.routing[i].statistics[s], "a routing statistic");
        if (got.routing[i].load != expected.routing[i].load || got.routing[i].demand != expected.routing[i].demand) findings.add("load or demand of layer {}", i);
    }
}

// Choices that an expert's capacity left out.
double dropped_choices(const LossSums& sums) {
    double dropped = 0;
    for (const auto& layer : sums.routing)
        for (size_t e = 0; e < layer.load.size(); ++e) dropped += layer.demand[e] - layer.load[e];
    return dropped;
}

// Runs the step on this rank of a layout and compares it with one rank's; returns the largest difference of a gradient.
double compare_rank(Communicator& world, const ModelConfig& config, const StepBatch& batches, const Reference& expected, const MeshShape& shape, DType type, double tolerance,
                    Findings& findings, Recompute recompute = Recompute::none, bool sequence_parallel = false, const std::vector<std::string>& freeze = {}) {
    const Mesh mesh(world, shape);
    Transformer model(config, mesh);
    freeze_parameters(model.parameters(), freeze);
    model.parameters().allocate(type, true);
    load_parts(model.parameters(), expected.weights);
    Context context;
    const LossSums sums = step_on(context, model, batches, all_losses, recompute, sequence_parallel);
    double worst = 0;
    compare_gradients(model.parameters(), expected.gradients, tolerance, findings, &worst);
    compare_sums(sums, expected.sums, tolerance, findings);
    const double norm = gradient_norm(context, model.parameters());
    if (!(std::abs(norm - expected.norm) <= tolerance * expected.norm)) findings.add("gradient norm {} instead of {}", norm, expected.norm);
    return worst;
}

// The same on all ranks, as threads.
void check_layout(const ModelConfig& config, const StepBatch& batches, const Reference& expected, const MeshShape& shape, DType type, double tolerance, double& worst,
                  Recompute recompute = Recompute::none, bool sequence_parallel = false, const std::vector<std::string>& freeze = {}) {
    Findings findings;
    run_ranks(shape.ranks(), [&](Communicator& world) {
        const double own = compare_rank(world, config, batches, expected, shape, type, tolerance, findings, recompute, sequence_parallel, freeze);
        if (world.rank() == 0) worst = std::max(worst, own);
    });
    CHECK(findings.text() == "");
}

}  // namespace

TEST_SUITE("model/parallel") {
    TEST_CASE("in double, on every layout: gradients of every parameter, losses, routing, gradient norm") {
        double worst = 0;
        int dropping = 0;
        for (const Family& family : parallel_families()) {
            CAPTURE(family.name);
            const StepBatch batches = two_micro_batches(family.config);
            const Reference expected(family.config, batches, DType::f64);
            dropping += dropped_choices(expected.sums) > 0;
            for (const MeshShape& shape : family.config.experts ? all_layouts() : dense_layouts()) {
                CAPTURE(shape.text());
                check_layout(family.config, batches, expected, shape, DType::f64, 1e-12, worst);
            }
        }
        CHECK(dropping >= 5);  // of the families whose experts have a capacity
        MESSAGE("families that drop choices: ", dropping);
        MESSAGE("largest difference of a gradient on rank 0, relative to its tensor's largest: ", worst);
    }

    TEST_CASE("in f32 on every layout") {
        double worst = 0;
        for (const Family& family : parallel_families()) {
            CAPTURE(family.name);
            const StepBatch batches = two_micro_batches(family.config);
            const Reference expected(family.config, batches, DType::f32);
            for (const MeshShape& shape : family.config.experts ? all_layouts() : dense_layouts()) {
                CAPTURE(shape.text());
                check_layout(family.config, batches, expected, shape, DType::f32, 1e-5, worst);
            }
        }
        MESSAGE("largest difference of a gradient on rank 0, relative to its tensor's largest: ", worst);
    }

    TEST_CASE("frozen parts: the gradients of the others, and the norm, without them") {
        double worst = 0;
        for (const std::vector<std::string>& freeze : {std::vector<std::string>{"non_moe"}, {"experts"}, {"gate", "attention"}}) {
            const ModelConfig config = divisible(routed_model("gshard"));
            const StepBatch batches = two_micro_batches(config);
            const Reference expected(config, batches, DType::f64, true, freeze);
            for (const MeshShape& shape : {MeshShape{2, 1, 1}, MeshShape{1, 2, 2}, MeshShape{2, 2, 1}, MeshShape{4, 1, 2}})
                check_layout(config, batches, expected, shape, DType::f64, 1e-12, worst, Recompute::none, false, freeze);
        }
    }

    TEST_CASE("experts that get nothing: routers without an opinion send all to the first ones") {
        double worst = 0;
        for (const char* name : {"switch", "gshard", "dropless"}) {
            CAPTURE(name);
            const ModelConfig config = divisible(routed_model(name));
            const StepBatch batches = two_micro_batches(config);
            const Reference expected(config, batches, DType::f64, false);
            for (const MeshShape& shape : {MeshShape{1, 4, 1}, MeshShape{1, 2, 2}, MeshShape{2, 4, 1}}) check_layout(config, batches, expected, shape, DType::f64, 1e-12, worst);
        }
    }

    TEST_CASE("tokens divided among tensor ranks between sub-layers, also unevenly and computed again") {
        double worst = 0;
        std::vector<Family> all = parallel_families();
        all.push_back({"gated shared expert", divisible(routed_model("gshard"))});
        all.back().config.shared_d_ff = 12, all.back().config.shared_gate = true;
        for (const Family& family : all) {
            CAPTURE(family.name);
            const StepBatch even = two_micro_batches(family.config), uneven = {family_batch(family.config, 2, 3), family_batch(family.config, 2, 4, 2)};
            for (const StepBatch* batches : {&even, &uneven}) {
                const Reference expected(family.config, *batches, DType::f64);
                for (const MeshShape& shape : {MeshShape{1, 1, 2}, MeshShape{1, 1, 4}, MeshShape{2, 1, 4}, MeshShape{1, 2, 2}}) {
                    if (shape.expert > 1 && family.config.experts == 0) continue;
                    CAPTURE(shape.text());
                    for (const Recompute recompute : {Recompute::none, Recompute::cheap, Recompute::full})
                        check_layout(family.config, *batches, expected, shape, DType::f64, 1e-12, worst, recompute, true);
                }
            }
        }
    }

    TEST_CASE("activations that are computed again: the same on shared models") {
        double worst = 0;
        for (const char* name : {"gshard", "expert_choice"}) {
            const ModelConfig config = divisible(routed_model(name));
            const StepBatch batches = two_micro_batches(config);
            const Reference expected(config, batches, DType::f64);
            for (const Recompute recompute : {Recompute::cheap, Recompute::full})
                for (const MeshShape& shape : {MeshShape{1, 2, 2}, MeshShape{2, 2, 1}}) check_layout(config, batches, expected, shape, DType::f64, 1e-12, worst, recompute);
        }
        ModelConfig dropless = small_decoder();
        dropless.heads = 8, dropless.kv_heads = 4;
        const StepBatch batches = two_micro_batches(dropless);
        const Reference expected(dropless, batches, DType::f64);
        for (const Recompute recompute : {Recompute::cheap, Recompute::full}) check_layout(dropless, batches, expected, {1, 2, 2}, DType::f64, 1e-12, worst, recompute);
    }

    TEST_CASE("initial weights are the same bits on every layout") {
        const ModelConfig config = divisible(routed_model("st_moe", true));
        Transformer alone(config);
        alone.parameters().allocate(DType::f32, false);
        alone.parameters().initialise(11);
        const NamedValues expected = values_of(alone.parameters(), false);
        for (const MeshShape& shape : all_layouts()) {
            Findings findings;
            run_ranks(shape.ranks(), [&](Communicator& world) {
                const Mesh mesh(world, shape);
                Transformer model(config, mesh);
                model.parameters().allocate(DType::f32, false);
                model.parameters().initialise(11);
                for (const Parameter& p : model.parameters().records())
                    for (int64_t e = 0; e < p.part_tensors(); ++e)
                        for_part(p, [&](int64_t i, int64_t j) {
                            if (static_cast<double>(model.parameters().master(p, e).as<float>()[i]) != expected.at(p.part_name(e))[static_cast<size_t>(j)]) findings.add("{}", p.part_name(e));
                        });
            });
            CHECK(findings.text() == "");
        }
    }

    TEST_CASE("what does not divide is refused in one sentence") {
        const auto refused = [](const ModelConfig& config, const MeshShape& shape) {
            try {
                check_division(config, shape);
            } catch (const Error& e) {
                CHECK(e.code == Exit::usage);
                return std::string(e.what());
            }
            return std::string();
        };
        CHECK(refused(small_switch(6), {1, 4, 1}) == "6 experts do not divide over parallel.expert = 4 ranks; choose 4 or 8 experts, or another number of ranks");
        CHECK(refused(small_switch(2), {1, 4, 1}) == "2 experts do not divide over parallel.expert = 4 ranks; choose 4 experts, or another number of ranks");
        CHECK(refused(small_t5(), {1, 2, 1}).find("has none") != std::string::npos);
        CHECK(refused(small_t5(), {1, 1, 2}) == "3 heads (model.heads) do not divide over parallel.tensor = 2 ranks; choose a divisor of 3");
        CHECK(refused(small_decoder(), {1, 1, 4}).find("model.kv_heads") != std::string::npos);
        CHECK(refused(divisible(small_t5()), {1, 1, 4}).empty());
        ModelConfig odd = divisible(small_t5());
        odd.d_ff = 37;
        CHECK(refused(odd, {1, 1, 2}).find("model.d_ff") != std::string::npos);
    }
}

// test/e2e/ranks_layouts_test.sh starts it with mpirun on 1, 2, 4 and 8 ranks.
TEST_SUITE("model/parallel_mpi") {
    TEST_CASE("ranks as processes, on every layout of as many as were started: gradients, losses, routing, gradient norm" * doctest::skip(!launch())) {
        Mpi mpi;
        int layouts = 0, dropping = 0;
        for (const Family& family : parallel_families()) {
            const ModelConfig& config = family.config;
            if (std::string_view(family.name) != "T5 v1.1" && std::string_view(family.name) != "ST-MoE with its dense layers and biases" && std::string_view(family.name) != "GLaM") continue;
            CAPTURE(family.name);
            const StepBatch batches = two_micro_batches(config);
            for (const DType type : {DType::f64, DType::f32}) {
                const Reference expected(config, batches, type);
                dropping += dropped_choices(expected.sums) > 0;
                for (const MeshShape& shape : config.experts ? all_layouts() : dense_layouts()) {
                    if (shape.ranks() != mpi.world().size()) continue;
                    CAPTURE(shape.text());
                    Findings findings;
                    compare_rank(mpi.world(), config, batches, expected, shape, type, type == DType::f64 ? 1e-12 : 1e-5, findings);
                    CHECK(findings.text() == "");
                    ++layouts;
                }
            }
        }
        mpi.finish();
        CHECK(layouts > 0);
        CHECK(dropping > 0);
    }
}

// Optimizer steps on layouts of several ranks: parameters and state as on one rank, whatever tensors are shared, parts are frozen, gradients clipped.
#include "model/layouts.hpp"
#include "optim/freezing.hpp"

#include <doctest/doctest.h>

using namespace flanmoe;
using namespace flanmoe::test;

namespace {

struct Case {
    const char* name;
    OptimizerConfig optimizer;
    double clip;
    std::vector<std::string> frozen;
};

std::vector<Case> cases() {
    OptimizerConfig factored;
    factored.min_factored = 8;  // most matrices of a small model; the rest is unfactored
    OptimizerConfig adamw;
    adamw.kind = OptimizerKind::adamw, adamw.weight_decay = 0.1;
    OptimizerConfig whole = factored;
    whole.factored = false;
    return {{"Adafactor, factored", factored, 0, {}}, {"Adafactor, clipped, experts frozen", factored, 0.01, {"experts"}}, {"Adafactor, unfactored", whole, 0, {}},
            {"AdamW, gates frozen", adamw, 0.01, {"gate"}}};
}

ModelConfig sparse_model() {
    ModelConfig c = routed_model("st_moe", true);
    c.heads = 4, c.multiplicative_bias = true;
    return c;
}

NamedValues state_of(const Optimizer& optimizer) {
    NamedValues values;
    for (const NamedTensor& t : optimizer.state()) values[t.name] = values_of(t.tensor);
    return values;
}

// Three steps; the second one's gradient norm is in `norm`.
void train(Context& context, Transformer& model, Optimizer& optimizer, double clip, double& norm) {
    for (int64_t t = 0; t < 3; ++t) {
        step_on(context, model, {family_batch(model.config(), 4, static_cast<uint64_t>(3 + t)), family_batch(model.config(), 4, static_cast<uint64_t>(13 + t), 4)}, {0.02, 0.003, 0.0001});
        Arena::Scope scope(context.arena);
        const Tensor squares = context.zeros(DType::f64, {1});
        gradient_squares(context, model.parameters(), squares);
        if (t == 1) norm = std::sqrt(context.download<double>(squares)[0]);
        optimizer.update(context, t, 1e-2, 1, squares, clip);
        model.parameters().update_compute();
    }
}

void compare_part(const std::vector<double>& whole, const NamedTensor& t, const std::string& name, double tolerance, Findings& findings) {
    HostTensor all(DType::f64, t.shape());
    std::copy(whole.begin(), whole.end(), all.as<double>());
    const HostTensor part = t.slice.split == Split::none ? std::move(all) : cut_part(all, t.slice, t.tensor.shape);
    double largest = 0, difference = 0;
    for (const double w : whole) largest = std::max(largest, std::abs(w));
    for (int64_t i = 0; i < t.tensor.elements(); ++i) difference = std::max(difference, std::abs(part.as<double>()[i] - t.tensor.as<double>()[i]));
    if (!(difference <= tolerance * largest)) findings.add("{}: differs by {:.2e} of {:.2e}", name, difference, largest);
}

}  // namespace

TEST_SUITE("optim/layouts") {
    TEST_CASE("three steps on every layout: parameters and state are one rank's") {
        const ModelConfig config = sparse_model();
        for (const Case& c : cases()) {
            CAPTURE(c.name);
            const auto prepared = [&](Transformer& model) {
                freeze_parameters(model.parameters(), c.frozen);
                model.parameters().allocate(DType::f64, true);
                model.parameters().initialise(5);
            };
            Transformer alone(config);
            prepared(alone);
            Optimizer optimizer(c.optimizer, alone.parameters());
            Context context;
            double norm = 0;
            train(context, alone, optimizer, c.clip, norm);
            const NamedValues weights = values_of(alone.parameters(), false), state = state_of(optimizer);
            for (const MeshShape& shape : {MeshShape{2, 1, 1}, MeshShape{1, 2, 1}, MeshShape{1, 1, 2}, MeshShape{1, 1, 4}, MeshShape{1, 2, 2}, MeshShape{2, 2, 1}}) {
                CAPTURE(shape.text());
                Findings findings;
                run_ranks(shape.ranks(), [&](Communicator& world) {
                    const Mesh mesh(world, shape);
                    Transformer model(config, mesh);
                    prepared(model);
                    Optimizer own(c.optimizer, model.parameters());
                    Context place;
                    double own_norm = 0;
                    train(place, model, own, c.clip, own_norm);
                    if (std::abs(own_norm - norm) > 1e-12 * norm) findings.add("gradient norm {} instead of {}", own_norm, norm);
                    for (const NamedTensor& t : own.state())
                        if (t.tensor) compare_part(state.at(t.name), t, t.name, 1e-10, findings);
                    for (const Parameter& p : model.parameters().records())
                        for (int64_t e = 0; e < p.part_tensors(); ++e)
                            compare_part(weights.at(p.part_name(e)), named_master(model.parameters(), p, p.first_expert + e), p.part_name(e), 1e-11, findings);
                });
                CHECK(findings.text() == "");
            }
        }
    }
}

// What must hold of a whole model with any router: right gradients; the same numbers however the batch is cut or padded and in whatever order the experts
// stand; one expert is the dense model.
#include "ops/check.hpp"
#include "model/families.hpp"
#include "train/step.hpp"

#include <doctest/doctest.h>

#include <cmath>

using namespace flanmoe;
using namespace flanmoe::test;

namespace {

const LossCoefficients all_losses{0.02, 0.003, 0.0001};

struct Run {
    Transformer model;
    Context context;
    StepGradients step;
    explicit Run(const ModelConfig& config, bool initialise = true) : model(config) {
        model.parameters().allocate(DType::f64, true);
        if (initialise) randomise(model, 5);
    }
    double loss(const StepBatch& batches, bool training = true) {
        step = compute_gradients(context, model, batches, all_losses, 3, 7, training);
        return step.loss;
    }
    std::vector<double> gradient() const {
        const Tensor flat = model.parameters().flat_gradient();
        return {flat.as<double>(), flat.as<double>() + flat.elements()};
    }
};

double relative_difference(const std::vector<double>& a, const std::vector<double>& b) {
    double difference = 0, norm = 0;
    for (size_t i = 0; i < a.size(); ++i) difference += (a[i] - b[i]) * (a[i] - b[i]), norm += a[i] * a[i];
    return std::sqrt(difference / norm);
}

ModelConfig without_noise(ModelConfig c) {
    c.dropout = c.expert_dropout = 0;
    for (RoutingConfig* r : {&c.encoder_routing, &c.decoder_routing}) r->jitter = r->input_dropout = r->sample_temperature = 0;
    return c;
}

/// The batch with more padding at the end of every row.
Batch padded(const Batch& b, int64_t source, int64_t target) {
    Batch wide = b;
    const auto widen = [&](std::vector<int32_t>& values, int64_t length, int64_t more, int32_t filler) {
        std::vector<int32_t> out;
        for (int64_t r = 0; r < b.rows && length > 0; ++r) {
            out.insert(out.end(), values.begin() + r * length, values.begin() + (r + 1) * length);
            out.insert(out.end(), static_cast<size_t>(more), filler);
        }
        values = out;
    };
    widen(wide.encoder_ids, b.encoder_length, source, 0), widen(wide.encoder_segments, b.encoder_length, source, 0);
    widen(wide.decoder_ids, b.decoder_length, target, 0), widen(wide.decoder_segments, b.decoder_length, target, 0), widen(wide.decoder_targets, b.decoder_length, target, ignored);
    if (b.encoder_length) wide.encoder_length += source;
    wide.decoder_length += target;
    return wide;
}

}  // namespace

TEST_SUITE("model/routers") {
    TEST_CASE("gradients of every parameter of every family, all losses and noise on") {
        for (const Family& family : families()) {
            CAPTURE(family.name);
            Run run(family.config);
            const StepBatch batches{family_batch(family.config, 2, 3), family_batch(family.config, 1, 4, 2)};
            run.loss(batches);
            REQUIRE(run.step.finite());
            const std::vector<double> gradient = run.gradient();
            for (const Parameter& p : run.model.parameters().records()) {
                for (int64_t e = 0; e < p.tensors(); ++e) {
                    CAPTURE(p.tensor_name(e));
                    const Tensor analytic(const_cast<double*>(gradient.data()) + p.tensor_offset(e), DType::f64, p.shape);
                    const double norm = dot(analytic, analytic);
                    if (p.frozen) CHECK(norm == 0);  // the bias of loss-free balancing
                    if (norm == 0) continue;         // or an expert without tokens
                    // A step at which neither the loss's rounding, which grows as it shrinks, nor a changed decision of a router shows.
                    gradient_check("family of routers", [&] { return run.loss(batches); }, {{run.model.parameters().master(p, e), analytic}}, 11, 4e-5);
                }
            }
        }
    }

    TEST_CASE("micro-batches change nothing but rounding, also where a group is two rows") {
        for (const Family& family : families()) {
            for (const int64_t rows : {1, 2}) {
                CAPTURE(family.name);
                ModelConfig config = family.config;
                config.encoder_routing.group_rows = config.decoder_routing.group_rows = rows;
                Run run(config);
                const Batch whole = family_batch(config, 6, 9);
                const double once = run.loss({whole});
                const std::vector<double> expected = run.gradient();
                const StepGradients together = run.step;
                const double cut_up = run.loss({cut(whole, 0, rows), cut(whole, rows, 4 - rows), cut(whole, 4, 2)});
                CHECK(cut_up == doctest::Approx(once).epsilon(1e-13));
                CHECK(relative_difference(expected, run.gradient()) < 1e-12);
                for (size_t i = 0; i < together.sums.routing.size(); ++i) CHECK(run.step.sums.routing[i].demand == together.sums.routing[i].demand);
            }
        }
    }

    TEST_CASE("padding changes neither loss nor gradients") {
        for (const Family& family : families()) {
            if (!family.by_scores) continue;  // its turns count padding, too
            CAPTURE(family.name);
            Run run(without_noise(family.config));
            const Batch batch = family_batch(family.config, 3, 12);
            const double narrow = run.loss({batch}, false);
            const std::vector<double> expected = run.gradient();
            CHECK(run.loss({padded(batch, 5, 3)}, false) == doctest::Approx(narrow).epsilon(1e-13));
            CHECK(relative_difference(expected, run.gradient()) < 1e-12);
        }
    }

    TEST_CASE("the order of experts changes nothing: gradients are permuted with them") {
        const int64_t order[] = {2, 0, 3, 1};
        for (const Family& family : families()) {
            if (!family.by_scores) continue;
            CAPTURE(family.name);
            const ModelConfig config = without_noise(family.config);
            Run a(config), b(config);
            // Expert e of b is expert order[e] of a.
            const auto permuted = [&](const Parameter& p, const double* from, double* to) {
                for (int64_t e = 0; p.experts && e < p.experts; ++e) std::copy_n(from + order[e] * p.expert_stride, p.shape.elements(), to + e * p.expert_stride);
                const int64_t width = p.elements() / config.experts;
                for (int64_t e = 0; p.kind == ParameterKind::router && e < config.experts; ++e) std::copy_n(from + order[e] * width, width, to + e * width);
            };
            for (const Parameter& p : a.model.parameters().records()) permuted(p, a.model.parameters().master(p).as<double>(), b.model.parameters().master(p).as<double>());
            const Batch batch = family_batch(config, 3, 15);
            const double loss = a.loss({batch});
            std::vector<double> gradient = a.gradient();
            for (const Parameter& p : a.model.parameters().records()) {
                const std::vector<double> before = a.gradient();
                permuted(p, before.data() + p.offset, gradient.data() + p.offset);
            }
            CHECK(b.loss({batch}) == doctest::Approx(loss).epsilon(1e-13));
            CHECK(relative_difference(gradient, b.gradient()) < 1e-12);
            CHECK(relative_difference(a.gradient(), b.gradient()) > 1e-3);  // or nothing was permuted
        }
    }

    TEST_CASE("one expert equals the dense model, whatever the router") {
        for (const NamedRouter& named : named_routers()) {
            CAPTURE(named.name);
            ModelConfig sparse = without_noise(routed_model(named.name, true));
            sparse.experts = 1, sparse.multiplicative_bias = true;
            for (RoutingConfig* r : {&sparse.encoder_routing, &sparse.decoder_routing}) r->k = 1, r->dropless = r->kind != RouterKind::expert_choice;
            sparse.gated = true, sparse.d_ff = sparse.expert_d_ff, sparse.flanmoe_layout = true;
            ModelConfig dense = sparse;
            dense.experts = 0, dense.encoder_sparse = dense.decoder_sparse = {};
            Run a(sparse), b(dense, false);
            for (const Parameter& p : a.model.parameters().records())
                if (p.init == Init::ones) std::fill_n(a.model.parameters().master(p).as<double>(), p.elements(), 1.0);
            for (const Parameter& p : b.model.parameters().records()) {
                std::string name = p.name;
                const Parameter* from = a.model.parameters().find(name);
                if (!from) from = a.model.parameters().find(name.replace(name.find("mlp."), 4, "mlp.experts.expert_{e}."));
                REQUIRE(from);
                std::copy_n(a.model.parameters().master(*from).as<double>(), p.elements(), b.model.parameters().master(p).as<double>());
            }
            const Batch batch = random_batch(3, 11, 7, 61, 12);
            a.loss({batch}), b.loss({batch});
            CHECK(a.step.sums.cross_entropy() == doctest::Approx(b.step.sums.cross_entropy()).epsilon(1e-13));
        }
    }

    TEST_CASE("a router without an opinion: ties go to the first experts, the rest get nothing, and the step is finite") {
        for (const Family& family : families()) {
            if (!family.by_scores) continue;
            CAPTURE(family.name);
            Run run(family.config);
            for (const Parameter& p : run.model.parameters().records())
                if (p.kind == ParameterKind::router) std::fill_n(run.model.parameters().master(p).as<double>(), p.elements(), 0.0);
            run.loss({family_batch(family.config, 4, 3)});
            CHECK(run.step.finite());
            for (const RoutingReport& r : run.step.sums.routing) {
                const RoutingConfig& routing = r.decoder ? family.config.decoder_routing : family.config.encoder_routing;
                if (routing.kind == RouterKind::expert_choice) CHECK(r[ops::RouteStatistic::rows] > 0);
                else for (size_t e = static_cast<size_t>(routing.k); e < r.load.size(); ++e) CHECK((r.load[e] == 0) == (routing.sample_temperature == 0));  // or chance decides
            }
        }
    }

    TEST_CASE("second choices: one policy in training, another in evaluation; no drop likewise") {
        ModelConfig config = without_noise(routed_model("gshard"));
        config.encoder_routing.second_train = SecondPolicy::none, config.encoder_routing.second_eval = SecondPolicy::all;
        config.encoder_routing.capacity_factor = config.encoder_routing.eval_capacity_factor = 0.5;
        const auto report = [&](bool training) {
            Run run(config);
            run.loss({family_batch(config, 4, 3)}, training);
            return run.step.sums.routing.front();
        };
        using S = ops::RouteStatistic;
        CHECK(report(true)[S::later_wanted] == 0);
        CHECK(report(false)[S::later_wanted] == report(false)[S::tokens]);
        CHECK(report(false)[S::rows] < 2 * report(false)[S::tokens]);
        config.encoder_routing.eval_dropless = true;
        CHECK(report(false)[S::rows] == 2 * report(false)[S::tokens]);
        CHECK(report(true)[S::rows] < report(true)[S::tokens]);
        config.encoder_routing.dropless = true;
        CHECK(report(true)[S::rows] == report(true)[S::tokens]);
    }

    TEST_CASE("loss-free balancing: after a step every bias moves by the rate towards the mean load, alike for any micro-batches") {
        ModelConfig config = without_noise(routed_model("loss_free"));
        config.encoder_routing.balance_bias_rate = config.decoder_routing.balance_bias_rate = 0.125;
        const Batch whole = family_batch(config, 6, 9);
        std::vector<std::vector<double>> biases;
        for (const StepBatch& batches : {StepBatch{whole}, StepBatch{cut(whole, 0, 2), cut(whole, 2, 4)}}) {
            Run run(config);
            Optimizer optimizer({}, run.model.parameters());
            const Parameter* record = run.model.parameters().find("encoder.block.1.layer.1.mlp.router.e_score_correction_bias");
            REQUIRE(record);
            for (const auto& [name, tensor, slice] : optimizer.state()) CHECK(name.find("e_score_correction_bias") == std::string::npos);
            const double* bias = run.model.parameters().master(*record).as<double>();
            const std::vector<double> before(bias, bias + 4);
            run.loss(batches);
            const std::vector<double> demand = run.step.sums.routing.front().demand;
            const double mean = (demand[0] + demand[1] + demand[2] + demand[3]) / 4;
            apply_gradients(run.context, run.model, optimizer, run.step, 0, 7, 1e-3);
            for (size_t e = 0; e < 4; ++e) CHECK(bias[e] == doctest::Approx(before[e] + (demand[e] < mean ? 0.125 : demand[e] > mean ? -0.125 : 0)).epsilon(1e-15));
            biases.emplace_back(bias, bias + 4);
            CHECK(biases.back() != before);

            for (Parameter& p : run.model.parameters().records()) p.frozen |= p.kind == ParameterKind::router;  // a frozen router keeps its bias
            run.loss(batches);
            apply_gradients(run.context, run.model, optimizer, run.step, 0, 8, 1e-3);
            CHECK(std::vector<double>(bias, bias + 4) == biases.back());
        }
        CHECK(biases[0] == biases[1]);
    }

    TEST_CASE("loss-free balancing evens the load out") {
        ModelConfig config = without_noise(routed_model("loss_free"));
        config.encoder_routing.balance_bias_rate = config.decoder_routing.balance_bias_rate = 0.02;
        Run run(config);
        const auto spread = [&] {
            run.loss({family_batch(config, 16, 9)});
            const std::vector<double>& demand = run.step.sums.routing.front().demand;
            return *std::max_element(demand.begin(), demand.end()) - *std::min_element(demand.begin(), demand.end());
        };
        const double before = spread();
        for (int t = 0; t < 60; ++t) {
            spread();
            run.model.update_balance_biases(run.context, run.step.report.sums, run.step.report.accepted);
        }
        CHECK(spread() < 0.5 * before);  // equal steps overshoot, so it ends in a small swing
    }
}

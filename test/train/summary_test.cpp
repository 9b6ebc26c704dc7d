// Figures of a step from sums that are made up here.
#include "train/summary.hpp"

#include <doctest/doctest.h>

#include <cmath>

using namespace flanmoe;
using doctest::Approx;

namespace {

RoutingReport report(double tokens, double reached, double rows, double slots, double gate, double entropy, std::vector<double> load) {
    using S = ops::RouteStatistic;
    RoutingReport r;
    r.statistics.assign(static_cast<size_t>(S::count), 0.0);
    const auto set = [&](S s, double value) { r.statistics[static_cast<size_t>(s)] = value; };
    set(S::groups, 1), set(S::balance, 1.5), set(S::z, 4), set(S::tokens, tokens), set(S::reached, reached);
    set(S::rows, rows), set(S::slots, slots), set(S::gate, gate), set(S::entropy, entropy);
    r.load = std::move(load);
    return r;
}

double value(const Metrics& metrics, const char* name) { return metric(metrics, name, std::nan("")); }

}  // namespace

TEST_SUITE("train/summary") {
    TEST_CASE("routing figures are means over sparse layers") {
        const Metrics m = summarise_routing({report(10, 8, 8, 10, 4, 5, {6, 2}), report(8, 6, 6, 12, 6, 0, {3, 3})});
        CHECK(value(m, metric_name::expert_load) == Approx((6.0 / 4 + 3.0 / 3) / 2));
        CHECK(value(m, metric_name::utilization) == Approx((0.8 + 0.5) / 2));
        CHECK(value(m, metric_name::dropped) == Approx((0.2 + 0.25) / 2));
        CHECK(value(m, metric_name::confidence) == Approx((0.5 + 1.0) / 2));
        CHECK(value(m, metric_name::entropy) == Approx((0.5 + 0.0) / 2));
    }

    TEST_CASE("every layer has its own figures too: dead experts and second choices dropped among them") {
        using S = ops::RouteStatistic;
        RoutingReport one = report(10, 8, 8, 10, 4, 5, {6, 0, 2, 0}), two = report(8, 6, 6, 12, 6, 0, {3, 3, 1, 1});
        one.block = 1, two.block = 3, two.decoder = true;
        two.statistics[static_cast<size_t>(S::later_wanted)] = 8, two.statistics[static_cast<size_t>(S::later_dropped)] = 2;
        const Metrics m = summarise_routing({one, two});
        CHECK(value(m, "encoder.1/utilization") == Approx(0.8));
        CHECK(value(m, "decoder.3/utilization") == Approx(0.5));
        CHECK(value(m, "decoder.3/dropped") == Approx(0.25));
        CHECK(value(m, "encoder.1/dead_experts") == 2);
        CHECK(value(m, metric_name::dead_experts) == 1);
        CHECK(value(m, "decoder.3/second_dropped") == Approx(0.25));
        CHECK(value(m, "encoder.1/second_dropped") == 0);
        CHECK(value(m, metric_name::second_dropped) == Approx(0.125));
        CHECK(m.size() == 3 * 7);
    }

    TEST_CASE("a dense model has no routing figures, a layer without tokens has zeros") {
        CHECK(summarise_routing({}).empty());
        for (const auto& [name, x] : summarise_routing({report(0, 0, 0, 0, 0, 0, {0, 0})})) {
            INFO(name);
            CHECK(x == 0);
        }
    }

    TEST_CASE("the training record") {
        StepGradients step;
        step.loss = 2.75, step.gradient_norm = 0.5;
        step.sums.output = {.nll = 50, .z = 80, .tokens = 20, .correct = 5};
        StepFigures figures;
        figures.seconds = 2, figures.waited = 0.25, figures.rate = 1e-3, figures.tokens = 3000, figures.tokens_seen = 9000, figures.flops = 6e9, figures.matmul_rate = 12e9;
        Watch watch;
        watch.skipped = 4;

        Metrics m = summarise(step, figures, watch);
        CHECK(value(m, metric_name::loss) == 2.75);
        CHECK(value(m, metric_name::cross_entropy) == 2.5);
        CHECK(value(m, metric_name::output_z) == 4);
        CHECK(value(m, "token_accuracy") == 0.25);
        CHECK(value(m, metric_name::learning_rate) == 1e-3);
        CHECK(value(m, metric_name::gradient_norm) == 0.5);
        CHECK(value(m, metric_name::tokens) == 9000);
        CHECK(value(m, metric_name::tokens_per_second) == 1500);
        CHECK(value(m, metric_name::flops_per_second) == 3e9);
        CHECK(value(m, metric_name::peak_share) == 0.25);
        CHECK(value(m, metric_name::seconds_per_step) == 2);
        CHECK(value(m, "data_wait_seconds") == 0.25);
        CHECK(value(m, metric_name::skipped) == 4);
        CHECK(std::isnan(value(m, metric_name::balance)));  // dense
        CHECK(std::isnan(value(m, metric_name::expert_load)));

        step.sums.routing = {report(10, 10, 10, 10, 5, 5, {5, 5})};
        figures.matmul_rate = 0;  // not measured
        m = summarise(step, figures, watch);
        CHECK(value(m, metric_name::balance) == 1.5);
        CHECK(value(m, metric_name::router_z) == 4);
        CHECK(value(m, metric_name::expert_load) == 1);
        CHECK(value(m, metric_name::peak_share) == 0);
    }

    TEST_CASE("the validation record: the loss is the cross-entropy; no target, no figure that is not a number") {
        LossSums sums;
        for (const auto& [name, x] : summarise_validation(sums)) {
            INFO(name);
            CHECK(x == 0);
        }
        sums.output = {.nll = 30, .z = 0, .tokens = 10, .correct = 4};
        const Metrics m = summarise_validation(sums);
        CHECK(value(m, "loss") == 3);
        CHECK(value(m, "token_accuracy") == 0.4);
    }
}

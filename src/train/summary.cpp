#include "train/summary.hpp"

#include <algorithm>
#include <numeric>

namespace flanmoe {

Metrics summarise_routing(const std::vector<RoutingReport>& reports) {
    if (reports.empty()) return {};
    using S = ops::RouteStatistic;
    const auto share = [](double part, double whole) { return whole > 0 ? part / whole : 0.0; };
    double load = 0, utilization = 0, dropped = 0, confidence = 0, entropy = 0;
    for (const RoutingReport& r : reports) {
        const double mean = std::accumulate(r.load.begin(), r.load.end(), 0.0) / static_cast<double>(r.load.size());
        load += share(*std::max_element(r.load.begin(), r.load.end()), mean);
        utilization += share(r[S::rows], r[S::slots]);
        dropped += share(r[S::tokens] - r[S::reached], r[S::tokens]);
        confidence += share(r[S::gate], r[S::rows]);
        entropy += share(r[S::entropy], r[S::tokens]);
    }
    const double n = static_cast<double>(reports.size());
    namespace name = metric_name;
    return {{name::expert_load, load / n}, {name::utilization, utilization / n}, {name::dropped, dropped / n}, {name::confidence, confidence / n}, {"router_entropy", entropy / n}};
}

Metrics summarise(const StepGradients& step, const StepFigures& figures, const Watch& watch) {
    namespace name = metric_name;
    Metrics m = {{name::loss, step.loss}, {name::cross_entropy, step.sums.cross_entropy()}};
    if (!step.sums.routing.empty()) {
        m.emplace_back(name::balance, step.sums.balance());
        m.emplace_back(name::router_z, step.sums.router_z());
    }
    const double flops_per_second = figures.flops / figures.seconds;
    m.insert(m.end(), {{name::output_z, step.sums.output_z()},
                       {"accuracy", step.sums.output.tokens ? static_cast<double>(step.sums.output.correct) / static_cast<double>(step.sums.output.tokens) : 0},
                       {name::learning_rate, figures.rate},
                       {name::gradient_norm, step.gradient_norm},
                       {name::tokens, static_cast<double>(figures.tokens_seen)},
                       {name::tokens_per_second, static_cast<double>(figures.tokens) / figures.seconds},
                       {name::flops_per_second, flops_per_second},
                       {name::peak_share, figures.matmul_rate > 0 ? flops_per_second / figures.matmul_rate : 0},
                       {name::seconds_per_step, figures.seconds},
                       {"data_wait_seconds", figures.waited}});
    for (const auto& figure : summarise_routing(step.sums.routing)) m.push_back(figure);
    m.emplace_back(name::skipped, static_cast<double>(watch.skipped));
    return m;
}

Metrics summarise_validation(const LossSums& sums) {
    Metrics m = {{"loss", sums.cross_entropy()},
                 {"accuracy", sums.output.tokens ? static_cast<double>(sums.output.correct) / static_cast<double>(sums.output.tokens) : 0}};
    for (const auto& [name, value] : summarise_routing(sums.routing)) m.emplace_back(name, value);
    return m;
}

}  // namespace flanmoe

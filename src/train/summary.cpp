#include "train/summary.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

namespace flanmoe {

namespace {

// One sparse layer's figures.
Metrics figures_of(const RoutingReport& r) {
    using S = ops::RouteStatistic;
    const auto share = [](double part, double whole) { return whole > 0 ? part / whole : 0.0; };
    const double mean_load = std::accumulate(r.load.begin(), r.load.end(), 0.0) / static_cast<double>(r.load.size());
    const double dead = mean_load > 0 ? static_cast<double>(std::count(r.load.begin(), r.load.end(), 0.0)) : 0;  // a layer without tokens shows nothing
    namespace name = metric_name;
    return {{name::expert_load, share(*std::max_element(r.load.begin(), r.load.end()), mean_load)},
            {name::utilization, share(r[S::rows], r[S::slots])},
            {name::dropped, share(r[S::tokens] - r[S::reached], r[S::tokens])},
            {name::confidence, share(r[S::gate], r[S::rows])},
            {name::entropy, share(r[S::entropy], r[S::tokens])},
            {name::dead_experts, dead},
            {name::second_dropped, share(r[S::later_dropped], r[S::later_wanted])}};
}

}  // namespace

Metrics summarise_routing(const std::vector<RoutingReport>& reports) {
    Metrics means, layers;
    for (const RoutingReport& r : reports) {
        const Metrics figures = figures_of(r);
        if (means.empty())
            for (const auto& figure : figures) means.emplace_back(figure.first, 0.0);
        for (size_t i = 0; i < figures.size(); ++i) {
            means[i].second += figures[i].second / static_cast<double>(reports.size());
            layers.emplace_back(fmt::format("{}.{}/{}", r.decoder ? "decoder" : "encoder", r.block, figures[i].first), figures[i].second);
        }
    }
    means.insert(means.end(), layers.begin(), layers.end());
    return means;
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
                       {"token_accuracy", step.sums.output.tokens ? static_cast<double>(step.sums.output.correct) / static_cast<double>(step.sums.output.tokens) : 0},
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
                 {"token_accuracy", sums.output.tokens ? static_cast<double>(sums.output.correct) / static_cast<double>(sums.output.tokens) : 0}};
    for (const auto& [name, value] : summarise_routing(sums.routing)) m.emplace_back(name, value);
    return m;
}

}  // namespace flanmoe

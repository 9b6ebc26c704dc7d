// Literal routing in double for the tests: loops where the definition has a loop, weights as a dense [N, E] table.
#pragma once

#include "ops/route.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

namespace flanmoe::test {

struct ReferenceRoute {
    std::vector<double> weight;  ///< [N, E]
    std::vector<uint8_t> kept;   ///< [N, E] 1 = sent (a gate may be 0)
    std::array<double, static_cast<size_t>(ops::RouteStatistic::count)> statistics{};
};

/// logits [N, E], mask [N] (empty = all), draws [N, k - 1].
inline ReferenceRoute reference_route(const std::vector<double>& logits, int64_t groups, int64_t experts, const ops::RouteRule& rule, const std::vector<int>& mask,
                                      const std::vector<double>& draws) {
    using S = ops::RouteStatistic;
    const int64_t tokens = static_cast<int64_t>(logits.size()) / experts, size = tokens / groups;
    ReferenceRoute out{std::vector<double>(logits.size(), 0.0), std::vector<uint8_t>(logits.size(), 0), {}};
    const auto stat = [&](S s) -> double& { return out.statistics[static_cast<size_t>(s)]; };
    std::vector<double> p(logits.size());
    const auto at = [&](int64_t n, int64_t e) { return static_cast<size_t>(n * experts + e); };
    for (int64_t g = 0; g < groups; ++g) {
        std::vector<int64_t> live;
        for (int64_t n = g * size; n < (g + 1) * size; ++n)
            if (mask.empty() || mask[static_cast<size_t>(n)]) live.push_back(n);
        if (live.empty()) continue;
        const double count = static_cast<double>(live.size());
        stat(S::groups) += 1, stat(S::tokens) += count;
        for (int64_t n : live) {
            double sum = 0;
            for (int64_t e = 0; e < experts; ++e) sum += std::exp(logits[at(n, e)]);
            for (int64_t e = 0; e < experts; ++e) {
                p[at(n, e)] = std::exp(logits[at(n, e)]) / sum;
                stat(S::entropy) -= p[at(n, e)] * std::log(p[at(n, e)]);
            }
            stat(S::z) += std::log(sum) * std::log(sum) / count;
        }
        const int64_t capacity = ops::capacity_of(rule, static_cast<int64_t>(live.size()), experts);
        std::vector<int64_t> used(static_cast<size_t>(experts), 0);
        if (rule.kind == RouterKind::expert_choice) {
            for (int64_t e = 0; e < experts; ++e) {
                std::vector<int64_t> order = live;
                std::stable_sort(order.begin(), order.end(), [&](int64_t x, int64_t y) { return p[at(x, e)] > p[at(y, e)]; });
                order.resize(static_cast<size_t>(std::min(capacity, static_cast<int64_t>(live.size()))));
                for (int64_t n : order) out.weight[at(n, e)] = p[at(n, e)], out.kept[at(n, e)] = 1;
            }
        } else {
            std::vector<std::vector<int64_t>> choices(static_cast<size_t>(tokens));
            std::vector<double> load(static_cast<size_t>(experts), 0.0);
            for (int64_t n : live) {
                std::vector<int64_t>& c = choices[static_cast<size_t>(n)];
                for (int64_t e = 0; e < experts; ++e) c.push_back(e);
                std::stable_sort(c.begin(), c.end(), [&](int64_t x, int64_t y) { return p[at(n, x)] > p[at(n, y)]; });
                c.resize(static_cast<size_t>(rule.k));
                for (int64_t r = 0; r < rule.k; ++r)
                    if (r == 0 || rule.density == Density::any) load[static_cast<size_t>(c[static_cast<size_t>(r)])] += 1 / count;
            }
            for (int64_t e = 0; e < experts; ++e) {
                double mean = 0;
                for (int64_t n : live) mean += p[at(n, e)] / count;
                stat(S::balance) += static_cast<double>(experts) * load[static_cast<size_t>(e)] * mean;
            }
            std::vector<int64_t> order = live;
            const auto first = [&](int64_t n) { return p[at(n, choices[static_cast<size_t>(n)][0])]; };
            if (rule.prioritized) std::stable_sort(order.begin(), order.end(), [&](int64_t x, int64_t y) { return first(x) > first(y); });
            for (int64_t r = 0; r < rule.k; ++r) {
                for (int64_t n : order) {
                    const int64_t e = choices[static_cast<size_t>(n)][static_cast<size_t>(r)];
                    double gate = p[at(n, e)], sum = 0;
                    for (int64_t c : choices[static_cast<size_t>(n)]) sum += p[at(n, c)];
                    if (rule.normalize) gate /= sum;
                    if (r > 0 && rule.second == SecondPolicy::none) continue;
                    if (r > 0 && rule.second == SecondPolicy::threshold && !(gate > rule.second_threshold)) continue;
                    if (r > 0 && rule.second == SecondPolicy::random && !(draws[static_cast<size_t>(n * (rule.k - 1) + r - 1)] < gate / rule.second_threshold)) continue;
                    if (r > 0) stat(S::later_wanted) += 1;
                    if (capacity < 0 || used[static_cast<size_t>(e)] < capacity) ++used[static_cast<size_t>(e)], out.weight[at(n, e)] = gate, out.kept[at(n, e)] = 1;
                    else if (r > 0) stat(S::later_dropped) += 1;
                }
            }
        }
        double rows = 0;
        for (int64_t n : live) {
            bool reached = false;
            for (int64_t e = 0; e < experts; ++e) {
                if (!out.kept[at(n, e)]) continue;
                reached = true, rows += 1, stat(S::gate) += out.weight[at(n, e)];
            }
            stat(S::reached) += reached;
        }
        stat(S::rows) += rows;
        stat(S::slots) += capacity < 0 ? rows : static_cast<double>(capacity * experts);
    }
    return out;
}

}  // namespace flanmoe::test

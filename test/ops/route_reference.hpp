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
    std::vector<double> demand;  ///< [E] choices that passed the policy
    std::array<double, static_cast<size_t>(ops::RouteStatistic::count)> statistics{};
};

/// The parts of a routing in the order in which they are computed, on dense tables.
struct LiteralRoute {
    using S = ops::RouteStatistic;
    const ops::RouteRule& rule;
    const std::vector<double>& draws;
    const std::vector<double>&bias, &scores;
    int64_t experts;
    ReferenceRoute out;
    std::vector<double> p;       // [N, E]
    std::vector<int64_t> turn;   // [N] balanced: number of the token's first choice

    size_t at(int64_t n, int64_t e) const { return static_cast<size_t>(n * experts + e); }
    double& stat(S s) { return out.statistics[static_cast<size_t>(s)]; }

    void softmax(const std::vector<double>& logits, const std::vector<int64_t>& live) {
        for (int64_t n : live) {
            double sum = 0;
            for (int64_t e = 0; e < experts; ++e) sum += std::exp(logits[at(n, e)]);
            for (int64_t e = 0; e < experts; ++e) {
                p[at(n, e)] = std::exp(logits[at(n, e)]) / sum;
                stat(S::entropy) -= p[at(n, e)] * std::log(p[at(n, e)]);
            }
            stat(S::z) += std::log(sum) * std::log(sum) / static_cast<double>(live.size());
        }
    }

    void expert_choice(const std::vector<int64_t>& live, int64_t capacity) {
        for (int64_t e = 0; e < experts; ++e) {
            std::vector<int64_t> order = live;
            std::stable_sort(order.begin(), order.end(), [&](int64_t x, int64_t y) { return p[at(x, e)] > p[at(y, e)]; });
            order.resize(static_cast<size_t>(std::min(capacity, static_cast<int64_t>(live.size()))));
            for (int64_t n : order) out.weight[at(n, e)] = p[at(n, e)], out.kept[at(n, e)] = 1, out.demand[static_cast<size_t>(e)] += 1;
        }
    }

    std::vector<int64_t> choices(int64_t n) const {
        std::vector<int64_t> c;
        if (rule.kind == RouterKind::balanced) {
            for (int64_t r = 0; r < rule.k; ++r) c.push_back((turn[static_cast<size_t>(n)] + r) % experts);
            return c;
        }
        for (int64_t e = 0; e < experts; ++e) c.push_back(e);
        const auto score = [&](int64_t e) { return !scores.empty() ? scores[at(n, e)] : p[at(n, e)] + (bias.empty() ? 0 : bias[static_cast<size_t>(e)]); };
        std::stable_sort(c.begin(), c.end(), [&](int64_t x, int64_t y) { return score(x) > score(y); });
        c.resize(static_cast<size_t>(rule.k));
        return c;
    }

    double balance(const std::vector<int64_t>& live) const {
        const double count = static_cast<double>(live.size());
        std::vector<double> load(static_cast<size_t>(experts), 0.0);
        for (int64_t n : live) {
            const std::vector<int64_t> c = choices(n);
            for (size_t r = 0; r < c.size(); ++r)
                if (r == 0 || rule.density == Density::any) load[static_cast<size_t>(c[r])] += 1 / count;
        }
        double sum = 0;
        for (int64_t e = 0; e < experts; ++e)
            for (int64_t n : live) sum += static_cast<double>(experts) * load[static_cast<size_t>(e)] * p[at(n, e)] / count;
        return sum;
    }

    bool wanted(int64_t n, int64_t rank, double gate) const {
        if (rank == 0 || rule.second == SecondPolicy::all) return true;
        if (rule.second == SecondPolicy::threshold) return gate > rule.second_threshold;
        return rule.second == SecondPolicy::random && draws[static_cast<size_t>(n * (rule.k - 1) + rank - 1)] < gate / rule.second_threshold;
    }

    void token_choice(const std::vector<int64_t>& live, int64_t capacity) {
        stat(S::balance) += balance(live);
        std::vector<int64_t> order = live, used(static_cast<size_t>(experts), 0);
        const auto first = [&](int64_t n) { return p[at(n, choices(n)[0])]; };
        if (rule.prioritized) std::stable_sort(order.begin(), order.end(), [&](int64_t x, int64_t y) { return first(x) > first(y); });
        for (int64_t rank = 0; rank < rule.k; ++rank) {
            for (int64_t n : order) {
                const std::vector<int64_t> c = choices(n);
                const int64_t e = c[static_cast<size_t>(rank)];
                double gate = p[at(n, e)], sum = 0;
                for (int64_t other : c) sum += p[at(n, other)];
                if (rule.normalize) gate /= sum;
                if (!wanted(n, rank, gate)) continue;
                if (rank > 0) stat(S::later_wanted) += 1;
                out.demand[static_cast<size_t>(e)] += 1;
                if (capacity < 0 || used[static_cast<size_t>(e)] < capacity) ++used[static_cast<size_t>(e)], out.weight[at(n, e)] = gate, out.kept[at(n, e)] = 1;
                else if (rank > 0) stat(S::later_dropped) += 1;
            }
        }
    }

    void count(const std::vector<int64_t>& live, int64_t capacity) {
        double rows = 0;
        for (int64_t n : live) {
            bool reached = false;
            for (int64_t e = 0; e < experts; ++e)
                if (out.kept[at(n, e)]) reached = true, rows += 1, stat(S::gate) += out.weight[at(n, e)];
            stat(S::reached) += reached;
        }
        stat(S::groups) += 1, stat(S::tokens) += static_cast<double>(live.size());
        stat(S::rows) += rows;
        stat(S::slots) += capacity < 0 ? rows : static_cast<double>(capacity * experts);
    }
};

/// logits [N, E], mask [N] (empty = all), draws [N, k - 1], bias [E] or scores [N, E] (empty = none).
inline ReferenceRoute reference_route(const std::vector<double>& logits, int64_t groups, int64_t experts, const ops::RouteRule& rule, const std::vector<int>& mask,
                                      const std::vector<double>& draws, const std::vector<double>& bias = {}, int64_t first_token = 0, const std::vector<double>& scores = {}) {
    const int64_t size = static_cast<int64_t>(logits.size()) / experts / groups;
    const size_t weights = logits.size(), tokens = weights / static_cast<size_t>(experts);
    LiteralRoute route{rule, draws, bias, scores, experts, {std::vector<double>(weights, 0.0), std::vector<uint8_t>(weights, 0), std::vector<double>(static_cast<size_t>(experts), 0.0), {}},
                       std::vector<double>(weights), std::vector<int64_t>(tokens)};
    for (int64_t g = 0; g < groups; ++g) {
        std::vector<int64_t> live;
        for (int64_t n = g * size; n < (g + 1) * size; ++n)
            if (mask.empty() || mask[static_cast<size_t>(n)]) live.push_back(n);
        if (live.empty()) continue;
        for (size_t i = 0; i < live.size(); ++i) route.turn[static_cast<size_t>(live[i])] = (first_token + g * size + static_cast<int64_t>(i)) * rule.k;
        const int64_t capacity = ops::capacity_of(rule, static_cast<int64_t>(live.size()), experts);
        route.softmax(logits, live);
        if (rule.kind == RouterKind::expert_choice) route.expert_choice(live, capacity);
        else route.token_choice(live, capacity);
        route.count(live, capacity);
    }
    return route.out;
}

}  // namespace flanmoe::test

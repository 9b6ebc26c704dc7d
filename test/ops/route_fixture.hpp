// One routing with its memory, what must hold of its tables, and the rules and inputs that the tests of routing share.
#pragma once

#include "ops/check.hpp"
#include "ops/route_reference.hpp"

#include <doctest/doctest.h>

#include <cmath>

namespace flanmoe::test {

using ops::RouteRule;
using ops::RouteStatistic;

/// One routing with its memory.
struct Routed {
    TestContext context;
    ops::RouteArgs args;

    Routed(DType type, const std::vector<double>& logits, int64_t groups, int64_t experts, const RouteRule& rule, const std::vector<int>& mask = {},
           const std::vector<double>& draws = {}, uint64_t first_token = 0, const std::vector<double>& bias = {}, const std::vector<double>& scores = {}) {
        const int64_t tokens = static_cast<int64_t>(logits.size()) / experts;
        args.logits = make(context, type, {tokens, experts});
        for (int64_t n = 0; n < tokens; ++n)
            for (int64_t e = 0; e < experts; ++e) set(args.logits, n, e, logits[static_cast<size_t>(n * experts + e)]);
        args.groups = groups, args.rule = rule, args.first_token = first_token, args.key = {5, 3, 1, Purpose::second_expert};
        if (!mask.empty()) {
            args.mask = make(context, DType::u8, {tokens});
            for (int64_t n = 0; n < tokens; ++n) set(args.mask, 0, n, mask[static_cast<size_t>(n)]);
        }
        if (!draws.empty()) {
            args.draws = make(context, type, {static_cast<int64_t>(draws.size())});
            for (size_t i = 0; i < draws.size(); ++i) set(args.draws, 0, static_cast<int64_t>(i), draws[i]);
        }
        if (!bias.empty()) {
            args.bias = make(context, type, {experts});
            for (size_t e = 0; e < bias.size(); ++e) set(args.bias, 0, static_cast<int64_t>(e), bias[e]);
        }
        if (!scores.empty()) {
            args.scores = make(context, type, {tokens, experts});
            for (size_t i = 0; i < scores.size(); ++i) set(args.scores, static_cast<int64_t>(i) / experts, static_cast<int64_t>(i) % experts, scores[i]);
        }
        ops::allocate_route_outputs(context, args);
        ops::route(context, args);
    }
    int64_t rows() const { return args.offsets.as<int32_t>()[args.logits.cols()]; }
    double statistic(RouteStatistic s) const { return args.statistics.as<double>()[static_cast<int>(s)]; }
    /// Dense weights [N, E]; -1 where a token is not sent.
    std::vector<double> weights() const {
        std::vector<double> dense(static_cast<size_t>(args.logits.elements()), -1);
        for (int64_t e = 0; e < args.logits.cols(); ++e)
            for (int32_t r = args.offsets.as<int32_t>()[e]; r < args.offsets.as<int32_t>()[e + 1]; ++r)
                dense[static_cast<size_t>(args.row_token.as<int32_t>()[r] * args.logits.cols() + e)] = get(args.row_gate, 0, r);
        return dense;
    }
};

/// What every consumer of the tables relies on.
inline void check_tables(const Routed& routed) {
    const ops::RouteArgs& a = routed.args;
    const int64_t tokens = a.logits.rows(), experts = a.logits.cols(), rows = routed.rows(), group_tokens = tokens / a.groups;
    CHECK(a.offsets.as<int32_t>()[0] == 0);
    CHECK(rows <= ops::max_rows(a.rule, tokens, a.groups, experts));
    bool ascending = true, ids = true, inverse = true, within = true;
    for (int64_t e = 0; e < experts; ++e) {
        std::vector<int64_t> per_group(static_cast<size_t>(a.groups), 0);
        for (int32_t r = a.offsets.as<int32_t>()[e]; r < a.offsets.as<int32_t>()[e + 1]; ++r) {
            const int32_t n = a.row_token.as<int32_t>()[r];
            ascending &= r == a.offsets.as<int32_t>()[e] || a.row_token.as<int32_t>()[r - 1] < n;
            ids &= a.row_id.as<int64_t>()[r] == (static_cast<int64_t>(a.first_token) + n) * experts + e;
            ++per_group[static_cast<size_t>(n / group_tokens)];
        }
        for (int64_t g = 0; g < a.groups; ++g) {
            int64_t live = 0;
            for (int64_t n = g * group_tokens; n < (g + 1) * group_tokens; ++n) live += !a.mask || get(a.mask, 0, n) != 0;
            const int64_t capacity = ops::capacity_of(a.rule, live, experts);
            within &= capacity < 0 || per_group[static_cast<size_t>(g)] <= capacity;
            if (a.rule.kind == RouterKind::expert_choice) within &= per_group[static_cast<size_t>(g)] == std::min(capacity, live);
        }
        CHECK(a.load.as<double>()[e] == a.offsets.as<int32_t>()[e + 1] - a.offsets.as<int32_t>()[e]);
        CHECK(a.demand.as<double>()[e] >= a.load.as<double>()[e]);
        if (a.rule.dropless) CHECK(a.demand.as<double>()[e] == a.load.as<double>()[e]);
    }
    const int32_t *begins = a.token_offsets.as<int32_t>(), *list = a.token_rows.as<int32_t>();
    CHECK(begins[0] == 0);
    CHECK(begins[tokens] == rows);
    for (int64_t n = 0; n < tokens; ++n)
        for (int32_t i = begins[n]; i < begins[n + 1]; ++i)
            inverse &= a.row_token.as<int32_t>()[list[i]] == n && (i == begins[n] || list[i - 1] < list[i]);
    CHECK(ascending);
    CHECK(ids);
    CHECK(within);
    CHECK(inverse);
}

inline std::vector<double> random_logits(int64_t count, uint64_t seed, double scale = 3) {
    std::vector<double> logits(static_cast<size_t>(count));
    for (size_t i = 0; i < logits.size(); ++i)  // 12 bits of each of two numbers: exact in float
        logits[i] = scale * (std::floor(4096 * uniform({seed, 0, 0, Purpose::sampling}, i)) / 4096 - 0.5) + std::floor(4096 * uniform({seed, 1, 0, Purpose::sampling}, i)) * 0x1p-20;
    return logits;
}
inline std::vector<int> random_mask(int64_t count, uint64_t seed) {
    std::vector<int> mask(static_cast<size_t>(count));
    for (size_t i = 0; i < mask.size(); ++i) mask[i] = uniform({seed, 2, 0, Purpose::sampling}, i) > 0.3f;
    return mask;
}

inline RouteRule token_rule(int64_t k, bool normalize = false, int64_t capacity = 0) {
    RouteRule rule;
    rule.k = k, rule.normalize = normalize, rule.fixed_capacity = capacity;
    return rule;
}
inline RouteRule expert_rule(int64_t capacity) {
    RouteRule rule;
    rule.kind = RouterKind::expert_choice, rule.fixed_capacity = capacity;
    return rule;
}
inline RouteRule balanced_rule(int64_t k, int64_t capacity = 0) {
    RouteRule rule = token_rule(k, false, capacity);
    rule.kind = RouterKind::balanced;
    return rule;
}
inline RouteRule gshard_rule(SecondPolicy second, int64_t capacity = 0) {
    RouteRule rule = token_rule(2, true, capacity);
    rule.second = second;
    return rule;
}

/// Every setting at least once.
inline std::vector<RouteRule> all_rules(int64_t experts) {
    std::vector<RouteRule> rules = {token_rule(1), token_rule(1, false, 2), token_rule(1, true, 1), expert_rule(3)};
    rules.push_back(token_rule(1)), rules.back().dropless = true;
    rules.push_back(expert_rule(0)), rules.back().capacity_factor = 2;
    rules.push_back(balanced_rule(1)), rules.push_back(balanced_rule(1, 2));
    if (experts < 2) return rules;
    for (const SecondPolicy second : {SecondPolicy::all, SecondPolicy::none, SecondPolicy::threshold, SecondPolicy::random}) rules.push_back(gshard_rule(second));
    rules.push_back(gshard_rule(SecondPolicy::random, 3)), rules.back().second_threshold = 0.5;
    rules.push_back(token_rule(2)), rules.back().density = Density::any, rules.back().prioritized = true, rules.back().min_capacity = 1;
    rules.push_back(token_rule(2, true)), rules.back().dropless = true;
    rules.push_back(gshard_rule(SecondPolicy::random)), rules.back().second_threshold = 0.9, rules.back().dropless = true;  // rejects about every other
    rules.push_back(balanced_rule(2)), rules.back().density = Density::any, rules.back().normalize = true;
    if (experts >= 3) rules.push_back(token_rule(3, true)), rules.back().second = SecondPolicy::random, rules.back().density = Density::any;
    return rules;
}

struct Size {
    int64_t groups, group_tokens, experts;
};
inline const std::vector<Size> sizes = {{1, 1, 1}, {2, 3, 3}, {3, 17, 5}, {1, 127, 17}, {5, 1, 4}, {2, 130, 8}, {1, 70, 127}, {4, 64, 2}};

}  // namespace flanmoe::test

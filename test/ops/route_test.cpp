// Routing against a literal implementation of the rule, against published numbers, and its properties. The recorded cases of the same operation are run
// by cli/parity_test.cpp.
#include "ops/route.hpp"

#include "ops/check.hpp"
#include "ops/route_reference.hpp"

#include <doctest/doctest.h>

#include <cstring>

using namespace flanmoe;
using namespace flanmoe::test;
using ops::RouteRule;
using ops::RouteStatistic;

namespace {

/// One routing with its memory.
struct Routed {
    Context context;
    ops::RouteArgs args;

    Routed(DType type, const std::vector<double>& logits, int64_t groups, int64_t experts, const RouteRule& rule, const std::vector<int>& mask = {},
           const std::vector<double>& draws = {}, uint64_t first_token = 0) {
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
void check_tables(const Routed& routed) {
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

std::vector<double> random_logits(int64_t count, uint64_t seed, double scale = 3) {
    std::vector<double> logits(static_cast<size_t>(count));
    for (size_t i = 0; i < logits.size(); ++i)  // 12 bits of each of two numbers: exact in float
        logits[i] = scale * (std::floor(4096 * uniform({seed, 0, 0, Purpose::sampling}, i)) / 4096 - 0.5) + std::floor(4096 * uniform({seed, 1, 0, Purpose::sampling}, i)) * 0x1p-20;
    return logits;
}
std::vector<int> random_mask(int64_t count, uint64_t seed) {
    std::vector<int> mask(static_cast<size_t>(count));
    for (size_t i = 0; i < mask.size(); ++i) mask[i] = uniform({seed, 2, 0, Purpose::sampling}, i) > 0.3f;
    return mask;
}

RouteRule token_rule(int64_t k, bool normalize = false, int64_t capacity = 0) {
    RouteRule rule;
    rule.k = k, rule.normalize = normalize, rule.fixed_capacity = capacity;
    return rule;
}
RouteRule expert_rule(int64_t capacity) {
    RouteRule rule;
    rule.kind = RouterKind::expert_choice, rule.fixed_capacity = capacity;
    return rule;
}
RouteRule gshard_rule(SecondPolicy second, int64_t capacity = 0) {
    RouteRule rule = token_rule(2, true, capacity);
    rule.second = second;
    return rule;
}

/// Every setting at least once.
std::vector<RouteRule> all_rules(int64_t experts) {
    std::vector<RouteRule> rules = {token_rule(1), token_rule(1, false, 2), token_rule(1, true, 1), expert_rule(3)};
    rules.push_back(token_rule(1)), rules.back().dropless = true;
    rules.push_back(expert_rule(0)), rules.back().capacity_factor = 2;
    if (experts < 2) return rules;
    for (const SecondPolicy second : {SecondPolicy::all, SecondPolicy::none, SecondPolicy::threshold, SecondPolicy::random}) rules.push_back(gshard_rule(second));
    rules.push_back(gshard_rule(SecondPolicy::random, 3)), rules.back().second_threshold = 0.5;
    rules.push_back(token_rule(2)), rules.back().density = Density::any, rules.back().prioritized = true, rules.back().min_capacity = 1;
    rules.push_back(token_rule(2, true)), rules.back().dropless = true;
    rules.push_back(gshard_rule(SecondPolicy::random)), rules.back().second_threshold = 0.9, rules.back().dropless = true;  // rejects about every other
    if (experts >= 3) rules.push_back(token_rule(3, true)), rules.back().second = SecondPolicy::random, rules.back().density = Density::any;
    return rules;
}

struct Size {
    int64_t groups, group_tokens, experts;
};
const std::vector<Size> sizes = {{1, 1, 1}, {2, 3, 3}, {3, 17, 5}, {1, 127, 17}, {5, 1, 4}, {2, 130, 8}, {1, 70, 127}, {4, 64, 2}};

/// Loss of the gradient checks: sum of cotangent x gate, plus balance and z, each a mean over groups.
double routed_loss(const ops::RouteArgs& args, const std::vector<double>& cotangent, double balance, double z) {
    double loss = 0;
    for (int64_t e = 0; e < args.logits.cols(); ++e)
        for (int32_t r = args.offsets.as<int32_t>()[e]; r < args.offsets.as<int32_t>()[e + 1]; ++r)
            loss += cotangent[static_cast<size_t>(args.row_token.as<int32_t>()[r] * args.logits.cols() + e)] * args.row_gate.as<double>()[r];
    const double* statistics = args.statistics.as<double>();
    return loss + balance * statistics[static_cast<int>(RouteStatistic::balance)] + z * statistics[static_cast<int>(RouteStatistic::z)];
}

}  // namespace

TEST_SUITE("ops/route") {
    TEST_CASE("equals a literal implementation of the rule, statistics included") {
        uint64_t seed = 0;
        for (const Size& size : sizes) {
            const int64_t tokens = size.groups * size.group_tokens;
            for (const RouteRule& rule : all_rules(size.experts)) {
                for (const bool masked : {false, true}) {
                    const std::vector<double> logits = random_logits(tokens * size.experts, ++seed);
                    const std::vector<int> mask = masked ? random_mask(tokens, seed) : std::vector<int>();
                    std::vector<double> draws;
                    for (int64_t i = 0; rule.kind == RouterKind::token_choice && i < tokens * (rule.k - 1); ++i)
                        draws.push_back(uniform({seed, 3, 0, Purpose::sampling}, static_cast<uint64_t>(i)));
                    const ReferenceRoute expected = reference_route(logits, size.groups, size.experts, rule, mask, draws);
                    Context context;
                    const Tensor weight = context.zeros(DType::f64, {tokens, size.experts}), statistics = context.zeros(DType::f64, {1, static_cast<int64_t>(RouteStatistic::count)});
                    std::copy(expected.weight.begin(), expected.weight.end(), weight.as<double>());
                    std::copy(expected.statistics.begin(), expected.statistics.end(), statistics.as<double>());
                    for (const DType type : {DType::f64, DType::f32}) {
                        CAPTURE(seed);
                        CAPTURE(size.experts);
                        CAPTURE(rule.k);
                        const Routed routed(type, logits, size.groups, size.experts, rule, mask, draws);
                        check_tables(routed);
                        std::vector<double> weights = routed.weights();
                        bool same = true;
                        for (size_t i = 0; i < weights.size(); ++i) same &= (weights[i] >= 0) == (expected.kept[i] == 1), weights[i] = std::max(weights[i], 0.0);
                        CHECK(same);
                        compare("route weights", Tensor(weights.data(), DType::f64, {tokens, size.experts}), weight, type, Kind::reduction);
                        for (int s = 0; s < static_cast<int>(RouteStatistic::count); ++s)
                            CHECK(routed.args.statistics.as<double>()[s] == doctest::Approx(expected.statistics[static_cast<size_t>(s)]).epsilon(type == DType::f64 ? 1e-12 : 1e-5));
                    }
                }
            }
        }
    }

    TEST_CASE("the published example of six tokens and three experts") {
        const std::vector<double> logits = {.5, 2, -1, 1, 1.5, 0, .9, 1, -.5, 2, .1, .3, -1, 3, 0, .2, 0, 1};
        const auto expect = [&](const RouteRule& rule, const std::vector<double>& weights, double balance) {
            for (const DType type : {DType::f64, DType::f32}) {
                const Routed routed(type, logits, 1, 3, rule);
                const std::vector<double> got = routed.weights();
                for (size_t i = 0; i < got.size(); ++i) CHECK(std::abs(got[i] - weights[i]) < 6e-7);
                CHECK(std::abs(routed.statistic(RouteStatistic::balance) - balance) < 1e-6);
                CHECK(std::abs(routed.statistic(RouteStatistic::z) - 4.952041) < 1e-6);
            }
        };
        expect(token_rule(1, false, 2), {-1, .785597, -1, -1, .546549, -1, -1, -1, -1, .750609, -1, -1, -1, -1, -1, -1, -1, .550295}, 1.263257);
        expect(gshard_rule(SecondPolicy::all, 3),
               {.182426, .817574, -1, .377541, .622459, -1, -1, .524979, -1, .845535, -1, .154465, -1, -1, .047426, -1, -1, .689974}, 1.263257);
        RouteRule raw = token_rule(2, false, 3);
        raw.density = Density::any;
        expect(raw, {.175290, .785597, -1, .331499, .546549, -1, -1, .469932, -1, .750609, -1, .137124, -1, -1, .046613, -1, -1, .550295}, 2.078922);
        expect(expert_rule(2), {-1, .785597, -1, -1, -1, -1, .425212, -1, -1, .750609, -1, .137124, -1, .936240, -1, -1, -1, .550295}, 0);
    }

    TEST_CASE("capacity rounds halves to even and keeps its minimum") {
        RouteRule rule = token_rule(1);
        rule.capacity_factor = 1.25, rule.min_capacity = 1;
        CHECK(ops::capacity_of(rule, 6, 3) == 2);    // 2.5
        CHECK(ops::capacity_of(rule, 14, 5) == 4);   // 3.5
        CHECK(ops::capacity_of(rule, 100, 8) == 16); // 15.6
        CHECK(ops::capacity_of(rule, 0, 8) == 1);
        rule.min_capacity = 4;
        CHECK(ops::capacity_of(rule, 6, 3) == 4);
        rule.fixed_capacity = 2;
        CHECK(ops::capacity_of(rule, 1000, 3) == 2);
        rule.dropless = true;
        CHECK(ops::capacity_of(rule, 1000, 3) == -1);
    }

    TEST_CASE("ties go to the lower expert and the earlier token, also among permuted logits") {
        // Every token has the same logits, rotated or mirrored, so equal logits are equal probabilities in different tokens too.
        const std::vector<double> row = {1.25, -0.75, 0.125, 2.5, 0.3125, -1.875};
        const int64_t tokens = 60, experts = 6, capacity = 13;
        std::vector<double> logits;
        for (int64_t n = 0; n < tokens; ++n)
            for (int64_t e = 0; e < experts; ++e) logits.push_back(row[static_cast<size_t>((n % 7 < 4 ? e + n : n + 6 - e) % 6)]);
        for (const DType type : {DType::f64, DType::f32}) {
            const Routed routed(type, logits, 1, experts, expert_rule(capacity));
            const std::vector<double> weights = routed.weights();
            for (int64_t e = 0; e < experts; ++e) {
                std::vector<std::pair<double, int64_t>> order;
                for (int64_t n = 0; n < tokens; ++n) order.emplace_back(-logits[static_cast<size_t>(n * experts + e)], n);
                std::sort(order.begin(), order.end());
                for (int64_t i = 0; i < tokens; ++i) CHECK((weights[static_cast<size_t>(order[static_cast<size_t>(i)].second * experts + e)] >= 0) == (i < capacity));
            }
            RouteRule prioritized = token_rule(1, false, 4);
            prioritized.prioritized = true;
            const Routed rotated(type, logits, 1, experts, prioritized);  // every largest probability is the same, so slots go in token order
            for (int64_t e = 0; e < experts; ++e)
                for (int64_t n = 0, seen = 0; n < tokens; ++n)
                    if (get(rotated.args.choices, n, 0) == e) CHECK((rotated.weights()[static_cast<size_t>(n * experts + e)] >= 0) == (seen++ < 4));
            const Routed equal(type, std::vector<double>(12, 0.5), 1, 3, token_rule(2));
            for (int64_t n = 0; n < 4; ++n) {
                CHECK(get(equal.args.choices, n, 0) == 0);
                CHECK(get(equal.args.choices, n, 1) == 1);
            }
        }
    }

    TEST_CASE("one expert has gate one; all tokens to one expert; one slot") {
        for (const DType type : {DType::f64, DType::f32}) {
            RouteRule rule = token_rule(1);
            rule.dropless = true;
            const Routed one(type, random_logits(17, 1), 1, 1, rule);
            CHECK(one.rows() == 17);
            for (int64_t r = 0; r < 17; ++r) CHECK(get(one.args.row_gate, 0, r) == 1);

            std::vector<double> logits(20 * 4, 0.0);
            for (size_t n = 0; n < 20; ++n) logits[n * 4 + 2] = 5;
            const Routed crowded(type, logits, 2, 4, token_rule(1, false, 3));
            CHECK(crowded.rows() == 6);
            CHECK(get(crowded.args.load, 0, 2) == 6);
            CHECK(crowded.weights()[2 * 4 + 2] > 0.9);
            CHECK(crowded.weights()[3 * 4 + 2] == -1);
            CHECK(crowded.statistic(RouteStatistic::tokens) - crowded.statistic(RouteStatistic::reached) == 14);
            const Routed single(type, logits, 1, 4, token_rule(1, false, 1));
            CHECK(single.rows() == 1);
        }
    }

    TEST_CASE("permuting the experts permutes the weights") {
        const int64_t tokens = 48, experts = 7;
        const std::vector<double> logits = random_logits(tokens * experts, 11);
        const int64_t order[experts] = {3, 0, 6, 1, 5, 2, 4};
        std::vector<double> permuted(logits.size());
        for (int64_t n = 0; n < tokens; ++n)
            for (int64_t e = 0; e < experts; ++e) permuted[static_cast<size_t>(n * experts + e)] = logits[static_cast<size_t>(n * experts + order[e])];
        for (RouteRule rule : all_rules(experts)) {
            const std::vector<double> draws(static_cast<size_t>(tokens * (rule.k - 1)), 0.4);
            const std::vector<double> a = Routed(DType::f32, logits, 3, experts, rule, {}, draws).weights(), b = Routed(DType::f32, permuted, 3, experts, rule, {}, draws).weights();
            bool same = true;
            for (int64_t n = 0; n < tokens; ++n)
                for (int64_t e = 0; e < experts; ++e)
                    same &= std::abs(b[static_cast<size_t>(n * experts + e)] - a[static_cast<size_t>(n * experts + order[e])]) < 1e-6;
            CHECK(same);
        }
    }

    TEST_CASE("padding changes nothing, cutting into micro-batches changes nothing") {
        const int64_t groups = 6, real = 19, padded = 30, experts = 5;
        const std::vector<double> logits = random_logits(groups * real * experts, 21);
        std::vector<double> wide;
        std::vector<int> mask;
        std::vector<int64_t> place;  // of each real token in the padded sequence
        for (int64_t g = 0; g < groups; ++g) {
            int64_t s = 0;
            for (int64_t i = 0; i < padded; ++i) {
                const bool take = s < real && (padded - i <= real - s || uniform({9, 0, 0, Purpose::sampling}, static_cast<uint64_t>(g * padded + i)) < 0.6f);
                for (int64_t e = 0; e < experts; ++e) wide.push_back(take ? logits[static_cast<size_t>((g * real + s) * experts + e)] : 7.0 - 3.0 * static_cast<double>(e));
                if (take) place.push_back(g * padded + i), ++s;
                mask.push_back(take);
            }
        }
        for (RouteRule rule : all_rules(experts)) {
            // Draws without padding and with it must be those of the same tokens.
            std::vector<double> draws, wide_draws(static_cast<size_t>(groups * padded * (rule.k - 1)), 0.0);
            for (int64_t n = 0; n < groups * real; ++n)
                for (int64_t r = 0; r < rule.k - 1; ++r) {
                    draws.push_back(uniform({10, 0, 0, Purpose::sampling}, draws.size()));
                    wide_draws[static_cast<size_t>(place[static_cast<size_t>(n)] * (rule.k - 1) + r)] = draws.back();
                }
            const Routed plain(DType::f32, logits, groups, experts, rule, {}, draws), with_padding(DType::f32, wide, groups, experts, rule, mask, wide_draws);
            const std::vector<double> a = plain.weights(), b = with_padding.weights();
            bool same = true;
            for (int64_t n = 0; n < groups * real; ++n)
                for (int64_t e = 0; e < experts; ++e) same &= a[static_cast<size_t>(n * experts + e)] == b[static_cast<size_t>(place[static_cast<size_t>(n)] * experts + e)];
            CHECK(same);
            CHECK(plain.rows() == with_padding.rows());
            for (int s = 0; s < static_cast<int>(RouteStatistic::count); ++s)
                CHECK(plain.args.statistics.as<double>()[s] == doctest::Approx(with_padding.args.statistics.as<double>()[s]).epsilon(1e-12));

            // Draws from the key this time: they belong to the token's place in the step.
            const Routed whole(DType::f32, logits, groups, experts, rule, {}, {}, 1000);
            const auto middle = logits.begin() + 2 * real * experts;
            const Routed first(DType::f32, {logits.begin(), middle}, 2, experts, rule, {}, {}, 1000), second(DType::f32, {middle, logits.end()}, 4, experts, rule, {}, {}, 1000 + 2 * real);
            std::vector<double> joined = first.weights();
            const std::vector<double> rest = second.weights();
            joined.insert(joined.end(), rest.begin(), rest.end());
            CHECK(joined == whole.weights());
            CHECK(first.statistic(RouteStatistic::balance) + second.statistic(RouteStatistic::balance) == doctest::Approx(whole.statistic(RouteStatistic::balance)).epsilon(1e-12));
        }
    }

    TEST_CASE("gradients of gates, balance and z") {
        uint64_t seed = 100;
        for (const Size& size : {Size{2, 13, 5}, Size{1, 9, 3}, Size{3, 4, 1}, Size{2, 70, 8}}) {
            const int64_t tokens = size.groups * size.group_tokens;
            for (const RouteRule& rule : all_rules(size.experts)) {
                for (const bool masked : {false, true}) {
                    CAPTURE(++seed);
                    Routed routed(DType::f64, random_logits(tokens * size.experts, seed), size.groups, size.experts, rule, masked ? random_mask(tokens, seed) : std::vector<int>());
                    const std::vector<double> cotangent = random_logits(tokens * size.experts, seed + 5000, 2);
                    const int64_t rows = routed.args.row_gate.elements();
                    const Tensor d_gate = make(routed.context, DType::f64, {rows}), d_logits = make(routed.context, DType::f64, {tokens, size.experts});
                    for (int64_t e = 0; e < size.experts; ++e)
                        for (int32_t r = routed.args.offsets.as<int32_t>()[e]; r < routed.args.offsets.as<int32_t>()[e + 1]; ++r)
                            set(d_gate, 0, r, cotangent[static_cast<size_t>(routed.args.row_token.as<int32_t>()[r] * size.experts + e)]);
                    ops::route_backward(routed.context, {routed.args, d_gate, 0.7, 0.3, d_logits});
                    const Tensor kept = make(routed.context, DType::f64, {tokens, size.experts});
                    std::memcpy(kept.data, d_logits.data, static_cast<size_t>(kept.bytes()));
                    gradient_check("route", [&] {
                        ops::route(routed.context, routed.args);
                        return routed_loss(routed.args, cotangent, 0.7, 0.3);
                    }, {{routed.args.logits, kept}}, seed, 1e-5);
                }
            }
        }
    }

    TEST_CASE("single precision gradients agree with double") {
        for (const RouteRule& rule : all_rules(8)) {
            const std::vector<double> logits = random_logits(160 * 8, 77);
            Tensor gradients[2];
            Routed runs[2] = {{DType::f64, logits, 2, 8, rule}, {DType::f32, logits, 2, 8, rule}};
            for (int i = 0; i < 2; ++i) {
                Routed& routed = runs[i];
                const Tensor d_gate = random(routed.context, routed.args.logits.dtype, routed.args.row_gate.shape, 3);
                gradients[i] = make(routed.context, routed.args.logits.dtype, {160, 8});
                ops::route_backward(routed.context, {routed.args, d_gate, 0.01, 0.001, gradients[i]});
            }
            compare("route gradient", gradients[1], gradients[0], DType::f32, Kind::reduction);
        }
    }

    TEST_CASE("nothing to route gives nothing") {
        for (const RouteRule& rule : all_rules(4)) {
            Routed routed(DType::f32, random_logits(24, 5), 2, 4, rule, std::vector<int>(6, 0));
            CHECK(routed.rows() == 0);
            for (int s = 0; s < static_cast<int>(RouteStatistic::count); ++s) CHECK(routed.args.statistics.as<double>()[s] == 0);
            const Tensor d_gate = make(routed.context, DType::f32, routed.args.row_gate.shape), d_logits = make(routed.context, DType::f32, {6, 4});
            ops::route_backward(routed.context, {routed.args, d_gate, 1, 1, d_logits});
            CHECK(dot(d_logits, d_logits) == 0);
        }
    }

    TEST_CASE("bits do not depend on the number of threads") {
        for (const RouteRule& rule : all_rules(8)) {
            const std::vector<double> logits = random_logits(16 * 100 * 8, 31);
            std::vector<std::string> bits;
            for (const int count : {1, 2, 3}) {
                const Threads threads(count);
                Routed routed(DType::f32, logits, 16, 8, rule, random_mask(1600, 4));
                const Tensor d_gate = random(routed.context, DType::f32, routed.args.row_gate.shape, 3), d_logits = make(routed.context, DType::f32, {1600, 8});
                ops::route_backward(routed.context, {routed.args, d_gate, 0.01, 0.001, d_logits});
                std::string all;
                const auto append = [&](const Tensor& t, int64_t elements) { all.append(static_cast<const char*>(t.data), static_cast<size_t>(elements * size_of(t.dtype))); };
                const ops::RouteArgs& a = routed.args;
                for (const Tensor& t : {a.probabilities, a.choices, a.offsets, a.token_offsets, a.statistics, a.load, d_logits})
                    if (t) append(t, t.elements());
                for (const Tensor& t : {a.row_token, a.row_gate, a.row_id, a.token_rows}) append(t, routed.rows());
                bits.push_back(all);
            }
            CHECK(bits[0] == bits[1]);
            CHECK(bits[0] == bits[2]);
        }
    }
}

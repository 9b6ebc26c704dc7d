// Properties of routing: ties, permutations, padding, micro-batches, biases, extreme and random shapes.
#include "ops/route_fixture.hpp"

#include <cstring>
#include <set>

using namespace flanmoe;
using namespace flanmoe::test;

TEST_SUITE("ops/route_properties") {
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
            if (rule.kind == RouterKind::balanced) continue;  // looks at no logit
            const std::vector<double> draws(static_cast<size_t>(tokens * (rule.k - 1)), 0.4);
            const std::vector<double> a = Routed(DType::f32, logits, 3, experts, rule, {}, draws).weights(), b = Routed(DType::f32, permuted, 3, experts, rule, {}, draws).weights();
            bool same = true;
            for (int64_t n = 0; n < tokens; ++n)
                for (int64_t e = 0; e < experts; ++e)
                    same &= std::abs(b[static_cast<size_t>(n * experts + e)] - a[static_cast<size_t>(n * experts + order[e])]) < 1e-6;
            CHECK(same);
        }
    }

    TEST_CASE("a bias changes who is chosen, and no gate, loss or gradient of those") {
        const int64_t tokens = 40, experts = 5;
        const std::vector<double> logits = random_logits(tokens * experts, 41), none(static_cast<size_t>(experts), 0.0);
        for (const int64_t k : {1, 2}) {
            RouteRule rule = token_rule(k, true);
            rule.dropless = true;
            const Routed plain(DType::f64, logits, 2, experts, rule), zero(DType::f64, logits, 2, experts, rule, {}, {}, 0, none);
            CHECK(plain.weights() == zero.weights());
            std::vector<double> bias = none;
            bias[3] = 2;  // above any probability: every token's first choice
            const Routed biased(DType::f64, logits, 2, experts, rule, {}, {}, 0, bias);
            CHECK(get(biased.args.demand, 0, 3) == tokens);
            CHECK(same_bits(biased.args.probabilities, plain.args.probabilities));
            CHECK(biased.statistic(RouteStatistic::z) == plain.statistic(RouteStatistic::z));
            for (int64_t n = 0; n < tokens; ++n) {
                CHECK(get(biased.args.choices, n, 0) == 3);
                const double p = get(plain.args.probabilities, n, 3), other = k == 1 ? 0 : get(plain.args.probabilities, n, static_cast<int64_t>(get(biased.args.choices, n, 1)));
                CHECK(biased.weights()[static_cast<size_t>(n * experts + 3)] == doctest::Approx(p / (p + other)).epsilon(1e-14));
            }
            bias[3] = -2;
            CHECK(get(Routed(DType::f32, logits, 2, experts, rule, {}, {}, 0, bias).args.load, 0, 3) == 0);
        }
    }

    TEST_CASE("forced balanced routing gives every expert the same work, whatever the logits") {
        for (const int64_t k : {1, 2, 3}) {
            RouteRule rule = balanced_rule(k);
            rule.dropless = true;
            const Routed routed(DType::f32, random_logits(24 * 4, 3, 30), 8, 4, rule, {}, {}, 1000);
            for (int64_t e = 0; e < 4; ++e) CHECK(get(routed.args.load, 0, e) == 24 * k / 4);
            std::set<int> chosen;  // a token's experts differ
            for (int64_t r = 0; r < k; ++r) chosen.insert(static_cast<int>(get(routed.args.choices, 5, r)));
            CHECK(chosen.size() == static_cast<size_t>(k));
        }
    }

    TEST_CASE("random shapes: no expert over capacity, every kept token has its weight, expert choice fills every slot") {
        RandomStream random({77, 0, 0, Purpose::shuffle});
        const auto below = [&](int64_t n) { return static_cast<int64_t>(random.below(static_cast<uint64_t>(n))); };
        for (int trial = 0; trial < 150; ++trial) {
            CAPTURE(trial);
            const int64_t groups = 1 + below(5), size = 1 + below(80), experts = 1 + below(20), tokens = groups * size;
            RouteRule rule;
            rule.kind = below(3) == 0 ? RouterKind::expert_choice : RouterKind::token_choice;
            rule.k = 1 + below(std::min<int64_t>(experts, 4));
            rule.normalize = below(2), rule.prioritized = below(2), rule.density = below(2) ? Density::any : Density::first;
            rule.second = static_cast<SecondPolicy>(below(4)), rule.second_threshold = 0.05 + 0.1 * static_cast<double>(below(6));
            rule.fixed_capacity = below(2) ? 0 : 1 + below(size), rule.capacity_factor = 0.25 * static_cast<double>(1 + below(10)), rule.min_capacity = 1 + below(4);
            rule.dropless = rule.kind == RouterKind::token_choice && below(5) == 0;
            const std::vector<double> logits = random_logits(tokens * experts, static_cast<uint64_t>(1000 + trial));
            const std::vector<int> mask = below(2) ? random_mask(tokens, static_cast<uint64_t>(trial)) : std::vector<int>();
            std::vector<double> draws, bias;
            for (int64_t i = 0; rule.kind == RouterKind::token_choice && i < tokens * (rule.k - 1); ++i) draws.push_back(static_cast<double>(below(1000)) / 1000);
            for (int64_t e = 0; rule.kind == RouterKind::token_choice && trial % 3 == 0 && e < experts; ++e) bias.push_back(static_cast<double>(below(200)) / 400 - 0.25);
            const Routed routed(DType::f64, logits, groups, experts, rule, mask, draws, 0, bias);
            check_tables(routed);  // no expert of a group over its capacity; expert choice exactly at it
            const ReferenceRoute expected = reference_route(logits, groups, experts, rule, mask, draws, bias);
            const std::vector<double> weights = routed.weights();
            double worst = 0;
            for (size_t i = 0; i < weights.size(); ++i) worst = std::max(worst, std::abs(weights[i] - (expected.kept[i] ? expected.weight[i] : -1)));
            CHECK(worst < 1e-13);
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
        const auto check_padding = [&](const RouteRule& rule) {
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
        };
        for (RouteRule rule : all_rules(experts)) {
            if (rule.kind != RouterKind::balanced) check_padding(rule);  // its turns count padding, too

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

    TEST_CASE("expert choice of few tokens: the least capacity, but never more tokens than there are") {
        RouteRule rule = expert_rule(0);
        rule.capacity_factor = 2, rule.min_capacity = 4;
        for (const auto& [tokens, taken] : {std::pair<int64_t, int64_t>{1, 1}, {3, 3}, {6, 4}, {40, 10}}) {
            const Routed routed(DType::f32, random_logits(tokens * 8, 6), 1, 8, rule);
            for (int64_t e = 0; e < 8; ++e) CHECK(get(routed.args.load, 0, e) == taken);
            CHECK(routed.statistic(RouteStatistic::balance) == 0);
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
}

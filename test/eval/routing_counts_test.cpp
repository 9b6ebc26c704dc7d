// Counts and figures of small routings whose every number is computed by hand; tables that contradict themselves; drift between two routers.
#include "eval/routing_counts.hpp"

#include "../ops/check.hpp"
#include "core/error.hpp"
#include "eval/routing_report.hpp"

#include <doctest/doctest.h>

#include <cmath>

using namespace flanmoe;
using namespace flanmoe::test;

namespace {

// Routes tokens with these probabilities (their logarithms are the logits).
ops::RouteArgs routed(Context& context, const ops::RouteRule& rule, const std::vector<std::vector<double>>& p, int64_t groups = 1, const std::vector<int>& mask = {}) {
    ops::RouteArgs args;
    const auto n = static_cast<int64_t>(p.size()), experts = static_cast<int64_t>(p[0].size());
    args.logits = make(context, DType::f64, {n, experts});
    for (int64_t i = 0; i < n; ++i)
        for (int64_t e = 0; e < experts; ++e) set(args.logits, i, e, std::log(p[static_cast<size_t>(i)][static_cast<size_t>(e)]));
    if (!mask.empty()) {
        args.mask = make(context, DType::u8, {n});
        for (int64_t i = 0; i < n; ++i) set(args.mask, 0, i, mask[static_cast<size_t>(i)]);
    }
    args.groups = groups, args.rule = rule;
    ops::allocate_route_outputs(context, args);
    ops::route(context, args);
    return args;
}

ops::RouteRule top(int64_t k, int64_t capacity) {
    ops::RouteRule rule;
    rule.k = k, rule.fixed_capacity = capacity;
    return rule;
}

std::vector<int32_t> list(std::span<const int32_t> values) { return {values.begin(), values.end()}; }

const std::vector<double> first = {0.75, 0.25}, second = {0.25, 0.75};

// Two groups of three; two slots an expert. Tokens 0, 1, 2 ask for expert 0, which has no slot left for 2; 3 asks for 1, 4 for 0; 5 is padding.
const std::vector<std::vector<double>> switch_case = {first, first, first, second, first, second};
const std::vector<int32_t> ids = {5, 7, 5, 7, 9, 0}, tasks = {0, 0, 1, 1, 1, -1};
const std::vector<TokenClass> classes = {TokenClass::special, TokenClass::other,      TokenClass::other, TokenClass::other, TokenClass::other,
                                         TokenClass::stop_word, TokenClass::other, TokenClass::formatting, TokenClass::other, TokenClass::other};

LayerCounts counted(const ops::RouteArgs& route) {
    LayerCounts counts(true, 3, 2, 10, 2);
    counts.add(route, RoutingView(route), ids, tasks);
    return counts;
}

}  // namespace

TEST_SUITE("eval/routing_counts") {
    TEST_CASE("top-1, by hand: counts") {
        Context context;
        const LayerCounts c = counted(routed(context, top(1, 2), switch_case, 2, {1, 1, 1, 1, 1, 0}));
        CHECK(c.load == std::vector<int64_t>{3, 1});
        CHECK(c.seen == std::vector<int64_t>{0, 0, 0, 0, 0, 2, 0, 2, 0, 1});
        CHECK(c.dropped == std::vector<int64_t>{0, 0, 0, 0, 0, 1, 0, 0, 0, 0});
        CHECK(c.by_token[5 * 2] == 1);
        CHECK(c.by_token[7 * 2] == 1);
        CHECK(c.by_token[7 * 2 + 1] == 1);
        CHECK(c.by_token[9 * 2] == 1);
        CHECK(c.task_seen == std::vector<int64_t>{2, 3});
        CHECK(c.task_dropped == std::vector<int64_t>{0, 1});
        CHECK(c.by_task == std::vector<int64_t>{2, 0, 1, 1});
        CHECK_FALSE(c.unlimited);
    }

    TEST_CASE("top-1, by hand: figures") {
        Context context;
        const LayerCounts c = counted(routed(context, top(1, 2), switch_case, 2, {1, 1, 1, 1, 1, 0}));
        const LayerFigures f = figures(c, classes);
        CHECK(*f.utilization == doctest::Approx(0.5));  // 4 pairs in 2 groups x 2 experts x 2 slots
        REQUIRE(f.utilization_by_expert.size() == 2);
        CHECK(f.utilization_by_expert[0] == doctest::Approx(0.75));
        CHECK(f.utilization_by_expert[1] == doctest::Approx(0.25));
        CHECK(f.busiest == doctest::Approx(1.5));
        CHECK(f.idle == 0);
        CHECK(sum(f.dropped).share() == doctest::Approx(0.2));
        CHECK(f.dropped[static_cast<size_t>(TokenClass::stop_word)].share() == doctest::Approx(0.5));
        CHECK(f.dropped[static_cast<size_t>(TokenClass::formatting)].of == 2);
        CHECK(f.dropped[static_cast<size_t>(TokenClass::formatting)].count == 0);
        CHECK(f.dropped[static_cast<size_t>(TokenClass::special)].of == 0);
        CHECK(f.confidence == doctest::Approx(0.75));
        CHECK(f.entropy == doctest::Approx(-0.75 * std::log(0.75) - 0.25 * std::log(0.25)));
        CHECK_FALSE(f.later_dropped);
        // H(expert) of 3 : 1; token 7 leaves one bit open in half of the pairs, tokens 5 and 9 none. The tasks the same: task 1 leaves one bit open in half.
        const double h = -0.75 * std::log2(0.75) - 0.25 * std::log2(0.25);
        CHECK(f.of_tokens.entropy == doctest::Approx(h));
        CHECK(f.of_tokens.bits == doctest::Approx(h - 0.5));
        CHECK(f.of_tokens.bias == doctest::Approx(0));  // 4 cells, 3 rows, 2 columns
        CHECK(f.of_tokens.share() == doctest::Approx((h - 0.5) / h));
        CHECK(f.of_tasks.bits == doctest::Approx(h - 0.5));
        CHECK(f.of_tasks.bias == doctest::Approx(0));  // 3 cells, 2 rows, 2 columns
    }

    TEST_CASE("top-1, by hand: typical tokens and those most often dropped") {
        Context context;
        const LayerCounts c = counted(routed(context, top(1, 2), switch_case, 2, {1, 1, 1, 1, 1, 0}));
        const std::vector<TokenCount> zero = typical_tokens(c, 0, 10), one = typical_tokens(c, 1, 10);
        REQUIRE(zero.size() == 2);  // tokens 5 and 9 go to expert 0 more than others do; token 7 less
        CHECK(zero[0].id == 5);
        CHECK(zero[1].id == 9);
        REQUIRE(one.size() == 1);
        CHECK(one[0].id == 7);
        CHECK(one[0].count == 1);
        CHECK(one[0].of == 2);
        CHECK(typical_tokens(c, 0, 1).size() == 1);
        const std::vector<TokenCount> dropped = most_dropped({0, 4, 9, 9, 2}, {0, 2, 0, 3, 2}, 2);
        REQUIRE(dropped.size() == 2);
        CHECK(dropped[0].id == 3);
        CHECK(dropped[1].id == 1);  // as often as token 4: the lower id
        CHECK(dropped[1].of == 4);
    }

    TEST_CASE("calls add up, and no limit on slots leaves no utilization") {
        Context context;
        const ops::RouteArgs route = routed(context, top(1, 2), switch_case, 2, {1, 1, 1, 1, 1, 0});
        LayerCounts c = counted(route);
        c.add(route, RoutingView(route), ids, tasks);
        CHECK(c.load == std::vector<int64_t>{6, 2});
        CHECK(*figures(c, classes).utilization == doctest::Approx(0.5));
        CHECK(figures(c, classes).confidence == doctest::Approx(0.75));
        ops::RouteRule rule = top(1, 0);
        rule.dropless = true;
        const LayerFigures f = figures(counted(routed(context, rule, switch_case, 2, {1, 1, 1, 1, 1, 0})), classes);
        CHECK_FALSE(f.utilization);
        CHECK(f.utilization_by_expert.empty());
        CHECK(sum(f.dropped).count == 0);
    }

    TEST_CASE("top-2: wanted and kept experts, dropped second choices") {
        Context context;
        // One slot an expert: token 0 gets both its experts; token 1 wants the same two and gets none.
        const ops::RouteArgs route = routed(context, top(2, 1), {{0.5, 0.3, 0.2}, {0.3, 0.6, 0.1}, {0.1, 0.2, 0.7}});
        const RoutingView view(route);
        CHECK(list(view.wanted(0)) == std::vector<int32_t>{0, 1});
        CHECK(list(view.wanted(1)) == std::vector<int32_t>{0, 1});
        CHECK(list(view.wanted(2)) == std::vector<int32_t>{1, 2});
        CHECK(list(view.kept(0)) == std::vector<int32_t>{0});  // first choices go first: expert 1 is token 1's
        CHECK(list(view.kept(1)) == std::vector<int32_t>{1});
        CHECK(list(view.kept(2)) == std::vector<int32_t>{2});
        CHECK(view.gates(2)[0] == doctest::Approx(0.7));
        LayerCounts c(false, 0, 3, 4, 1);
        c.add(route, view, std::vector<int32_t>{1, 2, 3}, std::vector<int32_t>{0, 0, 0});
        CHECK(*figures(c, std::vector<TokenClass>(4, TokenClass::other)).later_dropped == doctest::Approx(1));
        CHECK(*figures(c, std::vector<TokenClass>(4, TokenClass::other)).utilization == doctest::Approx(1));
    }

    TEST_CASE("expert choice: what is wanted is what is kept, several experts a token or none") {
        Context context;
        ops::RouteRule rule;
        rule.kind = RouterKind::expert_choice;
        rule.fixed_capacity = 1;
        const ops::RouteArgs route = routed(context, rule, {{0.5, 0.5}, {0.9, 0.1}, {0.2, 0.8}});
        const RoutingView view(route);
        for (int64_t n = 0; n < 3; ++n) CHECK(list(view.wanted(n)) == list(view.kept(n)));
        CHECK(list(view.kept(0)).empty());
        CHECK(list(view.kept(1)) == std::vector<int32_t>{0});
        CHECK(list(view.kept(2)) == std::vector<int32_t>{1});
    }

    TEST_CASE("tables that contradict the statistics are refused") {
        Context context;
        const auto plant = [&](auto fault) {
            ops::RouteArgs route = routed(context, top(1, 2), switch_case, 2, {1, 1, 1, 1, 1, 0});
            CHECK_NOTHROW(counted(route));
            fault(route);
            CHECK_THROWS_AS(counted(route), Error);
        };
        plant([](ops::RouteArgs& r) { r.token_offsets.as<int32_t>()[3] = 3; });  // token 2, which is dropped, gets the row of token 3
        plant([](ops::RouteArgs& r) { r.offsets.as<int32_t>()[2] = 3; });        // an expert's row is lost
        plant([](ops::RouteArgs& r) { set(r.mask, 0, 5, 1); });                  // padding counts as a token
        plant([](ops::RouteArgs& r) { r.statistics.as<double>()[static_cast<size_t>(ops::RouteStatistic::reached)] = 5; });
    }

    TEST_CASE("drift: tokens whose experts differ, by class, and those that only their neighbours' moves concern") {
        Context context;
        const std::vector<int> mask = {1, 1, 1, 1, 1, 0};
        const ops::RouteArgs before = routed(context, top(1, 2), switch_case, 2, mask);
        std::vector<std::vector<double>> moved = switch_case;
        moved[1] = second;  // token 1 leaves expert 0, whose slot token 2 takes
        const ops::RouteArgs after = routed(context, top(1, 2), moved, 2, mask);
        LayerDrift drift, none;
        drift.add(RoutingView(before), RoutingView(after), ids, classes);
        none.add(RoutingView(before), RoutingView(before), ids, classes);
        CHECK(drift.tokens == std::array<int64_t, 4>{2, 0, 2, 1});
        CHECK(drift.wanted == std::array<int64_t, 4>{1, 0, 0, 0});
        CHECK(drift.kept == std::array<int64_t, 4>{1, 0, 1, 0});
        CHECK(sum(changed(drift.wanted, drift.tokens)).share() == doctest::Approx(0.2));
        CHECK(none.tokens == drift.tokens);
        CHECK(none.wanted == std::array<int64_t, 4>{});
        CHECK(none.kept == std::array<int64_t, 4>{});
    }
}

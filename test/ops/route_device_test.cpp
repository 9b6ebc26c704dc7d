// Routing on the device that the tests were started for, beside the CPU: the same decisions, bit for bit, at the borders of the kernels' blocks.
#include "device.hpp"
#include "ops/route_fixture.hpp"

#include <cstring>

using namespace flanmoe;
using namespace flanmoe::test;

namespace {

/// The arguments of a routing with outputs of their own in `context`.
ops::RouteArgs routed_in(Context& context, ops::RouteArgs args) {
    ops::allocate_route_outputs(context, args);
    ops::route(context, args);
    return args;
}

bool same(const Tensor& a, const Tensor& b, int64_t elements) { return std::memcmp(a.data, b.data, static_cast<size_t>(elements * size_of(a.dtype))) == 0; }

void check_same(const ops::RouteArgs& a, const ops::RouteArgs& b) {
    const int64_t experts = a.logits.cols(), rows = a.offsets.as<int32_t>()[experts];
    for (const auto tensor : {&ops::RouteArgs::probabilities, &ops::RouteArgs::choices, &ops::RouteArgs::offsets, &ops::RouteArgs::token_offsets, &ops::RouteArgs::load,
                              &ops::RouteArgs::demand})
        if (a.*tensor) CHECK(same(a.*tensor, b.*tensor, (a.*tensor).elements()));
    for (const auto tensor : {&ops::RouteArgs::row_token, &ops::RouteArgs::row_gate, &ops::RouteArgs::row_id, &ops::RouteArgs::token_rows})
        CHECK(same(a.*tensor, b.*tensor, rows));
    for (int s = 0; s < static_cast<int>(RouteStatistic::count); ++s) {
        CAPTURE(s);
        // Sums of doubles in another order; the entropy adds floats on the CPU.
        CHECK(a.statistics.as<double>()[s] == doctest::Approx(b.statistics.as<double>()[s]).epsilon(s == static_cast<int>(RouteStatistic::entropy) ? 1e-6 : 1e-12));
    }
}

enum class Logits { any, whole, far };  ///< whole numbers tie within a token and between tokens; far apart, some probabilities are 0 and tie

std::vector<double> logits_of(Logits kind, int64_t count, uint64_t seed) {
    std::vector<double> logits = random_logits(count, seed, kind == Logits::far ? 250 : 3);
    for (double& x : logits) x = kind == Logits::whole ? std::floor(x) : x;
    return logits;
}

void check_against_cpu(const Size& size, const RouteRule& rule, bool masked, Logits kind, uint64_t seed) {
    CAPTURE(size.group_tokens);
    CAPTURE(size.experts);
    CAPTURE(seed);
    const int64_t tokens = size.groups * size.group_tokens;
    std::vector<double> bias, scores;
    for (int64_t e = 0; rule.kind == RouterKind::token_choice && seed % 3 == 0 && e < size.experts; ++e) bias.push_back(0.03125 * static_cast<double>(e % 5) - 0.0625);
    for (int64_t i = 0; rule.kind == RouterKind::token_choice && seed % 3 == 1 && i < tokens * size.experts; ++i)
        scores.push_back(uniform({seed, 1, 0, Purpose::sampling}, static_cast<uint64_t>(i)));
    // Draws come from the key, at a place far into a step.
    const Routed routed(DType::f32, logits_of(kind, tokens * size.experts, seed), size.groups, size.experts, rule, masked ? random_mask(tokens, seed) : std::vector<int>(), {},
                        uint64_t{1} << 33, bias, scores);
    check_tables(routed);
    Context cpu;
    const ops::RouteArgs expected = routed_in(cpu, routed.args);
    check_same(routed.args, expected);

    TestContext context;
    const Tensor d_gate = random(cpu, DType::f32, expected.row_gate.shape, 3), d_cpu = make(cpu, DType::f32, expected.logits.shape), d_device = make(context, DType::f32, expected.logits.shape);
    ops::route_backward(cpu, {expected, d_gate, 0.01, 0.001, d_cpu});
    ops::route_backward(context, {routed.args, d_gate, 0.01, 0.001, d_device});
    compare("route gradient, device and cpu", d_device, d_cpu, DType::f32, Kind::reduction);
}

}  // namespace

TEST_SUITE("ops/route_device") {
    TEST_CASE("decides as the CPU does") {
        uint64_t seed = 500;
        for (const Size& size : {Size{1, 1, 1}, Size{2, 64, 9}, Size{1, 65, 33}, Size{3, 257, 4}, Size{7, 20, 70}})
            for (const RouteRule& rule : all_rules(size.experts)) ++seed, check_against_cpu(size, rule, seed % 2, Logits::any, seed);
        RouteRule rule = gshard_rule(SecondPolicy::random);
        rule.k = 3, rule.prioritized = true, rule.density = Density::any, rule.second_threshold = 0.4;
        check_against_cpu({1, 1100, 6}, rule, true, Logits::any, 1);
        check_against_cpu({1, 1100, 6}, expert_rule(300), true, Logits::any, 2);
        check_against_cpu({1, 300, 5}, token_rule(5, true), false, Logits::far, 3);
        check_against_cpu({600, 1, 3}, token_rule(2), true, Logits::any, 4);
        check_against_cpu({2, 40, 300}, token_rule(2, true), false, Logits::any, 6);
    }

    TEST_CASE("ties everywhere") {
        for (const RouteRule& rule : all_rules(9)) check_against_cpu({2, 100, 9}, rule, true, Logits::whole, 7);
    }

    TEST_CASE("logits that are not numbers break nothing") {
        for (const RouteRule& rule : all_rules(5)) {
            std::vector<double> logits = random_logits(140 * 5, 8);
            for (size_t i = 0; i < logits.size(); i += 37) logits[i] = NAN;
            const Routed routed(DType::f32, logits, 2, 5, rule);
            CHECK(routed.rows() <= ops::max_rows(rule, 140, 2, 5));
            CHECK(routed.args.token_offsets.as<int32_t>()[140] == routed.rows());
        }
    }
}

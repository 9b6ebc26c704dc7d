// Routing against a literal implementation of the rule, against published numbers, and its gradients. Its properties are in route_properties_test.cpp;
// the recorded cases of the same operation are run by cli/parity_test.cpp.
#include "ops/route_fixture.hpp"

#include <cstring>

using namespace flanmoe;
using namespace flanmoe::test;

namespace {

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
                    for (int64_t i = 0; rule.kind != RouterKind::expert_choice && i < tokens * (rule.k - 1); ++i)
                        draws.push_back(uniform({seed, 3, 0, Purpose::sampling}, static_cast<uint64_t>(i)));
                    std::vector<double> bias, scores;  // every other time, and every other of the others
                    for (int64_t e = 0; rule.kind == RouterKind::token_choice && seed % 2 == 0 && e < size.experts; ++e)
                        bias.push_back(std::floor(64 * uniform({seed, 4, 0, Purpose::sampling}, static_cast<uint64_t>(e))) / 128 - 0.25);
                    for (int64_t i = 0; rule.kind == RouterKind::token_choice && seed % 4 == 1 && i < tokens * size.experts; ++i)
                        scores.push_back(uniform({seed, 5, 0, Purpose::sampling}, static_cast<uint64_t>(i)) - 0.5);
                    const ReferenceRoute expected = reference_route(logits, size.groups, size.experts, rule, mask, draws, bias, 7, scores);
                    TestContext context;
                    const Tensor weight = context.zeros(DType::f64, {tokens, size.experts}), statistics = context.zeros(DType::f64, {1, static_cast<int64_t>(RouteStatistic::count)});
                    std::copy(expected.weight.begin(), expected.weight.end(), weight.as<double>());
                    std::copy(expected.statistics.begin(), expected.statistics.end(), statistics.as<double>());
                    for (const DType type : {DType::f64, DType::f32}) {
                        CAPTURE(seed);
                        CAPTURE(size.experts);
                        CAPTURE(rule.k);
                        const Routed routed(type, logits, size.groups, size.experts, rule, mask, draws, 7, bias, scores);
                        check_tables(routed);
                        std::vector<double> weights = routed.weights();
                        for (int64_t e = 0; e < size.experts; ++e) CHECK(get(routed.args.demand, 0, e) == expected.demand[static_cast<size_t>(e)]);
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

    TEST_CASE("gradients of gates, balance and z") {
        uint64_t seed = 100;
        for (const Size& size : {Size{2, 13, 5}, Size{1, 9, 3}, Size{3, 4, 1}, Size{2, 70, 8}}) {
            const int64_t tokens = size.groups * size.group_tokens;
            for (const RouteRule& rule : all_rules(size.experts)) {
                for (const bool masked : {false, true}) {
                    CAPTURE(++seed);
                    std::vector<double> bias;  // every fourth time
                    for (int64_t e = 0; rule.kind == RouterKind::token_choice && seed % 4 == 0 && e < size.experts; ++e) bias.push_back(0.0625 * static_cast<double>(e % 5) - 0.125);
                    Routed routed(DType::f64, random_logits(tokens * size.experts, seed), size.groups, size.experts, rule, masked ? random_mask(tokens, seed) : std::vector<int>(), {}, 0, bias);
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

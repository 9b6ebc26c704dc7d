// A step's report: sums in order, the loss and what is refused, and the moves of balance biases.
#include "ops/report.hpp"

#include "ops/check.hpp"
#include "ops/optimizer.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

using namespace flanmoe;
using namespace flanmoe::test;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

Tensor numbers(Context& context, const std::vector<double>& values) { return context.upload(values, {static_cast<int64_t>(values.size())}); }

/// A report of `layers` layers with `experts` experts: every layer has 4 groups, balance 6 and z 2 + its number, of 10 tokens with nll 30 and z 50.
std::vector<double> report_of(int64_t layers, int64_t experts) {
    std::vector<double> values = {30, 50, 10, 3};
    for (int64_t i = 0; i < layers; ++i) {
        std::vector<double> layer(static_cast<size_t>(ops::route_sums + 2 * experts), 1.0);
        layer[static_cast<size_t>(ops::RouteStatistic::balance)] = 6, layer[static_cast<size_t>(ops::RouteStatistic::z)] = 2 + static_cast<double>(i);
        layer[static_cast<size_t>(ops::RouteStatistic::groups)] = 4;
        values.insert(values.end(), layer.begin(), layer.end());
    }
    return values;
}

struct Verdict {
    double loss, accepted;
};
Verdict verdict(const std::vector<double>& report, int64_t layers, int64_t experts, double squares, double largest_loss) {
    TestContext context;
    ops::StepVerdictArgs args{numbers(context, report), layers, experts, 0.5, 0.25, 2, numbers(context, {squares}), numbers(context, {largest_loss}), context.allocate(DType::f64, {1}),
                              context.allocate(DType::f64, {1})};
    ops::step_verdict(context, args);
    return {context.download<double>(args.loss)[0], context.download<double>(args.accepted)[0]};
}

}  // namespace

TEST_SUITE("ops/report") {
    TEST_CASE("parts are added one after the other, however many there are") {
        for (const int64_t count : {1, 3, 31, 32, 33, 70}) {
            TestContext context;
            std::vector<Tensor> parts;
            std::vector<double> expected, before;
            for (int64_t p = 0; p < count; ++p) {
                std::vector<double> values;
                for (int64_t i = 0; i < (p * 37) % 300; ++i) values.push_back(0.1 * static_cast<double>(p) + 1e-3 * static_cast<double>(i));
                for (const double v : values) before.push_back(1 / (1 + v)), expected.push_back(before.back() + v);
                parts.push_back(numbers(context, values));
            }
            const Tensor total = numbers(context, before);
            ops::add_sums(context, parts, total);
            CHECK(context.download<double>(total) == expected);
        }
    }
    TEST_CASE("the loss is the sum of its parts' means") {
        CHECK(verdict(report_of(0, 0), 0, 0, 9, infinity).loss == 3 + 0.5 * 5);
        CHECK(verdict(report_of(2, 3), 2, 3, 9, infinity).loss == doctest::Approx(3 + 0.5 * 5 + 0.25 * 1.5 + 2 * 0.625).epsilon(1e-15));
        std::vector<double> empty = report_of(1, 2);
        std::fill(empty.begin(), empty.end(), 0.0);  // no token counts, no group
        CHECK(verdict(empty, 1, 2, 0, infinity).loss == 0);
    }
    TEST_CASE("a step is accepted with the square of its norm, unless loss or norm is beyond its limit") {
        const std::vector<double> report = report_of(1, 2);
        const double loss = verdict(report, 1, 2, 9, infinity).loss;
        CHECK(verdict(report, 1, 2, 9, infinity).accepted == 9);
        CHECK(verdict(report, 1, 2, 9, loss).accepted == 9);
        CHECK(std::isnan(verdict(report, 1, 2, 9, std::nextafter(loss, 0)).accepted));
        for (const double squares : {static_cast<double>(NAN), infinity, ops::largest_gradient_norm * ops::largest_gradient_norm})
            CHECK(std::isnan(verdict(report, 1, 2, squares, infinity).accepted));
        for (const double bad : {static_cast<double>(NAN), infinity, -infinity}) {
            std::vector<double> broken = report;
            broken[0] = bad;
            CHECK(std::isnan(verdict(broken, 1, 2, 9, infinity).accepted));
        }
    }
    TEST_CASE("balance biases move by the rate towards the mean demand, and not after a refused step") {
        for (const DType type : {DType::f32, DType::f64}) {
            for (const int64_t experts : {1, 3, 130}) {
                TestContext context;
                std::vector<double> demand;
                for (int64_t e = 0; e < experts; ++e) demand.push_back(static_cast<double>((e * 7) % 5));
                double mean = 0;
                for (const double d : demand) mean += d / static_cast<double>(experts);
                for (const double accepted : {4.0, static_cast<double>(NAN)}) {
                    const Tensor bias = make(context, type, {experts});
                    for (int64_t e = 0; e < experts; ++e) set(bias, 0, e, 0.5 * static_cast<double>(e));
                    ops::balance_bias(context, {bias, numbers(context, demand), 0.125, numbers(context, {accepted})});
                    for (int64_t e = 0; e < experts; ++e) {
                        const double d = demand[static_cast<size_t>(e)], move = std::isnan(accepted) ? 0 : d < mean ? 0.125 : d > mean ? -0.125 : 0;
                        CHECK(get(bias, 0, e) == 0.5 * static_cast<double>(e) + move);
                    }
                }
            }
        }
    }
}

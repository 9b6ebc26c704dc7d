// Rotary positions: double against the formulas of ops/rotary.hpp written out, f32 and bf16 against double, gradients, and what makes them relative.
#include "ops/rotary.hpp"

#include "ops/check.hpp"

#include <doctest/doctest.h>

#include <cmath>

using namespace flanmoe;
using namespace flanmoe::test;

namespace {

struct Case {
    int64_t batch, positions, heads, size;
    double theta;
    int64_t first = 0, padding = 0;
};
const Case cases[] = {
    {1, 1, 1, 2, 1e4}, {2, 3, 1, 4, 1e6}, {3, 17, 3, 16, 1e4, 0, 5}, {1, 127, 2, 64, 1e6, 1000, 3}, {5, 33, 4, 6, 10.0, 7}, {2, 127, 5, 128, 5e5},
};

Tensor table_of(Context& context, const Case& c, DType type) {
    const Tensor table = context.allocate(accumulate_type(type), {c.positions + 2, c.size});
    ops::rotary_table(context, {c.theta, c.first, table});
    return table;
}

void literal(const Case& c, const Tensor& x, const Tensor& out) {
    const int64_t half = c.size / 2;
    for (int64_t r = 0; r < c.batch * c.positions; ++r)
        for (int64_t h = 0; h < c.heads; ++h)
            for (int64_t i = 0; i < half; ++i) {
                const double angle = static_cast<double>(c.first + r % c.positions) / std::pow(c.theta, 2.0 * static_cast<double>(i) / static_cast<double>(c.size));
                const double a = get(x, r, h * c.size + i), b = get(x, r, h * c.size + half + i);
                set(out, r, h * c.size + i, a * std::cos(angle) - b * std::sin(angle));
                set(out, r, h * c.size + half + i, b * std::cos(angle) + a * std::sin(angle));
            }
}

}  // namespace

TEST_SUITE("ops/rotary") {
    TEST_CASE("every type agrees with the definition") {
        for (const Case& c : cases) {
            CAPTURE(c.size);
            CAPTURE(c.positions);
            for (const DType type : float_types) {
                TestContext context;
                const Tensor x = random(context, type, {c.batch, c.positions, c.heads * c.size}, 1, 1, c.padding);
                const Tensor expected = context.allocate(DType::f64, x.shape);
                literal(c, x, expected);
                ops::rotary(context, {x, c.heads, table_of(context, c, type)});
                // In f64 the angles themselves are rounded: up to 1,000 positions cost 1,000 x 1e-16.
                compare("rotary", x, expected, type, type == DType::f64 ? Kind::chain : Kind::elementwise);
            }
        }
    }

    TEST_CASE("gradients, and turning back") {
        for (const Case& c : cases) {
            TestContext context;
            const Tensor x = random(context, DType::f64, {c.batch, c.positions, c.heads * c.size}, 1), table = table_of(context, c, DType::f64);
            const Tensor weights = random(context, DType::f64, x.shape, 2), gradient = convert(context, weights, DType::f64);
            ops::rotary(context, {gradient, c.heads, table, true});
            const auto loss = [&] {
                Arena::Scope scope(context.arena);
                const Tensor turned = convert(context, x, DType::f64);
                ops::rotary(context, {turned, c.heads, table});
                return dot(turned, weights);
            };
            gradient_check("rotary", loss, {{x, gradient}});
            const Tensor back = convert(context, x, DType::f64);
            ops::rotary(context, {back, c.heads, table});
            ops::rotary(context, {back, c.heads, table, true});
            compare("rotary and back", back, x, DType::f64, Kind::elementwise);
        }
    }

    TEST_CASE("products depend on differences of positions alone") {
        TestContext context;
        constexpr int64_t size = 16;
        const Tensor q = random(context, DType::f64, {1, 1, size}, 1), k = random(context, DType::f64, {1, 1, size}, 2);
        const auto product = [&](int64_t i, int64_t j) {
            const Tensor a = convert(context, q, DType::f64), b = convert(context, k, DType::f64), table = context.allocate(DType::f64, {1, size});
            ops::rotary_table(context, {1e4, i, table});
            ops::rotary(context, {a, 1, table});
            ops::rotary_table(context, {1e4, j, table});
            ops::rotary(context, {b, 1, table});
            return dot(a, b);
        };
        for (const int64_t shift : {1, 17, 4000}) CHECK(product(9 + shift, 4 + shift) == doctest::Approx(product(9, 4)).epsilon(1e-11));
        CHECK(std::abs(product(9, 4) - product(9, 5)) > 1e-3);
    }

    TEST_CASE("arguments that do not fit are refused") {
        TestContext context;
        const Tensor x = random(context, DType::f32, {2, 5, 12}, 1), table = table_of(context, {2, 5, 3, 4, 1e4}, DType::f32);
        CHECK_NOTHROW(ops::rotary(context, {x, 3, table}));
        CHECK_THROWS_AS(ops::rotary(context, {x, 4, table}), Error);                      // heads of odd width
        CHECK_THROWS_AS(ops::rotary(context, {x, 1, table}), Error);                      // a table of another width
        CHECK_THROWS_AS(ops::rotary(context, {x, 3, table.slice_rows(0, 4)}), Error);     // too few positions
        CHECK_THROWS_AS(ops::rotary_table(context, {0.0, 0, table}), Error);
    }
}

// Gather and combine against literal loops, their gradients, aliasing and threads. Tables come from real routing decisions.
#include "ops/dispatch.hpp"

#include "ops/check.hpp"
#include "ops/route.hpp"

#include <doctest/doctest.h>

using namespace flanmoe;
using namespace flanmoe::test;

namespace {

struct Case {
    int64_t tokens, width, experts, k;
    int64_t capacity;  ///< 0 = dropless
    bool empty_expert;
    int64_t padding = 1;  ///< a unit of elements between rows; 8: they stay aligned to 16 bytes
};
const std::vector<Case> cases = {{1, 1, 1, 1, 0, false}, {17, 3, 3, 2, 0, false}, {64, 128, 4, 1, 5, false}, {127, 17, 5, 3, 20, true}, {40, 515, 8, 2, 4, true},
                                 {64, 128, 4, 1, 5, false, 8}, {30, 515, 8, 2, 4, true, 8}, {33, 776, 3, 3, 0, false, 8}};

struct Setup {
    TestContext context;
    ops::RouteArgs route;
    ops::RowTables tables;
    int64_t rows = 0, used = 0;

    explicit Setup(const Case& c) {
        route.logits = random(context, DType::f64, {c.tokens, c.experts}, 3, 2);
        for (int64_t n = 0; c.empty_expert && n < c.tokens; ++n) set(route.logits, n, 1, -50);
        route.rule.k = c.k, route.rule.dropless = c.capacity == 0, route.rule.fixed_capacity = c.capacity;
        ops::allocate_route_outputs(context, route);
        ops::route(context, route);
        tables = {route.offsets, route.row_token, route.token_offsets, route.token_rows};
        rows = route.row_token.elements(), used = route.offsets.as<int32_t>()[c.experts];
    }
    int32_t token(int64_t row) const { return route.row_token.as<int32_t>()[row]; }
    /// Gates in the accumulation type of `type`; 0 beyond the rows in use.
    Tensor gates(DType type) {
        const Tensor gate = context.zeros(accumulate_type(type), {rows});
        for (int64_t r = 0; r < used; ++r) set(gate, 0, r, static_cast<float>(get(route.row_gate, 0, r)));
        return gate;
    }
    Tensor used_rows(const Tensor& t) const { return t.slice_rows(0, used); }
};

/// out[n] = sum of weight[r] in[r] over the rows of token n, in double.
Tensor naive_sum(Setup& s, const Tensor& in, const Tensor& weight, int64_t tokens) {
    const Tensor out = s.context.zeros(DType::f64, {tokens, in.cols()});
    for (int64_t r = 0; r < s.used; ++r)
        for (int64_t c = 0; c < in.cols(); ++c) set(out, s.token(r), c, get(out, s.token(r), c) + (weight ? get(weight, 0, r) : 1.0) * get(in, r, c));
    return out;
}

}  // namespace

TEST_SUITE("ops/dispatch") {
    TEST_CASE("equals literal loops in every type") {
        for (const Case& c : cases) {
            for (const DType type : float_types) {
                CAPTURE(c.tokens);
                Setup s(c);
                const Tensor x = random(s.context, type, {c.tokens, c.width}, 1, 1, 5 * c.padding), y = make(s.context, type, {s.rows, c.width}, 3 * c.padding);
                ops::gather_rows(s.context, {x, s.tables, y});
                bool copied = true;
                for (int64_t r = 0; r < s.used; ++r)
                    for (int64_t i = 0; i < c.width; ++i) copied &= get(y, r, i) == get(x, s.token(r), i);
                CHECK(copied);
                CHECK(padding_untouched(y));
                for (int64_t r = s.used; r < s.rows; ++r) CHECK(std::isnan(get(y, r, 0)));  // beyond the rows in use nothing is written

                const Tensor d_y = random(s.context, type, {s.rows, c.width}, 2, 1, c.padding), d_x = make(s.context, type, {c.tokens, c.width}, 2 * c.padding);
                ops::gather_rows_backward(s.context, {s.tables, d_y, d_x});
                compare("gather_rows_backward", d_x, naive_sum(s, d_y, {}, c.tokens), type, Kind::elementwise);

                const Tensor gate = s.gates(type), out = make(s.context, type, {c.tokens, c.width}, 4 * c.padding);
                ops::combine(s.context, {d_y, gate, s.tables, out});
                compare("combine", out, naive_sum(s, d_y, gate, c.tokens), type, Kind::elementwise);

                const Tensor d_out = random(s.context, type, {c.tokens, c.width}, 9), d_in = make(s.context, type, {s.rows, c.width}), d_gate = make(s.context, gate.dtype, {s.rows});
                ops::combine_backward(s.context, {d_y, gate, s.tables, d_out, d_in, d_gate});
                const Tensor expected = make(s.context, DType::f64, {s.rows, c.width}), expected_gate = make(s.context, DType::f64, {s.rows});
                for (int64_t r = 0; r < s.used; ++r) {
                    double sum = 0;
                    for (int64_t i = 0; i < c.width; ++i) {
                        const double g = get(d_out, s.token(r), i);
                        sum += get(d_y, r, i) * g;
                        set(expected, r, i, get(gate, 0, r) * g);
                    }
                    set(expected_gate, 0, r, sum);
                }
                compare("combine_backward", s.used_rows(d_in), s.used_rows(expected), type, Kind::elementwise);
                const auto column = [&](const Tensor& t) { return Tensor(t.data, t.dtype, {s.used, 1}); };
                compare("combine_backward gate", column(d_gate), column(expected_gate), type == DType::bf16 ? DType::f32 : type, Kind::reduction);

                // In place: the gradient may overwrite the expert's answers.
                const Tensor same = make(s.context, type, {s.rows, c.width}), same_gate = make(s.context, gate.dtype, {s.rows});
                for (int64_t r = 0; r < s.used; ++r)
                    for (int64_t i = 0; i < c.width; ++i) set(same, r, i, get(d_y, r, i));
                ops::combine_backward(s.context, {same, gate, s.tables, d_out, same, same_gate});
                CHECK(same_bits(s.used_rows(same), s.used_rows(d_in)));
                CHECK(same_bits(column(same_gate), column(d_gate)));
            }
        }
    }

    TEST_CASE("gradients") {
        for (const Case& c : cases) {
            Setup s(c);
            const Tensor x = random(s.context, DType::f64, {c.tokens, c.width}, 1), rows = s.context.zeros(DType::f64, {s.rows, c.width});
            const Tensor cotangent = s.context.zeros(DType::f64, {s.rows, c.width}), d_x = make(s.context, DType::f64, {c.tokens, c.width});
            fill(s.used_rows(cotangent), 2);
            ops::gather_rows_backward(s.context, {s.tables, cotangent, d_x});
            gradient_check("gather_rows", [&] {
                ops::gather_rows(s.context, {x, s.tables, rows});
                return dot(rows, cotangent);
            }, {{x, d_x}});

            const Tensor y = random(s.context, DType::f64, {s.rows, c.width}, 4), gate = s.gates(DType::f64), out = make(s.context, DType::f64, {c.tokens, c.width});
            const Tensor d_out = random(s.context, DType::f64, {c.tokens, c.width}, 5), d_y = s.context.zeros(DType::f64, {s.rows, c.width}), d_gate = s.context.zeros(DType::f64, {s.rows});
            ops::combine_backward(s.context, {y, gate, s.tables, d_out, d_y, d_gate});
            gradient_check("combine", [&] {
                ops::combine(s.context, {y, gate, s.tables, out});
                return dot(out, d_out);
            }, {{y, d_y}, {gate, d_gate}});
        }
    }

    TEST_CASE("bits do not depend on the number of threads") {
        const Case c{500, 300, 8, 2, 0, false};
        for (const DType type : float_types) {
            Setup s(c);
            const Tensor y = random(s.context, type, {s.rows, c.width}, 4), d_out = random(s.context, type, {c.tokens, c.width}, 5), gate = s.gates(type);
            Tensor out[2], d_y[2], d_gate[2], d_x[2];
            for (const int i : {0, 1}) {
                const Threads threads(i + 1);
                out[i] = make(s.context, type, {c.tokens, c.width}), d_x[i] = make(s.context, type, {c.tokens, c.width});
                d_y[i] = make(s.context, type, {s.rows, c.width}), d_gate[i] = make(s.context, gate.dtype, {s.rows});
                ops::combine(s.context, {y, gate, s.tables, out[i]});
                ops::combine_backward(s.context, {y, gate, s.tables, d_out, d_y[i], d_gate[i]});
                ops::gather_rows_backward(s.context, {s.tables, y, d_x[i]});
            }
            CHECK(same_bits(out[0], out[1]));
            CHECK(same_bits(d_y[0], d_y[1]));
            CHECK(same_bits(d_gate[0], d_gate[1]));
            CHECK(same_bits(d_x[0], d_x[1]));
        }
    }

    TEST_CASE("a table of another size is refused") {
        Setup s(cases[1]);
        const Tensor x = random(s.context, DType::f32, {16, 3}, 1), y = make(s.context, DType::f32, {s.rows, 3});
        CHECK_THROWS_AS(ops::gather_rows(s.context, {x, s.tables, y}), Error);
    }
}

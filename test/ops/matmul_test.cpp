#include "ops/matmul.hpp"

#include "device.hpp"
#include "ops/check.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <vector>

using namespace flanmoe;
using namespace flanmoe::test;

namespace {

struct Shape3 {
    int64_t m, n, k, padding;
};
// 257 and 300 cross the panels of the double kernel; 130 rows of 70 are shared by threads.
const Shape3 dense_cases[] = {{1, 1, 1, 0}, {3, 17, 1, 2}, {1, 127, 17, 0}, {17, 1, 3, 5}, {127, 3, 127, 0}, {64, 48, 32, 0}, {130, 257, 300, 3}, {130, 70, 520, 0}};

// op(a)[i, p], whatever the storage.
double element(const Tensor& t, bool transposed, int64_t i, int64_t p) { return transposed ? get(t, p, i) : get(t, i, p); }

void naive_matmul(const ops::MatmulArgs& args) {
    const int64_t k = args.transpose_a ? args.a.rows() : args.a.cols();
    for (int64_t i = 0; i < args.out.rows(); ++i)
        for (int64_t j = 0; j < args.out.cols(); ++j) {
            double sum = args.accumulate ? get(args.out, i, j) : args.bias.data ? get(args.bias, 0, j) : 0;
            for (int64_t p = 0; p < k; ++p) sum += element(args.a, args.transpose_a, i, p) * element(args.b, args.transpose_b, p, j);
            set(args.out, i, j, sum);
        }
}

enum class Added { nothing, out, bias };

ops::MatmulArgs dense_args(Context& context, const Shape3& s, bool ta, bool tb, Added added, DType in, DType out) {
    ops::MatmulArgs args{.a = random(context, in, ta ? Shape{s.k, s.m} : Shape{s.m, s.k}, 1, 1, s.padding),
                         .b = random(context, in, tb ? Shape{s.n, s.k} : Shape{s.k, s.n}, 2, 1, s.padding),
                         .out = make(context, out, {s.m, s.n}, s.padding),
                         .transpose_a = ta,
                         .transpose_b = tb,
                         .accumulate = added == Added::out};
    if (added == Added::out) fill(args.out, 3);
    if (added == Added::bias) args.bias = random(context, out, {s.n}, 4);
    return args;
}

// Rows of each expert; rows beyond their sum exist and must stay untouched.
struct GroupCase {
    std::vector<int32_t> rows;
    int64_t m, n, padding;  // widths of a and b (weight product) or k and n (row product)
};
const GroupCase group_cases[] = {{{1}, 1, 1, 0},
                                 {{0, 0, 0}, 3, 5, 0},
                                 {{3, 0, 17, 1}, 17, 3, 2},
                                 {{0, 127, 0, 0}, 64, 33, 0},
                                 {{5, 64, 65, 0, 130, 2, 31, 7}, 48, 127, 5},
                                 {{400, 3, 0, 90}, 128, 96, 0},
                                 // Tiles of a GPU: 64 and 128 rows, one more and one less; blocks of 16; many experts; rows aligned to 16 bytes.
                                 {{127, 128, 129, 0, 64, 65, 63}, 40, 136, 8},
                                 {{16, 17, 0, 130}, 136, 72, 0},
                                 {{70, 0, 130, 5}, 27, 131, 5}, {{70, 0, 130, 5}, 35, 259, 5},  // odd rows that begin at multiples of 16 bytes
                                 {{66, 3, 0, 200}, 264, 136, 0},  // several steps of every tile's depth
                                 {{1, 0, 2, 0, 0, 1, 3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 2}, 24, 8, 0}};

Tensor offsets_of(Context& context, const GroupCase& c) {
    Tensor offsets = context.allocate(DType::i32, {static_cast<int64_t>(c.rows.size()) + 1});
    auto* o = offsets.as<int32_t>();
    o[0] = 0;
    for (size_t e = 0; e < c.rows.size(); ++e) o[e + 1] = o[e] + c.rows[e];
    return offsets;
}
int64_t experts_of(const GroupCase& c) { return static_cast<int64_t>(c.rows.size()); }
int64_t total_rows(const Tensor& offsets) { return offsets.as<int32_t>()[offsets.elements() - 1]; }

// Expert e's matrix inside a stack of them.
Tensor expert(const Tensor& stack, int64_t e, int64_t stride) {
    Tensor t = stack;
    t.data = static_cast<char*>(stack.data) + e * stride * size_of(stack.dtype);
    return t;
}

constexpr int64_t spare_rows = 2;

ops::GroupedMatmulArgs grouped_args(Context& context, const GroupCase& c, bool tb, DType in, DType out) {
    const int64_t k = c.m, n = c.n;
    Tensor offsets = offsets_of(context, c);
    const int64_t rows = total_rows(offsets) + spare_rows;
    Tensor stack = random(context, in, {experts_of(c) * (tb ? n : k), tb ? k : n}, 2, 1, c.padding);
    Tensor a = random(context, in, {rows, k}, 1, 1, c.padding);
    for (int64_t r = total_rows(offsets); r < rows; ++r)
        for (int64_t j = 0; j < k; ++j) set(a, r, j, NAN);  // not to be read
    return {.a = a,
            .b = stack.slice_rows(0, tb ? n : k),
            .b_stride = (tb ? n : k) * stack.ld,
            .offsets = offsets,
            .out = make(context, out, {rows, n}, c.padding),
            .transpose_b = tb};
}

ops::GroupedMatmulWeightArgs weight_args(Context& context, const GroupCase& c, bool accumulate, DType in, DType out) {
    Tensor offsets = offsets_of(context, c);
    const int64_t rows = total_rows(offsets) + spare_rows;
    Tensor stack = make(context, out, {experts_of(c) * c.m, c.n}, c.padding);
    if (accumulate) fill(stack, 3);
    return {.a = random(context, in, {rows, c.m}, 1, 1, c.padding),
            .b = random(context, in, {rows, c.n}, 2, 1, c.padding),
            .offsets = offsets,
            .out = stack.slice_rows(0, c.m),
            .out_stride = c.m * stack.ld,
            .accumulate = accumulate};
}
Tensor whole_stack(const ops::GroupedMatmulWeightArgs& args) {
    return Tensor(args.out.data, args.out.dtype, {(args.offsets.elements() - 1) * args.out.rows(), args.out.cols()}, args.out.ld);
}

void naive_grouped(const ops::GroupedMatmulArgs& args) {
    const int32_t* o = args.offsets.as<int32_t>();
    for (int64_t e = 0; e + 1 < args.offsets.elements(); ++e)
        naive_matmul({.a = args.a.slice_rows(o[e], o[e + 1] - o[e]),
                      .b = expert(args.b, e, args.b_stride),
                      .out = args.out.slice_rows(o[e], o[e + 1] - o[e]),
                      .transpose_b = args.transpose_b});
}
void naive_weight(const ops::GroupedMatmulWeightArgs& args) {
    const int32_t* o = args.offsets.as<int32_t>();
    for (int64_t e = 0; e + 1 < args.offsets.elements(); ++e)
        naive_matmul({.a = args.a.slice_rows(o[e], o[e + 1] - o[e]),
                      .b = args.b.slice_rows(o[e], o[e + 1] - o[e]),
                      .out = expert(args.out, e, args.out_stride),
                      .transpose_a = true,
                      .accumulate = args.accumulate});
}

struct Types {
    DType in, out;
};
const Types all_types[] = {{DType::f64, DType::f64}, {DType::f32, DType::f32}, {DType::bf16, DType::bf16}, {DType::bf16, DType::f32}};

// A bf16 product that ends in float has only the error of float sums: its operands are exact.
DType tolerance_type(const Types& t) { return t.out == DType::bf16 ? DType::bf16 : t.in == DType::f64 ? DType::f64 : DType::f32; }

}  // namespace

TEST_SUITE("ops/matmul") {
    TEST_CASE("dense products of every type and transposition, added to what was there, to a bias, to nothing") {
        TestContext context;
        for (const Shape3& s : dense_cases)
            for (int flags = 0; flags < 4; ++flags)
                for (const Added added : {Added::nothing, Added::out, Added::bias})
                    for (const Types& t : all_types) {
                        Arena::Scope scope(context.arena);
                        CAPTURE(s.m);
                        CAPTURE(s.n);
                        CAPTURE(s.k);
                        CAPTURE(flags);
                        const bool ta = flags & 1, tb = flags & 2;
                        const auto expected = dense_args(context, s, ta, tb, added, DType::f64, DType::f64);
                        const auto args = dense_args(context, s, ta, tb, added, t.in, t.out);
                        naive_matmul(expected);
                        ops::matmul(context, args);
                        compare("matmul", args.out, expected.out, tolerance_type(t), Kind::matmul);
                    }
    }

    TEST_CASE("a bias that does not fit is refused") {
        TestContext context;
        auto args = dense_args(context, {2, 5, 3, 0}, false, true, Added::bias, DType::f32, DType::f32);
        args.accumulate = true;
        CHECK_THROWS_AS(ops::matmul(context, args), Error);
        args.accumulate = false, args.bias = random(context, DType::f32, {4}, 1);
        CHECK_THROWS_AS(ops::matmul(context, args), Error);
        args.bias = random(context, DType::bf16, {5}, 1);
        CHECK_THROWS_AS(ops::matmul(context, args), Error);
        args = dense_args(context, {2, 5, 0, 0}, false, true, Added::bias, DType::f32, DType::f32);
        CHECK_THROWS_AS(ops::matmul(context, args), Error);
    }

    TEST_CASE("an empty inner dimension gives zeros, or what was there") {
        TestContext context;
        for (DType type : float_types) {
            const auto args = dense_args(context, {3, 4, 0, 1}, true, false, Added::nothing, type, type);
            ops::matmul(context, args);
            CHECK(dot(args.out, args.out) == 0);
            const auto added = dense_args(context, {3, 4, 0, 1}, true, false, Added::out, type, type);
            const Tensor before = convert(context, added.out, type);
            ops::matmul(context, added);
            CHECK(same_bits(added.out, before));
        }
    }

    TEST_CASE("counts floating-point operations") {
        TestContext context;
        ops::matmul(context, dense_args(context, {3, 5, 7, 0}, false, true, Added::nothing, DType::f32, DType::f32));
        CHECK(context.flops == 2 * 3 * 5 * 7);
        const auto args = grouped_args(context, {{3, 0, 17, 1}, 17, 3, 2}, true, DType::f32, DType::f32);
        context.flops = 0;
        ops::grouped_matmul(context, args);
        const int64_t rows = test_device() == Device::cpu ? 21 : 21 + spare_rows;  // how many rows are in use is only known on the GPU itself
        CHECK(context.flops == 2 * rows * 17 * 3);
    }

    TEST_CASE("grouped products against one naive product per expert") {
        TestContext context;
        for (const GroupCase& c : group_cases)
            for (bool tb : {false, true})
                for (const Types& t : all_types) {
                    Arena::Scope scope(context.arena);
                    CAPTURE(c.rows.size());
                    CAPTURE(tb);
                    const auto expected = grouped_args(context, c, tb, DType::f64, DType::f64);
                    naive_grouped(expected);
                    const auto args = grouped_args(context, c, tb, t.in, t.out);
                    ops::grouped_matmul(context, args);
                    const int64_t rows = total_rows(args.offsets);
                    compare("grouped_matmul", args.out.slice_rows(0, rows), expected.out.slice_rows(0, rows), tolerance_type(t), Kind::matmul);
                    const Tensor spare = args.out.slice_rows(rows, spare_rows), blank = make(context, t.out, {spare_rows, c.n});
                    CHECK(same_bits(spare, blank));
                }
    }

    TEST_CASE("grouped weight products against one naive product per expert") {
        TestContext context;
        for (const GroupCase& c : group_cases)
            for (bool accumulate : {false, true})
                for (const Types& t : all_types) {
                    Arena::Scope scope(context.arena);
                    CAPTURE(c.rows.size());
                    CAPTURE(accumulate);
                    const auto expected = weight_args(context, c, accumulate, DType::f64, DType::f64);
                    naive_weight(expected);
                    const auto args = weight_args(context, c, accumulate, t.in, t.out);
                    ops::grouped_matmul_weight(context, args);
                    compare("grouped_matmul_weight", whole_stack(args), whole_stack(expected), tolerance_type(t), Kind::matmul);
                }
    }

    TEST_CASE("the products that the backward uses are the gradients") {
        TestContext context;
        const Tensor x = random(context, DType::f64, {127, 17}, 1), w = random(context, DType::f64, {33, 17}, 2), dy = random(context, DType::f64, {127, 33}, 3);
        const Tensor dx = make(context, DType::f64, {127, 17}), dw = context.zeros(DType::f64, {33, 17});
        ops::matmul(context, {.a = dy, .b = w, .out = dx});
        ops::matmul(context, {.a = dy, .b = x, .out = dw, .transpose_a = true, .accumulate = true});
        const auto loss = [&] {
            Arena::Scope scope(context.arena);
            const Tensor y = make(context, DType::f64, {127, 33});
            ops::matmul(context, {.a = x, .b = w, .out = y, .transpose_b = true});
            return dot(y, dy);
        };
        gradient_check("matmul", loss, {{x, dx}, {w, dw}});
    }

    TEST_CASE("the grouped products that the backward uses are the gradients") {
        TestContext context;
        const GroupCase c{{5, 0, 64, 31}, 12, 20, 0};
        const auto forward = grouped_args(context, c, true, DType::f64, DType::f64);
        const int64_t rows = total_rows(forward.offsets);
        const Tensor stack(forward.b.data, DType::f64, {4 * 20, 12});
        const Tensor dy = random(context, DType::f64, {rows + spare_rows, 20}, 3), dx = make(context, DType::f64, {rows + spare_rows, 12});
        const Tensor dw = context.zeros(DType::f64, {4 * 20, 12});
        ops::grouped_matmul(context, {.a = dy, .b = forward.b, .b_stride = forward.b_stride, .offsets = forward.offsets, .out = dx});
        ops::grouped_matmul_weight(
            context, {.a = dy, .b = forward.a, .offsets = forward.offsets, .out = dw.slice_rows(0, 20), .out_stride = 20 * 12, .accumulate = true});
        const auto loss = [&] {
            ops::grouped_matmul(context, forward);
            return dot(forward.out.slice_rows(0, rows), dy);
        };
        gradient_check("grouped_matmul", loss, {{forward.a.slice_rows(0, rows), dx.slice_rows(0, rows)}, {stack, dw}});
    }

    TEST_CASE("double results do not depend on the number of threads") {
        TestContext context;
        const GroupCase c{{150, 0, 64, 33}, 48, 200, 0};
        for (bool tb : {false, true}) {
            const auto one = grouped_args(context, c, tb, DType::f64, DType::f64), two = grouped_args(context, c, tb, DType::f64, DType::f64);
            const auto weight_one = weight_args(context, c, tb, DType::f64, DType::f64), weight_two = weight_args(context, c, tb, DType::f64, DType::f64);
            const auto dense_one = dense_args(context, {130, 257, 300, 0}, tb, tb, tb ? Added::out : Added::nothing, DType::f64, DType::f64);
            const auto dense_two = dense_args(context, {130, 257, 300, 0}, tb, tb, tb ? Added::out : Added::nothing, DType::f64, DType::f64);
            {
                Threads threads(1);
                ops::grouped_matmul(context, one), ops::grouped_matmul_weight(context, weight_one), ops::matmul(context, dense_one);
            }
            {
                Threads threads(3);
                ops::grouped_matmul(context, two), ops::grouped_matmul_weight(context, weight_two), ops::matmul(context, dense_two);
            }
            CHECK(same_bits(one.out, two.out));
            CHECK(same_bits(whole_stack(weight_one), whole_stack(weight_two)));
            CHECK(same_bits(dense_one.out, dense_two.out));
        }
    }

    TEST_CASE("repeated products, and products inside a parallel region, have the same bits") {
        TestContext context;
        const GroupCase c{{150, 0, 64, 33}, 48, 200, 0};
        for (const Types& t : all_types) {
            const auto first = grouped_args(context, c, true, t.in, t.out);
            const auto weight = weight_args(context, c, false, t.in, t.out);
            const auto dense = dense_args(context, {130, 257, 300, 0}, false, true, Added::nothing, t.in, t.out);
            const auto run = [&] { ops::grouped_matmul(context, first), ops::grouped_matmul_weight(context, weight), ops::matmul(context, dense); };
            run();
            const Tensor a = convert(context, first.out, t.out), b = convert(context, whole_stack(weight), t.out), d = convert(context, dense.out, t.out);
            for (int i = 0; i < 5; ++i) {
                run();
                CHECK(same_bits(a, first.out));
                CHECK(same_bits(b, whole_stack(weight)));
                CHECK(same_bits(d, dense.out));
            }
            // Four threads at once, each its own result; compared with one another.
            Tensor results[4];
            for (Tensor& r : results) r = make(context, t.out, {130, 257});
#pragma omp parallel for num_threads(4) schedule(static)
            for (int i = 0; i < 4; ++i) {
                Context own;
                ops::MatmulArgs args = dense;
                args.out = results[i];
                ops::matmul(own, args);
            }
            for (const Tensor& r : results) CHECK(same_bits(r, results[0]));
        }
    }

    TEST_CASE("wrong shapes and types are refused") {
        TestContext context;
        auto args = dense_args(context, {3, 4, 5, 0}, false, false, Added::nothing, DType::f32, DType::f32);
        args.transpose_b = true;
        CHECK_THROWS_AS(ops::matmul(context, args), Error);
        CHECK_THROWS_AS(ops::matmul(context, dense_args(context, {3, 4, 5, 0}, false, false, Added::nothing, DType::f32, DType::bf16)), Error);
    }
}

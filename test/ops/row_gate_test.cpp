// Gated rows: double against the definition, f32 and bf16 against double, gradients.
#include "ops/row_gate.hpp"

#include "ops/check.hpp"

#include <doctest/doctest.h>

#include <cmath>

using namespace flanmoe;
using namespace flanmoe::test;

namespace {

// Rows, columns, elements between rows; with 8 of them rows are aligned to 16 bytes.
constexpr int64_t sizes[][3] = {{1, 1, 1}, {3, 17, 1}, {17, 127, 1}, {127, 3, 1}, {40, 128, 1}, {0, 5, 1}, {40, 128, 8}, {9, 520, 8}, {21, 1028, 4}};

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

struct Operands {
    Tensor in, logit, out, d_out, d_in, d_logit;
    Operands(Context& context, int64_t rows, int64_t cols, int64_t padding, DType type)
        : in(random(context, type, {rows, cols}, 1, 1, 2 * padding)), logit(random(context, accumulate_type(type), {rows, 1}, 2, 4)),
          out(random(context, type, {rows, cols}, 3, 1, padding)), d_out(random(context, type, {rows, cols}, 4)), d_in(make(context, type, {rows, cols}, padding)),
          d_logit(make(context, type, {rows, 1})) {}
    void backward(Context& context) const { ops::row_gate_backward(context, {in, logit, d_out, d_in, d_logit}); }
};

}  // namespace

TEST_SUITE("ops/row_gate") {
    TEST_CASE("every type agrees with the definition") {
        for (const auto& [rows, cols, padding] : sizes)
            for (const DType type : float_types) {
                CAPTURE(rows);
                TestContext context;
                const Operands o(context, rows, cols, padding, type);
                const Tensor out = context.allocate(DType::f64, {rows, cols}), d_in = context.allocate(DType::f64, {rows, cols}), d_logit = context.allocate(DType::f64, {rows, 1});
                for (int64_t r = 0; r < rows; ++r) {
                    const double s = sigmoid(get(o.logit, r, 0));
                    double product = 0;
                    for (int64_t c = 0; c < cols; ++c) {
                        set(out, r, c, get(o.out, r, c) + s * get(o.in, r, c));
                        set(d_in, r, c, s * get(o.d_out, r, c));
                        product += get(o.in, r, c) * get(o.d_out, r, c);
                    }
                    set(d_logit, r, 0, s * (1 - s) * product);
                }
                o.backward(context);
                compare("row gate d_in", o.d_in, d_in, type, Kind::elementwise);
                compare("row gate d_logit", o.d_logit, d_logit, type, Kind::reduction);
                ops::row_gate(context, {o.in, o.logit, o.out});
                compare("row gate", o.out, out, type, Kind::elementwise);
            }
    }

    TEST_CASE("gradients, also in place") {
        for (const auto& [rows, cols, padding] : sizes) {
            TestContext context;
            Operands o(context, rows, cols, padding, DType::f64);
            o.backward(context);
            const auto loss = [&] {
                Arena::Scope scope(context.arena);
                const Tensor out = context.zeros(DType::f64, o.in.shape);
                ops::row_gate(context, {o.in, o.logit, out});
                return dot(out, o.d_out);
            };
            gradient_check("row gate", loss, {{o.in, o.d_in}, {o.logit, o.d_logit}});
            const Tensor before = convert(context, o.d_logit, DType::f64);
            ops::row_gate_backward(context, {o.in, o.logit, o.d_out, o.in, o.d_logit});
            CHECK(same_bits(convert(context, o.in, DType::f64), convert(context, o.d_in, DType::f64)));
            CHECK(same_bits(before, o.d_logit));
        }
    }

    TEST_CASE("arguments that do not fit are refused") {
        TestContext context;
        const Operands o(context, 4, 8, 1, DType::bf16);
        CHECK_THROWS_AS(ops::row_gate(context, {o.in, o.d_logit, o.out}), Error);  // a logit in bf16
        CHECK_THROWS_AS(ops::row_gate(context, {o.in, o.logit, o.logit}), Error);
    }
}

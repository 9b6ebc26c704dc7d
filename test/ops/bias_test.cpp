// Gradients of bias vectors: against the definition in every type, gradients, bits that do not depend on threads.
#include "ops/bias.hpp"

#include "ops/check.hpp"

#include <doctest/doctest.h>

using namespace flanmoe;
using namespace flanmoe::test;

namespace {
// Rows, columns, elements between rows; the last three are rows aligned to 16 bytes.
constexpr int64_t sizes[][3] = {{1, 1, 3}, {3, 17, 3}, {17, 127, 3}, {127, 3, 3}, {200, 64, 3}, {1000, 33, 3}, {0, 5, 3}, {513, 264, 8}, {7, 1032, 0}, {3000, 8, 8}};
}

TEST_SUITE("ops/bias") {
    TEST_CASE("the gradient agrees with the definition in every type") {
        for (const auto& [rows, cols, padding] : sizes)
            for (const DType type : float_types) {
                TestContext context;
                const Tensor x = random(context, type, {rows, cols}, 1, 1, padding), sum = context.allocate(DType::f64, {1, cols});
                const Tensor d_bias = random(context, accumulate_type(type), {cols}, 3);
                for (int64_t c = 0; c < cols; ++c) {
                    double total = get(d_bias, 0, c);
                    for (int64_t r = 0; r < rows; ++r) total += get(x, r, c);
                    set(sum, 0, c, total);
                }
                ops::bias_backward(context, {x, d_bias});
                compare("bias d_bias", d_bias.view({1, cols}), sum, accumulate_type(type), Kind::reduction);
            }
    }

    TEST_CASE("the gradient has the same bits on any number of threads") {
        TestContext context;
        const Tensor d = random(context, DType::f32, {1000, 33}, 1), one = context.zeros(DType::f32, {33}), many = context.zeros(DType::f32, {33});
        {
            Threads threads(1);
            ops::bias_backward(context, {d, one});
        }
        Threads threads(3);
        ops::bias_backward(context, {d, many});
        CHECK(same_bits(one, many));
    }

    TEST_CASE("arguments that do not fit are refused") {
        TestContext context;
        const Tensor x = random(context, DType::f32, {2, 5}, 1), narrow = random(context, DType::f32, {4}, 1), half = random(context, DType::bf16, {5}, 1);
        CHECK_THROWS_AS(ops::bias_backward(context, {x, half}), Error);
        CHECK_THROWS_AS(ops::bias_backward(context, {x, narrow}), Error);
    }
}

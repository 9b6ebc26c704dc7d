// Activations: double against the formulas of ops/activation.hpp written out, f32 and bf16 against double, gradients.
#include "ops/activation.hpp"

#include "device.hpp"
#include "ops/check.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <numbers>

using namespace flanmoe;
using namespace flanmoe::test;

namespace {

constexpr Activation kinds[] = {Activation::relu, Activation::gelu_tanh, Activation::gelu_erf, Activation::silu};

struct Case {
    int64_t rows, cols;
    bool gated;
    float rate;
    bool by_expert;       ///< with row ids and a limit of rows
    int64_t padding = 3;  ///< of rows; 8: they stay aligned to 16 bytes
};
const Case cases[] = {{1, 1, false, 0, false},   {3, 17, true, 0.1f, false}, {17, 127, false, 0.3f, true}, {127, 3, true, 0.2f, true},
                      {2, 1100, true, 0.1f, false}, {6, 600, false, 0, true},   {0, 5, true, 0.1f, false},
                      // Kernels that take eight elements at a time, the last of a row being fewer; draws of dropout that begin at whole blocks and not.
                      {40, 136, true, 0.2f, true, 8}, {9, 20, false, 0.1f, false, 4}, {5, 2056, true, 0.3f, false, 0}, {300, 8, false, 0, true, 8}};

double value(Activation kind, double z) {
    switch (kind) {
        case Activation::relu: return z > 0 ? z : 0;
        case Activation::gelu_tanh: return 0.5 * z * (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (z + 0.044715 * z * z * z)));
        case Activation::gelu_erf: return 0.5 * z * (1 + std::erf(z / std::numbers::sqrt2));
        case Activation::silu: return z / (1 + std::exp(-z));
    }
    return 0;
}
double slope(Activation kind, double z) {
    const double s = 1 / (1 + std::exp(-z)), t = std::tanh(std::sqrt(2 / std::numbers::pi) * (z + 0.044715 * z * z * z));
    switch (kind) {
        case Activation::relu: return z > 0 ? 1 : 0;
        case Activation::gelu_tanh: return 0.5 * (1 + t) + 0.5 * z * (1 - t * t) * std::sqrt(2 / std::numbers::pi) * (1 + 3 * 0.044715 * z * z);
        case Activation::gelu_erf: return 0.5 * (1 + std::erf(z / std::numbers::sqrt2)) + z * std::exp(-0.5 * z * z) / std::sqrt(2 * std::numbers::pi);
        case Activation::silu: return s + z * s * (1 - s);
    }
    return 0;
}

struct Run {
    ops::ActivationArgs forward;
    ops::ActivationBackwardArgs backward;
    int64_t used;

    Run(Context& context, const Case& c, Activation kind, DType type, int64_t padding) : used(c.by_expert ? (c.rows + 1) / 2 : c.rows) {
        const Shape wide{c.rows, c.gated ? 2 * c.cols : c.cols}, shape{c.rows, c.cols};
        forward.kind = kind;
        forward.gated = c.gated;
        forward.in = random(context, type, wide, 1, 4, padding);
        if (c.by_expert) {
            forward.row_ids = make(context, DType::i64, {c.rows});
            for (int64_t r = 0; r < c.rows; ++r) set(forward.row_ids, 0, r, static_cast<double>((r * 7 + 3) % c.rows));
            forward.rows_used = make(context, DType::i32, {1});
            set(forward.rows_used, 0, 0, static_cast<double>(used));
        }
        forward.dropout = Dropout::with(c.rate, {1, 2, 3, Purpose::expert_dropout}, c.padding == 3 ? 5 : 16);
        forward.dropout_cols = backward.dropout_cols = c.rows % 2 ? c.cols + 24 : 0;  // odd: some columns of a wider layer
        forward.out = make(context, type, shape, padding);
        backward.kind = kind, backward.gated = c.gated, backward.in = forward.in, backward.dropout = forward.dropout;
        backward.row_ids = forward.row_ids, backward.rows_used = forward.rows_used;
        backward.d_out = random(context, type, shape, 2);
        backward.d_in = make(context, type, wide, padding);
    }
    double factor(int64_t r, int64_t c) const {
        const int64_t id = forward.row_ids ? static_cast<int64_t>(get(forward.row_ids, 0, r)) : r;
        return forward.dropout.factor(static_cast<uint64_t>(id * (forward.dropout_cols ? forward.dropout_cols : forward.out.cols()) + c));
    }
};

// The rows that are used, as a view.
Tensor top(const Run& run, const Tensor& tensor) { return tensor.slice_rows(0, run.used); }

bool blank(const Tensor& tensor, int64_t first_row) {
    for (int64_t r = first_row; r < tensor.rows(); ++r)
        for (int64_t c = 0; c < tensor.cols(); ++c)
            if (!std::isnan(get(tensor, r, c))) return false;
    return true;
}

}  // namespace

TEST_SUITE("ops/activation") {
    TEST_CASE("forward and backward: double equals the formulas, f32 and bf16 equal double, rows beyond the used ones are not written") {
        for (const Case& c : cases) {
            for (Activation kind : kinds) {
                CAPTURE(c.rows);
                CAPTURE(c.cols);
                CAPTURE(static_cast<int>(kind));
                TestContext context;
                const Run exact(context, c, kind, DType::f64, 0);
                const Tensor out = make(context, DType::f64, exact.forward.out.shape), d_in = make(context, DType::f64, exact.forward.in.shape);
                for (int64_t r = 0; r < exact.used; ++r) {
                    for (int64_t col = 0; col < c.cols; ++col) {
                        const double z = get(exact.forward.in, r, col), v = c.gated ? get(exact.forward.in, r, c.cols + col) : 1;
                        const double d = get(exact.backward.d_out, r, col) * exact.factor(r, col);
                        set(out, r, col, value(kind, z) * v * exact.factor(r, col));
                        set(d_in, r, col, d * v * slope(kind, z));
                        if (c.gated) set(d_in, r, c.cols + col, d * value(kind, z));
                    }
                }
                for (DType type : float_types) {
                    Run run(context, c, kind, type, c.padding);
                    ops::activation(context, run.forward);
                    ops::activation_backward(context, run.backward);
                    compare("activation", top(run, run.forward.out), top(run, out), type, Kind::elementwise);
                    compare("activation backward", top(run, run.backward.d_in), top(run, d_in), type, Kind::elementwise);
                    CHECK(blank(run.forward.out, run.used));
                    CHECK(blank(run.backward.d_in, run.used));
                    run.backward.d_in = run.backward.in;  // allowed to be the same memory
                    ops::activation_backward(context, run.backward);
                    compare("activation backward in place", top(run, run.backward.d_in), top(run, d_in), type, Kind::elementwise);
                }
            }
        }
    }

    TEST_CASE("f32 is accurate over the whole range, element by element; large arguments overflow nothing; NaN passes") {
        constexpr int64_t n = 4001;
        for (Activation kind : kinds) {
            CAPTURE(static_cast<int>(kind));
            TestContext context;
            const Tensor in = make(context, DType::f32, {1, n}), out = make(context, DType::f32, {1, n}), d_in = make(context, DType::f32, {1, n});
            const Tensor ones = make(context, DType::f32, {1, n});
            for (int64_t i = 0; i < n; ++i) set(in, 0, i, static_cast<double>(i - n / 2) * 0.01), set(ones, 0, i, 1);
            ops::activation(context, {kind, false, in, {}, {}, {}, out});
            ops::activation_backward(context, {kind, false, in, {}, {}, {}, ones, d_in});
            double worst = 0, worst_slope = 0;
            for (int64_t i = 0; i < n; ++i) {
                const double z = get(in, 0, i);
                worst = std::max(worst, std::abs(get(out, 0, i) - value(kind, z)) / std::max(1.0, std::abs(z)));
                worst_slope = std::max(worst_slope, std::abs(get(d_in, 0, i) - slope(kind, z)));
            }
            CHECK(worst < 3e-7);         // absolute below 1, relative above: a few roundings of 6e-8
            CHECK(worst_slope < 1.5e-6);  // z times a derivative of up to a few units
            set(in, 0, 0, 1e4), set(in, 0, 1, -1e4), set(in, 0, 2, NAN);
            ops::activation(context, {kind, false, in, {}, {}, {}, out});
            ops::activation_backward(context, {kind, false, in, {}, {}, {}, ones, d_in});
            CHECK(get(out, 0, 0) == 1e4);
            CHECK(get(out, 0, 1) == 0);
            CHECK(get(d_in, 0, 0) == 1);
            CHECK(get(d_in, 0, 1) == 0);
            CHECK(std::isnan(get(out, 0, 2)));
        }
    }

    TEST_CASE("gradients, with dropout and row ids") {
        for (const Case& c : cases) {
            if (c.rows == 0) continue;
            for (Activation kind : kinds) {
                CAPTURE(c.cols);
                CAPTURE(static_cast<int>(kind));
                TestContext context;
                Run run(context, c, kind, DType::f64, 0);
                ops::activation_backward(context, run.backward);
                const auto loss = [&] {
                    ops::activation(context, run.forward);
                    return dot(top(run, run.forward.out), run.backward.d_out);
                };
                gradient_check("activation", loss, {{top(run, run.forward.in), top(run, run.backward.d_in)}});
            }
        }
    }

    TEST_CASE("dropout by row ids does not depend on the order of rows") {
        TestContext context;
        const int64_t rows = 8, cols = 19;
        const Tensor in = make(context, DType::f32, {rows, cols});
        for (int64_t r = 0; r < rows; ++r)
            for (int64_t c = 0; c < cols; ++c) set(in, r, c, 1);
        const Dropout dropout = Dropout::with(0.5f, {1, 2, 3, Purpose::expert_dropout}, 0);
        const Tensor plain = make(context, DType::f32, {rows, cols}), reversed = make(context, DType::f32, {rows, cols});
        const Tensor ids = make(context, DType::i64, {rows});
        for (int64_t r = 0; r < rows; ++r) set(ids, 0, r, static_cast<double>(rows - 1 - r));
        ops::activation(context, {Activation::relu, false, in, {}, {}, dropout, plain});
        ops::activation(context, {Activation::relu, false, in, ids, {}, dropout, reversed});
        for (int64_t r = 0; r < rows; ++r) CHECK(same_bits(plain.slice_rows(r, 1), reversed.slice_rows(rows - 1 - r, 1)));
        CHECK_FALSE(same_bits(plain.slice_rows(0, 1), plain.slice_rows(1, 1)));
    }

    TEST_CASE("arguments that do not fit are refused") {
        TestContext context;
        Run run(context, {4, 8, true, 0, true}, Activation::silu, DType::f32, 0);
        ops::ActivationArgs wrong = run.forward;
        wrong.gated = false;
        CHECK_THROWS_AS(ops::activation(context, wrong), Error);
        set(run.forward.rows_used, 0, 0, 5);
        if (test_device() == Device::cpu) CHECK_THROWS_AS(ops::activation(context, run.forward), Error);  // a GPU's numbers are not looked at
    }
}

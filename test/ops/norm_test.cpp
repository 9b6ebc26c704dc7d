// RMS norm with residual and dropout: double against the formulas of ops/norm.hpp written out, f32 and bf16 against double, gradients.
#include "ops/norm.hpp"

#include "ops/check.hpp"

#include <doctest/doctest.h>

#include <cmath>

using namespace flanmoe;
using namespace flanmoe::test;

namespace {

struct Case {
    int64_t rows, cols;
    bool residual, delta;
    float delta_rate, out_rate;
    uint64_t length = 0;  // places that share a mask; 0: none do
};
const Case cases[] = {
    {1, 1, true, true, 0, 0},        {3, 17, true, true, 0.1f, 0},    {17, 127, true, true, 0.3f, 0.2f}, {127, 3, false, true, 0.1f, 0},
    {40, 128, true, false, 0, 0.1f}, {5, 8, true, false, 0, 0},       {70, 31, false, true, 0, 0},       {33, 512, true, true, 0.1f, 0.1f},
    {0, 16, true, true, 0.1f, 0},    {18, 33, true, true, 0.3f, 0.2f, 6},
};

struct Dropouts {
    Dropout delta, out;
};
Dropouts dropouts(const Case& c) {
    Dropouts d{Dropout::with(c.delta_rate, {5, 6, 7, Purpose::sublayer_dropout}, 11), Dropout::with(c.out_rate, {5, 6, 7, Purpose::stack_dropout}, 0)};
    if (c.length == 0) return d;
    for (Dropout* shared : {&d.delta, &d.out}) shared->length = c.length, shared->features = static_cast<uint64_t>(c.cols);
    return d;
}

struct Norm {
    ops::ResidualNormArgs args;
    Norm(Context& context, const Case& c, DType type, int64_t padding, bool wide_delta = false) {
        const Shape shape{c.rows, c.cols};
        const DType wide = accumulate_type(type);
        if (c.residual) args.residual = random(context, wide, shape, 1, 1, padding);
        if (c.delta) args.delta = random(context, wide_delta ? wide : type, shape, 2, 0.5, padding);
        args.gain = random(context, wide, {c.cols}, 3);
        args.epsilon = 1e-3;  // large enough to be seen
        args.delta_dropout = dropouts(c).delta;
        args.out_dropout = dropouts(c).out;
        args.h = make(context, wide, shape, padding);
        args.y = make(context, type, shape, padding);
        args.rstd = make(context, accumulate_type(type), {c.rows});
    }
};

struct NormBackward {
    ops::ResidualNormBackwardArgs args;
    NormBackward(Context& context, const Case& c, DType type, const Tensor& h, const Tensor& rstd, bool path) {
        const Shape shape{c.rows, c.cols};
        args.h = h, args.rstd = rstd;
        const DType wide = accumulate_type(type);
        args.gain = random(context, wide, {c.cols}, 3);
        args.dy = random(context, type, shape, 4, 1, 2);
        if (path) args.d_residual_path = random(context, wide, shape, 5, 1, 1);
        args.delta_dropout = dropouts(c).delta, args.out_dropout = dropouts(c).out;
        args.dh = make(context, wide, shape, 1);
        if (c.delta) args.d_delta = make(context, type, shape, 2);
        args.d_gain = random(context, accumulate_type(type), {c.cols}, 6);
    }
};

// The header's formulas for one row, literally.
void naive_forward_row(const ops::ResidualNormArgs& a, int64_t r, const Tensor& h, const Tensor& y, const Tensor& rstd) {
    const int64_t cols = y.cols();
    double squares = 0;
    for (int64_t c = 0; c < cols; ++c) {
        const double delta = a.delta ? get(a.delta, r, c) * a.delta_dropout.factor(static_cast<uint64_t>(r * cols + c)) : 0;
        set(h, r, c, (a.residual ? get(a.residual, r, c) : 0) + delta);
        squares += get(h, r, c) * get(h, r, c);
    }
    const double s = 1 / std::sqrt(squares / static_cast<double>(cols) + a.epsilon);
    set(rstd, 0, r, s);
    for (int64_t c = 0; c < cols; ++c)
        set(y, r, c, get(a.gain, 0, c) * get(h, r, c) * s * a.out_dropout.factor(static_cast<uint64_t>(r * cols + c)));
}

void naive_backward_row(const ops::ResidualNormBackwardArgs& a, int64_t r, const Tensor& dh, const Tensor& d_delta, const Tensor& d_gain) {
    const int64_t cols = a.h.cols();
    const double s = get(a.rstd, 0, r);
    double mean = 0;
    std::vector<double> g(static_cast<size_t>(cols));
    for (int64_t c = 0; c < cols; ++c) {
        const double dropped = get(a.dy, r, c) * a.out_dropout.factor(static_cast<uint64_t>(r * cols + c));
        g[static_cast<size_t>(c)] = dropped * get(a.gain, 0, c);
        mean += g[static_cast<size_t>(c)] * get(a.h, r, c) / static_cast<double>(cols);
        set(d_gain, 0, c, get(d_gain, 0, c) + dropped * get(a.h, r, c) * s);
    }
    for (int64_t c = 0; c < cols; ++c) {
        const double path = a.d_residual_path ? get(a.d_residual_path, r, c) : 0;
        set(dh, r, c, path + s * (g[static_cast<size_t>(c)] - get(a.h, r, c) * s * s * mean));
        if (d_delta) set(d_delta, r, c, get(dh, r, c) * a.delta_dropout.factor(static_cast<uint64_t>(r * cols + c)));
    }
}

}  // namespace

TEST_SUITE("ops/norm") {
    TEST_CASE("forward: double equals the formulas, f32 and bf16 equal double") {
        for (const Case& c : cases) {
            CAPTURE(c.rows);
            CAPTURE(c.cols);
            TestContext context;
            Norm exact(context, c, DType::f64, 0);
            const Tensor h = make(context, DType::f64, {c.rows, c.cols}), y = make(context, DType::f64, {c.rows, c.cols});
            const Tensor rstd = make(context, DType::f64, {c.rows});
            for (int64_t r = 0; r < c.rows; ++r) naive_forward_row(exact.args, r, h, y, rstd);
            for (DType type : float_types) {
                for (bool wide_delta : {false, true}) {
                    Norm norm(context, c, type, 3, wide_delta);
                    if (wide_delta && c.delta) norm.args.h = norm.args.delta;  // in place
                    ops::residual_norm(context, norm.args);
                    // The stream and the statistics are never rounded to bf16.
                    compare("norm h", norm.args.h, h, accumulate_type(type), Kind::elementwise);
                    compare("norm rstd", norm.args.rstd, rstd, accumulate_type(type), Kind::reduction);
                    compare("norm y", norm.args.y, y, type, Kind::reduction);
                }
            }
        }
    }

    TEST_CASE("forward without delta needs no h, or may write it over the residual") {
        for (DType type : float_types) {
            TestContext context;
            const Case c{9, 33, true, false, 0, 0.1f};
            Norm norm(context, c, type, 0), without(context, c, type, 0), over(context, c, type, 0);
            without.args.h = {};
            over.args.h = over.args.residual;
            for (Norm* n : {&norm, &without, &over}) ops::residual_norm(context, n->args);
            CHECK(same_bits(norm.args.h, norm.args.residual));
            CHECK(same_bits(norm.args.y, without.args.y));
            CHECK(same_bits(norm.args.y, over.args.y));
            CHECK(same_bits(over.args.residual, norm.args.residual));
        }
    }

    TEST_CASE("backward: double equals the formulas, f32 and bf16 equal double") {
        for (const Case& c : cases) {
            for (bool path : {false, true}) {
                CAPTURE(c.rows);
                CAPTURE(c.cols);
                CAPTURE(path);
                TestContext context;
                Norm forward(context, c, DType::f64, 0);
                ops::residual_norm(context, forward.args);
                // All types start from an h that f32 holds, so that what is compared is the backward alone.
                const Tensor h = convert(context, convert(context, forward.args.h, DType::f32), DType::f64);
                NormBackward exact(context, c, DType::f64, h, forward.args.rstd, path);
                const Tensor dh = make(context, DType::f64, {c.rows, c.cols});
                const Tensor d_delta = c.delta ? make(context, DType::f64, {c.rows, c.cols}) : Tensor();
                const Tensor d_gain = convert(context, exact.args.d_gain, DType::f64);
                for (int64_t r = 0; r < c.rows; ++r) naive_backward_row(exact.args, r, dh, d_delta, d_gain);
                for (DType type : float_types) {
                    const Tensor rstd = convert(context, forward.args.rstd, accumulate_type(type));
                    NormBackward norm(context, c, type, convert(context, h, accumulate_type(type)), rstd, path);
                    ops::residual_norm_backward(context, norm.args);
                    compare("norm dh", norm.args.dh, dh, accumulate_type(type), Kind::reduction);
                    if (c.delta) compare("norm d_delta", norm.args.d_delta, d_delta, type, Kind::reduction);
                    compare("norm d_gain", norm.args.d_gain, d_gain, accumulate_type(type), Kind::reduction);
                }
            }
        }
    }

    TEST_CASE("backward: dh may lie on d_residual_path, d_delta on dh without dropout") {
        for (DType type : float_types) {
            TestContext context;
            const Case c{37, 65, true, true, 0, 0.1f};
            Norm forward(context, c, type, 0);
            ops::residual_norm(context, forward.args);
            NormBackward apart(context, c, type, forward.args.h, forward.args.rstd, true);
            NormBackward over(context, c, type, forward.args.h, forward.args.rstd, true);
            over.args.dh = over.args.d_residual_path;
            if (type != DType::bf16) over.args.d_delta = over.args.dh;
            ops::residual_norm_backward(context, apart.args);
            ops::residual_norm_backward(context, over.args);
            CHECK(same_bits(apart.args.dh, over.args.dh));
            CHECK(same_bits(apart.args.d_delta, over.args.d_delta));
            CHECK(same_bits(apart.args.d_gain, over.args.d_gain));
        }
    }

    TEST_CASE("backward: the bits of every output are the same for one and two threads") {
        TestContext context;
        const Case c{1000, 48, true, true, 0.1f, 0};
        Norm forward(context, c, DType::f32, 0);
        ops::residual_norm(context, forward.args);
        NormBackward one(context, c, DType::f32, forward.args.h, forward.args.rstd, true);
        NormBackward two(context, c, DType::f32, forward.args.h, forward.args.rstd, true);
        {
            Threads threads(1);
            ops::residual_norm_backward(context, one.args);
        }
        Threads threads(2);
        ops::residual_norm_backward(context, two.args);
        CHECK(same_bits(one.args.dh, two.args.dh));
        CHECK(same_bits(one.args.d_gain, two.args.d_gain));
    }

    TEST_CASE("gradients of residual, delta and gain, the gradient that arrives at h included") {
        for (const Case& c : cases) {
            if (c.rows == 0) continue;
            CAPTURE(c.rows);
            CAPTURE(c.cols);
            TestContext context;
            Norm norm(context, c, DType::f64, 0);
            ops::residual_norm(context, norm.args);
            NormBackward backward(context, c, DType::f64, norm.args.h, norm.args.rstd, true);
            fill(backward.args.d_gain, 0, 0);
            backward.args.gain = norm.args.gain;
            ops::residual_norm_backward(context, backward.args);
            const auto loss = [&] {
                ops::residual_norm(context, norm.args);
                return dot(norm.args.y, backward.args.dy) + dot(norm.args.h, backward.args.d_residual_path);
            };
            gradient_check("norm", loss, {{norm.args.gain, backward.args.d_gain}});
            if (c.residual) gradient_check("norm", loss, {{norm.args.residual, backward.args.dh}});
            if (c.delta) gradient_check("norm", loss, {{norm.args.delta, backward.args.d_delta}});
        }
    }

    TEST_CASE("arguments that do not fit are refused") {
        TestContext context;
        Norm norm(context, {4, 8, true, true, 0, 0}, DType::f32, 0);
        ops::ResidualNormArgs wrong = norm.args;
        wrong.gain = make(context, DType::f32, {7});
        CHECK_THROWS_AS(ops::residual_norm(context, wrong), Error);
        wrong = norm.args;
        wrong.residual = wrong.delta = {};
        CHECK_THROWS_AS(ops::residual_norm(context, wrong), Error);
        wrong = norm.args;
        wrong.h = {};
        CHECK_THROWS_AS(ops::residual_norm(context, wrong), Error);
        wrong = Norm(context, {4, 8, true, true, 0, 0}, DType::bf16, 0).args;
        wrong.h = make(context, DType::bf16, {4, 8});
        CHECK_THROWS_AS(ops::residual_norm(context, wrong), Error);
    }
}

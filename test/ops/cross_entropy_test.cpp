#include "ops/cross_entropy.hpp"

#include "device.hpp"
#include "ops/check.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <vector>

using namespace flanmoe;
using namespace flanmoe::test;

namespace {

struct Case {
    int64_t rows, width, vocabulary, padding;
    double scale, loss_scale, z;
    int64_t chunk_rows;
    int ignored;  // every so-many-th row; 0 = none, 1 = all
};
const Case cases[] = {{1, 1, 2, 0, 1, 1, 0, 0, 0},          {3, 17, 3, 2, 1, 0.5, 0, 2, 0},         {17, 3, 127, 1, 0.25, 1, 1e-2, 5, 3},
                      {127, 64, 300, 0, 0.125, 0.01, 1e-3, 32, 4}, {5, 8, 33, 0, 1, 1, 1e-2, 0, 1}, {64, 32, 1000, 0, 1, 1.0 / 64, 1e-4, 0, 2},
                      // Kernels: more logits than the threads of a block take at once, more rows than one block lists, chunks behind the last row that counts.
                      {5, 16, 9001, 0, 0.5, 0.25, 1e-3, 2, 0}, {4500, 2, 3, 0, 1, 0.001, 0, 1000, 3}, {40, 8, 24, 8, 1, 1, 1e-2, 4, 2}};

ops::LinearCrossEntropyArgs arguments(Context& context, const Case& c, DType type) {
    const DType accumulate = accumulate_type(type);
    ops::LinearCrossEntropyArgs args{.hidden = random(context, type, {c.rows, c.width}, 1, 1, c.padding),
                                     .weight = random(context, type, {c.vocabulary, c.width}, 2, 1, c.padding),
                                     .targets = make(context, DType::i32, {c.rows}),
                                     .scale = c.scale,
                                     .loss_scale = c.loss_scale,
                                     .z_coefficient = c.z,
                                     .d_hidden = make(context, type, {c.rows, c.width}, c.padding),
                                     .d_weight = random(context, accumulate, {c.vocabulary, c.width}, 3, 0.125, c.padding),
                                     .token_nll = make(context, accumulate, {c.rows}),
                                     .chunk_rows = c.chunk_rows};
    fill_integers(args.targets, 4, c.vocabulary);
    for (int64_t n = 0; c.ignored && n < c.rows; n += c.ignored) args.targets.as<int32_t>()[n] = -1;
    return args;
}

double logit(const ops::LinearCrossEntropyArgs& args, int64_t n, int64_t v) {
    double sum = 0;
    for (int64_t d = 0; d < args.hidden.cols(); ++d) sum += get(args.hidden, n, d) * get(args.weight, v, d);
    return args.scale * sum;
}

// The formulas of the header, literally, in double.
ops::CrossEntropySums naive(const ops::LinearCrossEntropyArgs& args) {
    ops::CrossEntropySums sums;
    const int64_t rows = args.hidden.rows(), width = args.hidden.cols(), vocabulary = args.weight.rows();
    for (int64_t n = 0; n < rows; ++n) {
        const int64_t target = args.targets.as<int32_t>()[n];
        set(args.token_nll, 0, n, 0);
        for (int64_t d = 0; d < width; ++d) set(args.d_hidden, n, d, 0);
        if (target < 0) continue;
        std::vector<double> logits;
        for (int64_t v = 0; v < vocabulary; ++v) logits.push_back(logit(args, n, v));
        double total = 0;
        size_t best = 0;
        for (size_t v = 0; v < logits.size(); ++v) {
            total += std::exp(logits[v]);
            if (logits[v] > logits[best]) best = v;
        }
        const double lse = std::log(total), nll = lse - logits[static_cast<size_t>(target)];
        set(args.token_nll, 0, n, nll);
        sums.nll += nll, sums.z += lse * lse, ++sums.tokens, sums.correct += static_cast<int64_t>(best) == target;
        for (int64_t v = 0; v < vocabulary; ++v) {
            const double softmax = std::exp(logits[static_cast<size_t>(v)] - lse);
            const double d = args.scale * args.loss_scale * ((1 + 2 * args.z_coefficient * lse) * softmax - (v == target));
            for (int64_t i = 0; i < width; ++i) {
                set(args.d_hidden, n, i, get(args.d_hidden, n, i) + d * get(args.weight, v, i));
                set(args.d_weight, v, i, get(args.d_weight, v, i) + d * get(args.hidden, n, i));
            }
        }
    }
    return sums;
}

// The operation with sums of its own, read.
ops::CrossEntropySums loss_of(Context& context, ops::LinearCrossEntropyArgs args) {
    args.sums = context.zeros(DType::f64, {4});
    ops::linear_cross_entropy(context, args);
    return ops::read_sums(context, args.sums);
}

// The operation over a vocabulary in `count` parts: what each says of its rows is recorded in a first run, and handed to all in a second. d_hidden is
// the sum (f64), d_weight and the rest are as one call gives them.
ops::CrossEntropySums loss_in_parts(Context& context, const ops::LinearCrossEntropyArgs& whole, int64_t count, const Tensor& d_hidden_sum) {
    const int64_t vocabulary = whole.weight.rows();
    std::vector<std::vector<std::vector<double>>> said(static_cast<size_t>(count));  // of part, exchange
    ops::CrossEntropySums sums;
    for (const bool record : {true, false}) {
        for (int64_t p = 0; p < count; ++p) {
            Arena::Scope scope(context.arena);
            const int64_t first = vocabulary * p / count, rows = vocabulary * (p + 1) / count - first;
            ops::LinearCrossEntropyArgs args = whole;
            args.weight = whole.weight.slice_rows(first, rows);
            args.d_hidden = make(context, whole.hidden.dtype, whole.hidden.shape);
            args.d_weight = record ? make(context, whole.d_weight.dtype, {rows, whole.d_weight.cols()}) : whole.d_weight.slice_rows(first, rows);
            size_t exchange = 0;
            args.part = {count, first, vocabulary, [&](const Tensor& part, const Tensor& all) {
                             REQUIRE(all.rows() == count * part.rows());
                             if (record) said[static_cast<size_t>(p)].push_back(context.download<double>(part.view({part.elements()})));
                             for (size_t q = 0; !record && q < said.size(); ++q)
                                 context.engine->upload(all.as<double>() + static_cast<int64_t>(q) * part.elements(), said[q][exchange].data(), part.bytes());
                             if (record) context.engine->zero(all.data, all.bytes());
                             ++exchange;
                         }};
            sums = loss_of(context, args);
            for (int64_t n = 0; !record && n < args.d_hidden.rows(); ++n)
                for (int64_t d = 0; d < args.d_hidden.cols(); ++d) set(d_hidden_sum, n, d, get(d_hidden_sum, n, d) + get(args.d_hidden, n, d));
        }
    }
    return sums;
}

}  // namespace

TEST_SUITE("ops/cross_entropy") {
    TEST_CASE("a vocabulary in parts of uneven size gives the same loss, statistics and gradients") {
        TestContext context;
        for (const Case& c : cases) {
            for (const int64_t parts : {2, 3}) {
                if (c.vocabulary <= parts) continue;
                Arena::Scope outer(context.arena);
                const auto expected = arguments(context, c, DType::f64);
                const auto sums = naive(expected);
                for (DType type : float_types) {
                    Arena::Scope scope(context.arena);
                    CAPTURE(c.rows);
                    CAPTURE(c.vocabulary);
                    CAPTURE(name_of(type));
                    const auto args = arguments(context, c, type);
                    const Tensor d_hidden = context.zeros(DType::f64, {c.rows, c.width});
                    const auto got = loss_in_parts(context, args, parts, d_hidden);
                    CHECK(got.tokens == sums.tokens);
                    CHECK(got.correct == sums.correct);
                    CHECK(got.nll == doctest::Approx(sums.nll).epsilon(type == DType::f64 ? 1e-13 : 1e-5));
                    CHECK(got.z == doctest::Approx(sums.z).epsilon(type == DType::f64 ? 1e-13 : 1e-5));
                    const Kind gradient = type == DType::bf16 ? Kind::chain : Kind::matmul;
                    compare("cross entropy in parts, d_hidden", d_hidden, expected.d_hidden, type, gradient);
                    compare("cross entropy in parts, d_weight", args.d_weight, expected.d_weight, type, gradient);
                    compare("cross entropy in parts, nll", args.token_nll, expected.token_nll, accumulate_type(type), Kind::reduction);
                }
            }
        }
    }

    TEST_CASE("loss, statistics and gradients against the formulas") {
        TestContext context;
        for (const Case& c : cases) {
            Arena::Scope outer(context.arena);
            const auto expected = arguments(context, c, DType::f64);
            const auto sums = naive(expected);
            for (DType type : float_types) {
                Arena::Scope scope(context.arena);
                CAPTURE(c.rows);
                CAPTURE(c.vocabulary);
                CAPTURE(name_of(type));
                const auto args = arguments(context, c, type);
                const auto got = loss_of(context, args);
                CHECK(got.tokens == sums.tokens);
                CHECK(got.correct == sums.correct);
                CHECK(got.nll == doctest::Approx(sums.nll).epsilon(type == DType::f64 ? 1e-13 : 1e-5));
                CHECK(got.z == doctest::Approx(sums.z).epsilon(type == DType::f64 ? 1e-13 : 1e-5));
                // The logits are float whatever the operands: bf16 operands are exact here, but dlogits are rounded to bf16 before the second product.
                const Kind gradient = type == DType::bf16 ? Kind::chain : Kind::matmul;
                compare("cross_entropy nll", args.token_nll, expected.token_nll, type == DType::f64 ? type : DType::f32, Kind::reduction);
                compare("cross_entropy d_hidden", args.d_hidden, expected.d_hidden, type, gradient);
                compare("cross_entropy d_weight", args.d_weight, expected.d_weight, type, gradient);
            }
        }
    }

    TEST_CASE("gradients of loss and z-loss") {
        TestContext context;
        for (const Case& c : cases) {
            if (c.ignored == 1) continue;
            Arena::Scope outer(context.arena);
            CAPTURE(c.rows);
            auto args = arguments(context, c, DType::f64);
            args.d_weight = context.zeros(DType::f64, {c.vocabulary, c.width});
            loss_of(context, args);
            auto forward = args;
            forward.d_hidden = forward.d_weight = {};
            const auto loss = [&] {
                const auto sums = loss_of(context, forward);
                return c.loss_scale * (sums.nll + c.z * sums.z);
            };
            gradient_check("cross_entropy", loss, {{args.hidden, args.d_hidden}, {args.weight, args.d_weight}});
        }
    }

    TEST_CASE("of equal logits the first is the prediction") {
        TestContext context;
        for (DType type : float_types) {
            auto args = arguments(context, {4, 8, 9, 0, 1, 1, 0, 0, 0}, type);
            for (int64_t d = 0; d < 8; ++d) {
                for (int64_t n = 1; n < 4; ++n) set(args.hidden, n, d, get(args.hidden, 0, d));
                for (int64_t v = 0; v < 9; ++v) set(args.weight, v, d, (v == 3 || v == 6 ? 1 : -1) * get(args.hidden, 0, d));
            }
            for (int32_t n = 0; n < 4; ++n) args.targets.as<int32_t>()[n] = std::vector<int32_t>{3, 6, 0, 3}[static_cast<size_t>(n)];
            CHECK(loss_of(context, args).correct == 2);
        }
    }

    TEST_CASE("large logits neither overflow nor lose the loss") {
        TestContext context;
        auto args = arguments(context, {2, 4, 50, 0, 1000, 1, 0, 0, 0}, DType::f32);
        const auto sums = loss_of(context, args);
        const auto exact = naive([&] {
            auto e = arguments(context, {2, 4, 50, 0, 1000, 1, 0, 0, 0}, DType::f64);
            e.scale = 100;  // as far as the literal formula goes without overflow
            return e;
        }());
        auto smaller = args;
        smaller.scale = 100;
        CHECK(std::isfinite(sums.nll));
        CHECK(loss_of(context, smaller).nll == doctest::Approx(exact.nll).epsilon(1e-5));
    }

    TEST_CASE("chunk length and gradients change the loss by rounding only, threads not at all, repetition not at all") {
        TestContext context;
        const Case c{127, 64, 300, 0, 0.125, 0.01, 1e-3, 0, 4};
        for (DType type : float_types) {
            Arena::Scope scope(context.arena);
            const auto reference = arguments(context, c, type);
            const auto sums = loss_of(context, reference);
            const auto again = arguments(context, c, type);
            CHECK(loss_of(context, again).nll == sums.nll);
            CHECK(same_bits(again.d_hidden, reference.d_hidden));
            CHECK(same_bits(again.d_weight, reference.d_weight));
            auto forward = arguments(context, c, type);
            forward.d_hidden = forward.d_weight = {};
            forward.chunk_rows = 7;
            CHECK(loss_of(context, forward).nll == doctest::Approx(sums.nll).epsilon(1e-6));
        }
        const auto one = arguments(context, c, DType::f64), three = arguments(context, c, DType::f64);
        {
            Threads threads(1);
            loss_of(context, one);
        }
        {
            Threads threads(3);
            loss_of(context, three);
        }
        CHECK(same_bits(one.d_hidden, three.d_hidden));
        CHECK(same_bits(one.d_weight, three.d_weight));
        CHECK(same_bits(one.token_nll, three.token_nll));
    }

    TEST_CASE("a target outside the vocabulary is refused; on a GPU, which nobody looks at, it makes the loss NaN") {
        TestContext context;
        for (const int32_t bad : {5, -2}) {
            auto args = arguments(context, {3, 4, 5, 0, 1, 1, 0, 0, 0}, DType::f32);
            args.targets.as<int32_t>()[1] = bad;
            if (test_device() == Device::cpu) CHECK_THROWS_AS(loss_of(context, args), Error);
            else CHECK(std::isnan(loss_of(context, args).nll));
        }
    }
}

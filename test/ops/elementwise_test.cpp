// Whole-tensor operations: casts bit for bit, the others against double; dropout's expectation and its mask; non-finite values in the sum of squares.
#include "ops/elementwise.hpp"

#include "ops/check.hpp"

#include <doctest/doctest.h>

#include <bit>
#include <cmath>

using namespace flanmoe;
using namespace flanmoe::test;

namespace {

constexpr int64_t sizes[] = {0, 1, 3, 17, 127, 513, 40001};
constexpr RandomKey key{9, 8, 7, Purpose::embedding_dropout};

double squares_of(Context& context, const Tensor& values) {
    const Tensor sum = context.zeros(DType::f64, {1});
    ops::sum_of_squares(context, values, sum);
    return context.download<double>(sum)[0];
}

}  // namespace

TEST_SUITE("ops/elementwise") {
    TEST_CASE("dropout multiplies by its factors, in place too, in every type") {
        for (int64_t n : sizes) {
            for (float rate : {0.0f, 0.25f}) {
                const Dropout d = Dropout::with(rate, key, 3);
                for (DType type : float_types) {
                    TestContext context;
                    const Tensor in = random(context, type, {n}, 1), out = make(context, type, {n}), expected = make(context, DType::f64, {n});
                    for (int64_t i = 0; i < n; ++i) set(expected, 0, i, get(in, 0, i) * d.factor(static_cast<uint64_t>(i)));
                    ops::dropout(context, {in, d, out});
                    compare("dropout", out, expected, type, Kind::elementwise);
                    ops::dropout(context, {in, d, in});
                    CHECK(same_bits(in, out));
                }
            }
        }
    }

    TEST_CASE("dropout keeps the expectation; the backward has the same mask; another step or first element has another") {
        constexpr int64_t n = 1 << 16;
        TestContext context;
        const Tensor ones = make(context, DType::f32, {n});
        for (int64_t i = 0; i < n; ++i) set(ones, 0, i, 1);
        const Tensor out = make(context, DType::f32, {n}), gradient = make(context, DType::f32, {n});
        for (float rate : {0.05f, 0.1f, 0.5f}) {
            Dropout d = Dropout::with(rate, key, 0);
            ops::dropout(context, {ones, d, out});
            ops::dropout(context, {ones, d, gradient});
            CHECK(same_bits(out, gradient));
            // Mean of n factors: standard deviation sqrt(rate / (1 - rate) / n) <= 0.004; four of them.
            CHECK(std::abs(dot(ones, out) / n - 1) < 0.016);
            d.first = 8;
            ops::dropout(context, {ones, d, gradient});
            CHECK(same_bits(out.columns(8, 1000), gradient.columns(0, 1000)));  // the global element index decides
            d.key.step += 1;
            ops::dropout(context, {ones, d, gradient});
            CHECK_FALSE(same_bits(out.columns(8, 1000), gradient.columns(0, 1000)));
        }
    }

    TEST_CASE("dropout, scale, add and jitter: gradients") {
        TestContext context;
        const int64_t n = 301;
        const Tensor in = random(context, DType::f64, {n}, 1), out = make(context, DType::f64, {n}), d_out = random(context, DType::f64, {n}, 2);
        const Tensor d_in = make(context, DType::f64, {n});
        const Dropout d = Dropout::with(0.3f, key, 1);
        ops::dropout(context, {d_out, d, d_in});
        gradient_check("dropout", [&] { return ops::dropout(context, {in, d, out}), dot(out, d_out); }, {{in, d_in}});
        ops::JitterArgs jitter{d_out, d_in, 0.1, key, 7};
        ops::jitter(context, jitter);
        jitter.in = in, jitter.out = out;
        gradient_check("jitter", [&] { return ops::jitter(context, jitter), dot(out, d_out); }, {{in, d_in}});
        const auto scaled_sum = [&] {
            ops::cast(context, in, out);
            ops::add(context, in, out);
            ops::scale(context, out, -1.5);
            return dot(out, d_out);
        };
        ops::cast(context, d_out, d_in);
        ops::scale(context, d_in, -3);
        gradient_check("cast, add, scale", scaled_sum, {{in, d_in}});
    }

    TEST_CASE("cast between all types; add into all types") {
        for (int64_t n : sizes) {
            for (DType from : float_types) {
                for (DType to : float_types) {
                    TestContext context;
                    const Tensor source = random(context, from, {n}, 1), copy = make(context, to, {n}), sum = random(context, to, {n}, 2, 4);
                    const Tensor expected = make(context, DType::f64, {n});
                    for (int64_t i = 0; i < n; ++i) set(expected, 0, i, get(source, 0, i) + get(sum, 0, i));
                    ops::cast(context, source, copy);
                    CHECK(same_bits(copy, convert(context, source, to)));  // fill()'s numbers are exact in every type
                    ops::add(context, source, sum);
                    compare("add", sum, expected, to, Kind::elementwise);
                }
            }
        }
    }

    TEST_CASE("cast to bf16 rounds to nearest even, keeps NaN and infinities, overflows to infinity: every exponent, every kind of tail") {
        TestContext context;
        const uint32_t tails[] = {0, 1, 0x7fff, 0x8000, 0x8001, 0xffff, 0x10000, 0x17fff, 0x18000, 0x18001, 0x1ffff, 0x7fffff};
        constexpr int64_t n = 512 * std::size(tails);
        const Tensor from = make(context, DType::f32, {n}), to = make(context, DType::bf16, {n});
        for (size_t i = 0; i < n; ++i)
            from.as<float>()[i] = std::bit_cast<float>(static_cast<uint32_t>(i / std::size(tails)) << 23 | tails[i % std::size(tails)]);
        ops::cast(context, from, to);
        int64_t wrong = 0;
        for (int64_t i = 0; i < n; ++i) {
            const float x = from.as<float>()[i], got = to.as<bf16>()[i];
            if (std::isnan(x)) {
                wrong += !std::isnan(got);
                continue;
            }
            // Among the two bf16 neighbours, by distance; a tie goes to the even one.
            const uint32_t down = std::bit_cast<uint32_t>(x) & 0xffff0000u, up = down + 0x10000u;
            const double below = std::bit_cast<float>(down);
            const double above = std::isinf(std::bit_cast<float>(up)) ? std::copysign(0x1p128, x) : std::bit_cast<float>(up);
            const double to_below = std::abs(x - below), to_above = std::abs(above - x);
            const uint32_t nearest = to_below < to_above || (to_below == to_above && (down & 0x10000u) == 0) || std::isinf(x) ? down : up;
            wrong += std::bit_cast<uint32_t>(got) != nearest;
        }
        CHECK(wrong == 0);
    }

    TEST_CASE("scale") {
        for (int64_t n : sizes) {
            for (DType type : float_types) {
                TestContext context;
                const Tensor values = random(context, type, {n}, 1), expected = convert(context, values, DType::f64);
                for (int64_t i = 0; i < n; ++i) set(expected, 0, i, get(expected, 0, i) * 0.3);
                ops::scale(context, values, 0.3);
                compare("scale", values, expected, type, Kind::elementwise);
            }
        }
    }

    TEST_CASE("sum of squares: the value, the same bits for any number of threads, no overflow of finite values, NaN and infinity seen") {
        for (int64_t n : sizes) {
            for (DType type : float_types) {
                TestContext context;
                const Tensor values = random(context, type, {n}, 1);
                double one, two;
                {
                    Threads threads(1);
                    one = squares_of(context, values);
                }
                {
                    Threads threads(2);
                    two = squares_of(context, values);
                }
                CHECK(std::bit_cast<uint64_t>(one) == std::bit_cast<uint64_t>(two));
                CHECK(one == doctest::Approx(dot(values, values)).epsilon(1e-13));  // another order of sums in double
                if (n == 0) continue;
                if (type != DType::f64) {
                    for (int64_t i = 0; i < n; ++i) set(values, 0, i, type == DType::f32 ? 3.4e38 : 3.38e38);
                    CHECK(std::isfinite(squares_of(context, values)));
                }
                for (double bad : {double{NAN}, double{INFINITY}, -double{INFINITY}}) {
                    for (int64_t where : {int64_t{0}, n / 2, n - 1}) {
                        fill(values, 1);
                        set(values, 0, where, bad);
                        CHECK_FALSE(std::isfinite(squares_of(context, values)));
                    }
                }
            }
        }
    }

    TEST_CASE("jitter multiplies by 1 - epsilon + 2 epsilon u, between any types") {
        for (int64_t n : sizes) {
            for (DType from : float_types) {
                for (DType to : float_types) {
                    TestContext context;
                    const Tensor in = random(context, from, {n}, 1), out = make(context, to, {n}), expected = make(context, DType::f64, {n});
                    for (int64_t i = 0; i < n; ++i) set(expected, 0, i, get(in, 0, i) * (1 - 0.01 + 0.02 * uniform(key, 5 + static_cast<uint64_t>(i))));
                    ops::jitter(context, {in, out, 0.01, key, 5});
                    compare("jitter", out, expected, to, Kind::elementwise);
                }
            }
        }
    }

    TEST_CASE("sampling scores are logits / T plus Gumbel noise") {
        for (int64_t n : sizes) {
            for (DType type : {DType::f32, DType::f64}) {
                TestContext context;
                const Tensor logits = random(context, type, {n}, 1), scores = make(context, type, {n}), expected = make(context, DType::f64, {n});
                for (int64_t i = 0; i < n; ++i) {
                    const double u = static_cast<double>(uniform(key, 5 + static_cast<uint64_t>(i))) + 0x1p-25;
                    set(expected, 0, i, get(logits, 0, i) / 0.7 - std::log(-std::log(u)));
                }
                ops::sampling_scores(context, {logits, scores, 0.7, key, 5});
                compare("sampling scores", scores, expected, type, Kind::elementwise);
            }
        }
    }

    TEST_CASE("the largest sampling score is drawn from softmax(logits / T)") {
        constexpr int64_t draws = 40000, experts = 4;
        const double logits[experts] = {1, 0, -1, 0.5}, temperature = 0.5;
        TestContext context;
        const Tensor rows = make(context, DType::f32, {draws, experts}), scores = make(context, DType::f32, {draws, experts});
        double weights[experts], sum = 0;
        for (int64_t e = 0; e < experts; ++e) sum += weights[e] = std::exp(logits[e] / temperature);
        for (int64_t n = 0; n < draws; ++n)
            for (int64_t e = 0; e < experts; ++e) set(rows, n, e, logits[e]);
        ops::sampling_scores(context, {rows, scores, temperature, key, 0});
        double counts[experts] = {};
        for (int64_t n = 0; n < draws; ++n) {
            int64_t best = 0;
            for (int64_t e = 1; e < experts; ++e)
                if (get(scores, n, e) > get(scores, n, best)) best = e;
            ++counts[best];
        }
        for (int64_t e = 0; e < experts; ++e) {
            const double p = weights[e] / sum;
            CHECK(std::abs(counts[e] / draws - p) < 4 * std::sqrt(p * (1 - p) / draws));  // four standard deviations
        }
    }

    TEST_CASE("arguments that do not fit are refused") {
        TestContext context;
        const Tensor a = random(context, DType::f32, {8}, 1), b = make(context, DType::f32, {9}), strided = make(context, DType::f32, {2, 4}, 1);
        CHECK_THROWS_AS(ops::cast(context, a, b), Error);
        CHECK_THROWS_AS(ops::cast(context, a, strided), Error);
        CHECK_THROWS_AS(ops::dropout(context, {a, {}, make(context, DType::bf16, {8})}), Error);
        CHECK_THROWS_AS(ops::scale(context, make(context, DType::i32, {3}), 2), Error);
    }
}

#include "cpu/vector_math.hpp"

#include <doctest/doctest.h>

#include <limits>
#include <vector>

using namespace flanmoe;
using namespace flanmoe::cpu;

namespace {

// Distance from the exact value in units in the last place of a float of that size.
double ulps(float got, double exact) {
    int exponent;
    std::frexp(exact, &exponent);
    const double unit = std::ldexp(1.0, std::max(exponent - 24, -149));
    return std::abs(static_cast<double>(got) - exact) / unit;
}

}  // namespace

TEST_SUITE("cpu/vector_math") {
    TEST_CASE("exp is within 2 units in the last place over its whole range") {
        double worst = 0;
        std::vector<float> x(4096), y(4096);
        for (float start = -104; start < 88.7f; start += 0.5f) {
            for (size_t i = 0; i < x.size(); ++i) x[i] = std::min(88.72f, start + 0.5f * static_cast<float>(i) / 4096);
            row_exp_sum(x.data(), 0.0f, y.data(), 4096);  // the vector form
            for (size_t i = 0; i < x.size(); ++i) worst = std::max(worst, ulps(y[i], std::exp(static_cast<double>(x[i]))));
        }
        MESSAGE("exp: " << worst << " units");
        CHECK(worst <= 2);
    }

    TEST_CASE("exp at the edges") {
        const float infinity = std::numeric_limits<float>::infinity();
        CHECK(fast_exp(0.0f) == 1.0f);
        CHECK(fast_exp(-infinity) == 0.0f);
        CHECK(fast_exp(-1000.0f) == 0.0f);
        CHECK(fast_exp(infinity) == infinity);
        CHECK(fast_exp(1000.0f) == infinity);
        CHECK(std::isnan(fast_exp(std::numeric_limits<float>::quiet_NaN())));
    }

    TEST_CASE("tanh and sigmoid") {
        double worst_tanh = 0, worst_sigmoid = 0;
        for (int i = -200000; i <= 200000; ++i) {
            const float x = static_cast<float>(i) * 1e-4f;
            if (i) worst_tanh = std::max(worst_tanh, ulps(fast_tanh(x), std::tanh(static_cast<double>(x))));
            worst_sigmoid = std::max(worst_sigmoid, ulps(fast_sigmoid(x), 1 / (1 + std::exp(-static_cast<double>(x)))));
        }
        MESSAGE("tanh: " << worst_tanh << " units, sigmoid: " << worst_sigmoid);
        CHECK(worst_tanh <= 3);
        CHECK(worst_sigmoid <= 4);
        CHECK(fast_tanh(0.0f) == 0.0f);
        CHECK(fast_tanh(100.0f) == 1.0f);
        CHECK(fast_tanh(-100.0f) == -1.0f);
        CHECK(fast_tanh(1e-20f) == 1e-20f);
    }

    TEST_CASE("largest element and sum of exponentials of short and long rows") {
        for (int64_t n : {0, 1, 3, 17, 127, 1000}) {
            std::vector<float> x(static_cast<size_t>(n)), y(x.size());
            double sum = 0;
            float largest = -std::numeric_limits<float>::infinity();
            for (size_t i = 0; i < x.size(); ++i) x[i] = std::sin(static_cast<float>(i * i)), largest = std::max(largest, x[i]);
            for (float v : x) sum += std::exp(static_cast<double>(v) - 1);
            CHECK(row_max(x.data(), n) == largest);
            CHECK(row_exp_sum(x.data(), 1.0f, y.data(), n) == doctest::Approx(sum).epsilon(1e-6));
        }
    }
}

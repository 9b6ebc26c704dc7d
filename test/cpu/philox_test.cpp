// The vectorised random numbers against the scalar ones: bit for bit, any alignment and length.
#include "cpu/philox.hpp"

#include <doctest/doctest.h>

#include <vector>

using namespace flanmoe;

TEST_SUITE("cpu/philox") {
    const RandomKey key{0x0123456789abcdefu, 77, 5, Purpose::ffn_dropout};

    TEST_CASE("runs equal single elements for every alignment and many lengths, also where the block number leaves 32 bits") {
        for (uint64_t start : {uint64_t{0}, uint64_t{1} << 20, (uint64_t{1} << 35) - 128, (uint64_t{1} << 34) - 64}) {
            for (uint64_t shift = 0; shift < 9; ++shift) {
                for (int64_t n : {0, 1, 3, 7, 8, 17, 63, 64, 65, 127, 128, 129, 300}) {
                    const uint64_t first = start + shift;
                    std::vector<uint16_t> bits(static_cast<size_t>(n) + 1, 0x5555);
                    std::vector<float> uniforms(static_cast<size_t>(n) + 1, -1.0f);
                    cpu::fill_random_bits16(key, first, n, bits.data());
                    cpu::fill_uniform(key, first, n, uniforms.data());
                    int64_t wrong = 0;
                    for (int64_t i = 0; i < n; ++i) {
                        wrong += bits[static_cast<size_t>(i)] != random_bits16(key, first + static_cast<uint64_t>(i));
                        wrong += uniforms[static_cast<size_t>(i)] != uniform(key, first + static_cast<uint64_t>(i));
                    }
                    CAPTURE(first);
                    CAPTURE(n);
                    CHECK(wrong == 0);
                    CHECK(bits.back() == 0x5555);  // nothing is written behind the run
                    CHECK(uniforms.back() == -1.0f);
                }
            }
        }
    }

    TEST_CASE_TEMPLATE("dropout factors and products equal Dropout::factor", T, float, double) {
        for (float rate : {0.0f, 0.1f, 0.5f, 1.0f - 0x1p-16f}) {
            for (uint64_t features : {0, 1, 3, 17, 128, 500}) {
                Dropout d = Dropout::with(rate, key, 12345);
                d.length = 3, d.features = features;
                for (int64_t n : {1, 3, 17, 127, 512}) {
                    std::vector<T> factors(static_cast<size_t>(n)), values(static_cast<size_t>(n));
                    for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<T>(i) - 5;
                    cpu::dropout_factors(d, 6, n, factors.data());
                    cpu::multiply_dropout(d, 6, n, values.data());
                    int64_t wrong = 0;
                    for (size_t i = 0; i < values.size(); ++i) {
                        wrong += factors[i] != static_cast<T>(d.factor(6 + i));
                        wrong += values[i] != (static_cast<T>(i) - 5) * static_cast<T>(d.factor(6 + i));
                    }
                    CHECK(wrong == 0);
                }
            }
        }
    }
}

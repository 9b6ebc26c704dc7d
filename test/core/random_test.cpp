#include "core/random.hpp"

#include <doctest/doctest.h>

using namespace flanmoe;

TEST_SUITE("core/random") {
    TEST_CASE("Philox 4x32-10 gives the published known answers") {
        // Random123's kat_vectors for philox4x32, 10 rounds.
        using Block = std::array<uint32_t, 4>;
        CHECK(philox({0, 0, 0, 0}, {0, 0}) == Block{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
        CHECK(philox({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}) == Block{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
        CHECK(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) == Block{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
    }

    TEST_CASE("dropout keeps the expectation and depends on the key") {
        const RandomKey key{1, 2, 3, Purpose::ffn_dropout};
        const Dropout d = Dropout::with(0.1f, key, 0);
        double sum = 0;
        for (int i = 0; i < 100000; ++i) sum += d.factor(static_cast<uint64_t>(i));
        CHECK(sum / 100000 == doctest::Approx(1.0).epsilon(0.01));
        RandomKey other = key;
        other.layer = 4;
        int equal = 0;
        for (uint64_t i = 0; i < 1000; ++i) equal += random_bits(key, i) == random_bits(other, i);
        CHECK(equal == 0);
    }

    TEST_CASE("a broadcast mask: one draw for all places along the length, others in every row, the same in a part of the tensor") {
        constexpr uint64_t rows = 5, length = 7, features = 40;
        Dropout d = Dropout::with(0.5f, {1, 2, 3, Purpose::ffn_dropout}, 0), flat = d;
        d.length = length, d.features = features;
        int64_t wrong = 0, dropped = 0;
        const auto index = [](uint64_t r, uint64_t t, uint64_t f) { return (r * length + t) * features + f; };
        for (uint64_t r = 0; r < rows; ++r) {
            Dropout part = d;  // of the rows from r on, as another micro-batch would have it
            part.first = index(r, 0, 0);
            for (uint64_t t = 0; t < length; ++t) {
                for (uint64_t f = 0; f < features; ++f) {
                    wrong += d.factor(index(r, t, f)) != flat.factor(r * features + f);
                    wrong += part.factor(index(0, t, f)) != d.factor(index(r, t, f));
                    dropped += d.factor(index(r, t, f)) == 0;
                }
            }
        }
        CHECK(wrong == 0);
        CHECK(dropped % static_cast<int64_t>(length) == 0);
        CHECK(dropped / static_cast<int64_t>(length) == doctest::Approx(100).epsilon(0.3));  // of 200 draws; 0.3 is 4 deviations
    }

    TEST_CASE("below is uniform and inside its bound") {
        RandomStream stream({7, 0, 0, Purpose::shuffle});
        int counts[5] = {};
        for (int i = 0; i < 50000; ++i) ++counts[stream.below(5)];
        for (int c : counts) CHECK(c == doctest::Approx(10000).epsilon(0.05));
    }
}

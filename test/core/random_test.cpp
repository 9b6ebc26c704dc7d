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

    TEST_CASE("below is uniform and inside its bound") {
        RandomStream stream({7, 0, 0, Purpose::shuffle});
        int counts[5] = {};
        for (int i = 0; i < 50000; ++i) ++counts[stream.below(5)];
        for (int c : counts) CHECK(c == doctest::Approx(10000).epsilon(0.05));
    }
}

// A random permutation of [0, count) that is computed, not stored: any element in constant time and memory.
//
// A balanced Feistel network over the smallest even number of bits that holds `count` is a bijection of its domain; values that fall outside
// [0, count) are walked on until one falls inside (cycle walking), which keeps it a bijection. The round keys are random bits of the given key, so
// the order depends on nothing else. Eight rounds, each with the finaliser of MurmurHash3 (public domain) as its function.
#pragma once

#include "core/random.hpp"

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace flanmoe {

class Permutation {
public:
    Permutation() = default;
    Permutation(uint64_t count, const RandomKey& key) : count_(count) {
        const int bits = count > 1 ? std::bit_width(count - 1) : 1;
        half_ = bits <= 8 ? 4 : (bits + 1) / 2;
        for (std::size_t round = 0; round < keys_.size(); ++round)
            keys_[round] = uint64_t{random_bits(key, 2 * round)} << 32 | random_bits(key, 2 * round + 1);
    }

    /// Where element `index` of the permuted order lies in the original one.
    uint64_t operator()(uint64_t index) const {
        do index = once(index);
        while (index >= count_);
        return index;
    }

private:
    static uint64_t mix(uint64_t x) {
        x = (x ^ (x >> 33)) * 0xff51afd7ed558ccdULL;
        x = (x ^ (x >> 33)) * 0xc4ceb9fe1a85ec53ULL;
        return x ^ (x >> 33);
    }
    uint64_t once(uint64_t value) const {
        const uint64_t mask = (uint64_t{1} << half_) - 1;
        uint64_t left = value >> half_, right = value & mask;
        for (uint64_t key : keys_) {
            const uint64_t next = left ^ (mix(right ^ key) & mask);
            left = right;
            right = next;
        }
        return left << half_ | right;
    }

    uint64_t count_ = 0;
    int half_ = 4;
    std::array<uint64_t, 8> keys_{};
};

}  // namespace flanmoe

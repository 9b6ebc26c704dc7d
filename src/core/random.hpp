// Counter-based random numbers: Philox 4x32-10.
//
// Source: J. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011); the constants and the known-answer vectors of the test
// are that paper's. A number depends only on (seed, step, layer, purpose) and the global index of the element it is for, so it is the same
// bits on any device, in any order, on any number of ranks.
#pragma once

#include <array>
#include <cstdint>

// Functions are constexpr so that kernels may call them too.
namespace flanmoe {

/// What a random number is for; part of the key, so that no two uses share a stream.
enum class Purpose : uint32_t {
    initialise = 1,
    embedding_dropout,
    attention_dropout,      ///< on attention probabilities
    cross_attention_dropout,
    sublayer_dropout,       ///< on the output of self-attention
    cross_sublayer_dropout,
    ffn_dropout,            ///< inside a dense feed-forward
    expert_dropout,         ///< inside an expert
    ffn_output_dropout,
    extra_ffn_output_dropout,
    stack_dropout,          ///< after a stack's final norm
    jitter,
    second_expert,
    sampling,
    shuffle,
    span_corruption,
    mixture,
    shared_expert_dropout,  ///< inside a shared expert
};

struct RandomKey {
    uint64_t seed = 0;
    uint32_t step = 0;
    uint16_t layer = 0;  ///< global layer number: encoder layers first, then decoder layers
    Purpose purpose = Purpose::initialise;
};

/// One Philox 4x32-10 block.
constexpr std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
    for (int round = 0; round < 10; ++round) {
        const uint64_t a = uint64_t{0xD2511F53u} * counter[0], b = uint64_t{0xCD9E8D57u} * counter[2];
        counter = {static_cast<uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(b), static_cast<uint32_t>(a >> 32) ^ counter[3] ^ key[1],
                   static_cast<uint32_t>(a)};
        key[0] += 0x9E3779B9u;
        key[1] += 0xBB67AE85u;
    }
    return counter;
}

/// Block number `block` of a key's stream.
constexpr std::array<uint32_t, 4> random_block(const RandomKey& key, uint64_t block) {
    return philox({static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32), key.step, uint32_t{key.layer} << 16 | static_cast<uint32_t>(key.purpose)},
                  {static_cast<uint32_t>(key.seed), static_cast<uint32_t>(key.seed >> 32)});
}

/// 32 random bits for element `index`: lane index % 4 of block index / 4.
constexpr uint32_t random_bits(const RandomKey& key, uint64_t index) { return random_block(key, index / 4)[index % 4]; }

/// Uniform in [0, 1) with 24 bits, exact in float.
constexpr float uniform(const RandomKey& key, uint64_t index) { return static_cast<float>(random_bits(key, index) >> 8) * 0x1p-24f; }

/// 16 random bits for element `index`: half-word index % 8 (low half first) of block index / 8. Dropout uses these: a block serves eight elements.
constexpr uint32_t random_bits16(const RandomKey& key, uint64_t index) {
    const uint32_t word = random_block(key, index / 8)[(index % 8) / 2];
    return (index & 1) ? word >> 16 : word & 0xffffu;
}

/// Dropout of one tensor. Element i of the tensor is element first + i of the global one. Dropped when random_bits16 < threshold; kept
/// elements are multiplied by scale = 65536 / (65536 - threshold), so that the expectation is exact. Rate 0 (threshold 0) is the identity.
/// With `features` the global tensor is [.., length, features] and one mask of [.., features] serves all places along the length (T5X).
struct Dropout {
    RandomKey key;
    uint64_t first = 0;
    uint32_t threshold = 0;  ///< round(rate * 65536)
    float scale = 1.0f;
    uint64_t length = 0, features = 0;  ///< 0: every element has a draw of its own

    static constexpr Dropout with(float rate, RandomKey key, uint64_t first) {
        Dropout d{key, first, static_cast<uint32_t>(rate * 65536.0f + 0.5f), 1.0f};
        d.scale = 65536.0f / (65536.0f - static_cast<float>(d.threshold));
        return d;
    }
    constexpr bool active() const { return threshold != 0; }
    /// Which element of the key's stream decides about element i.
    constexpr uint64_t draw(uint64_t i) const {
        const uint64_t index = first + i;
        return features == 0 ? index : index / (length * features) * features + index % features;
    }
    /// Multiplier of element i: 0 or scale.
    constexpr float factor(uint64_t i) const { return random_bits16(key, draw(i)) < threshold ? 0.0f : scale; }
};

/// Sequential numbers from one key, for host code (shuffles, span lengths, sampling); the position can be saved as one integer.
class RandomStream {
public:
    explicit RandomStream(RandomKey key, uint64_t position = 0) : key_(key), position_(position) {}
    uint32_t bits() { return random_bits(key_, position_++); }
    double uniform() { return static_cast<double>(bits64() >> 11) * 0x1p-53; }  ///< [0, 1), 53 bits
    /// Uniform integer in [0, bound), bound >= 1; no value is more probable than another by more than 2^-64.
    uint64_t below(uint64_t bound) { return static_cast<uint64_t>((static_cast<unsigned __int128>(bits64()) * bound) >> 64); }
    uint64_t position() const { return position_; }

private:
    uint64_t bits64() {
        const uint64_t high = bits();  // two statements: the operands of one expression may be evaluated in any order
        return high << 32 | bits();
    }

    RandomKey key_;
    uint64_t position_;
};

}  // namespace flanmoe

// Small models and batches for the tests of the model, the training step and generation.
#pragma once

#include "core/random.hpp"
#include "model/transformer.hpp"

namespace flanmoe::test {

inline ModelConfig small_t5(bool v11 = true) {
    ModelConfig c;
    c.vocab_size = 61, c.d_model = 24, c.d_kv = 10, c.heads = 3, c.d_ff = 36;
    c.encoder_layers = 3, c.decoder_layers = 2;
    c.gated = v11, c.activation = v11 ? Activation::gelu_tanh : Activation::relu;
    c.tied = c.scale_outputs = !v11;
    return c;
}

inline ModelConfig small_switch(int64_t experts = 4) {
    ModelConfig c = small_t5(false);
    c.encoder_layers = 2;
    c.experts = experts;
    c.encoder_sparse = {1}, c.decoder_sparse = {1};
    c.expert_d_ff = 20, c.expert_dropout = 0.2;
    c.encoder_routing.jitter = c.decoder_routing.jitter = 0.01;
    c.encoder_routing.min_capacity = c.decoder_routing.min_capacity = 1;
    return c;
}

/// Decoder-only with everything that T5 does not have: rotary positions, shared key heads, biases, scaled scores, a gated shared expert.
inline ModelConfig small_decoder() {
    ModelConfig c = small_t5();
    c.encoder_decoder = false, c.encoder_layers = 0, c.decoder_layers = 2;
    c.heads = 4, c.kv_heads = 2, c.rotary = 100, c.scale_attention = c.qkv_bias = true;
    c.activation = c.expert_activation = Activation::silu, c.gated = c.expert_gated = true;
    c.experts = 4, c.decoder_sparse = {1}, c.expert_d_ff = 20, c.expert_dropout = 0.2, c.shared_d_ff = 12, c.shared_gate = true;
    c.decoder_routing.k = 2, c.decoder_routing.dropless = true;
    return c;
}

/// The same with relative positions in every layer, plain shared experts and bidirectional prefixes.
inline ModelConfig small_prefix_decoder() {
    ModelConfig c = small_decoder();
    c.rotary = 0, c.scale_attention = c.qkv_bias = false, c.bias_per_layer = c.bidirectional_prefix = true, c.shared_gate = false;
    return c;
}

/// Random batch: rows of uneven length, the longer ones packed with two segments; decoder ids are the targets shifted right in each segment.
inline Batch random_batch(int64_t rows, int64_t source, int64_t target, int64_t vocabulary, uint64_t seed, int64_t first_row = 0) {
    RandomStream random({seed, 0, 0, Purpose::shuffle});
    Batch b;
    b.rows = rows, b.encoder_length = source, b.decoder_length = target, b.first_row = first_row;
    for (int64_t r = 0; r < rows; ++r) {
        const int64_t real = r == 0 ? source : source - static_cast<int64_t>(random.below(static_cast<uint64_t>(source) / 2 + 1));
        const int64_t out = r == 0 ? target : target - static_cast<int64_t>(random.below(static_cast<uint64_t>(target) / 2 + 1));
        const bool packed = r % 2 == 0 && real > 3 && out > 3;
        for (int64_t i = 0; i < source; ++i) {
            b.encoder_ids.push_back(i < real ? 2 + static_cast<int32_t>(random.below(static_cast<uint64_t>(vocabulary) - 2)) : 0);
            b.encoder_segments.push_back(i >= real ? 0 : packed && i >= real / 2 ? 2 : 1);
        }
        int32_t previous = 0;
        for (int64_t i = 0; i < target; ++i) {
            const int32_t segment = i >= out ? 0 : packed && i >= out / 2 ? 2 : 1;
            if (i > 0 && segment != b.decoder_segments.back()) previous = 0;
            const int32_t label = i < out ? 2 + static_cast<int32_t>(random.below(static_cast<uint64_t>(vocabulary) - 2)) : 0;
            b.decoder_ids.push_back(i < out ? previous : 0);
            b.decoder_segments.push_back(segment);
            b.decoder_targets.push_back(i < out ? label : ignored);
            previous = label;
        }
    }
    return b;
}

/// Random decoder-only batch: every row two packed segments and some padding; the first third of a segment is input, with `prefix` a bidirectional one.
inline Batch random_decoder_batch(int64_t rows, int64_t length, int64_t vocabulary, uint64_t seed, bool prefix, int64_t first_row = 0) {
    Batch b = random_batch(rows, 0, length, vocabulary, seed, first_row);
    b.encoder_ids.clear(), b.encoder_segments.clear();
    for (int64_t r = 0; r < rows; ++r) {
        const int64_t real = length - r % 3, cut = real / 2;
        for (int64_t i = 0; i < length; ++i) {
            const auto at = static_cast<size_t>(r * length + i);
            const int64_t begin = i < cut ? 0 : cut, end = i < cut ? cut : real, input = begin + (end - begin) / 3;
            RandomStream random({seed, 1, 0, Purpose::shuffle}, at * 8);
            const auto id = [&] { return 2 + static_cast<int32_t>(random.below(static_cast<uint64_t>(vocabulary) - 2)); };
            b.decoder_segments[at] = i >= real ? 0 : i < cut ? 1 : 2;
            b.decoder_ids[at] = i >= real || i == begin ? 0 : id();
            b.decoder_targets[at] = i >= real || i + 1 < input ? ignored : id();
            if (prefix) b.prefix_ends.push_back(i < real && i < input ? static_cast<int32_t>(input) : 0);
        }
    }
    return b;
}

/// Rows [first, first + count) of a batch, as they would come in another micro-batch of the same step.
inline Batch cut(const Batch& b, int64_t first, int64_t count) {
    Batch c = b;
    c.rows = count, c.first_row = b.first_row + first;
    const auto rows = [&](const std::vector<int32_t>& v, int64_t length) {
        return v.empty() ? v : std::vector<int32_t>(v.begin() + first * length, v.begin() + (first + count) * length);
    };
    c.encoder_ids = rows(b.encoder_ids, b.encoder_length), c.encoder_segments = rows(b.encoder_segments, b.encoder_length);
    c.decoder_ids = rows(b.decoder_ids, b.decoder_length), c.decoder_segments = rows(b.decoder_segments, b.decoder_length);
    c.decoder_targets = rows(b.decoder_targets, b.decoder_length), c.prefix_ends = rows(b.prefix_ends, b.decoder_length);
    return c;
}

}  // namespace flanmoe::test

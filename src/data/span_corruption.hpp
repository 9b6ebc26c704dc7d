// T5's denoising objective: spans of tokens are replaced by sentinels in the inputs, and spelt out after the same sentinels in the targets.
//
// Source: T5's preprocessors (random_spans_helper, random_spans_noise_mask, noise_span_to_unique_sentinel). Sentinels have descending ids from
// `first_sentinel` (= vocabulary size - 1); inputs and targets end in `eos`. There is no closing sentinel. Everything here is a pure function of
// its arguments; randomness comes from the stream that is passed in.
#pragma once

#include "core/random.hpp"

#include <cstdint>
#include <span>
#include <vector>

namespace flanmoe {

struct SpanLengths {
    int64_t window = 0;   ///< raw tokens that are corrupted together
    int64_t targets = 0;  ///< length of their targets
    bool operator==(const SpanLengths&) const = default;
};

/// Longest window whose corrupted inputs (sentinels and end mark included) fit into `inputs` tokens: noise = round(window x density), spans =
/// round(noise / mean_span), halves to even; inputs = window - noise + spans + 1, targets = noise + spans + 1. At density 0.5 exactly, when the
/// targets exceed `inputs`, window and targets are one less. 512 tokens at 0.15 and 3 give {568, 114}. Exit::usage if a value is out of range.
SpanLengths span_lengths(int64_t inputs, double density, double mean_span);

struct SpanCounts {
    int64_t noise = 0, spans = 0;
    int64_t inputs(int64_t window) const { return window - noise + spans + 1; }
    int64_t targets() const { return noise + spans + 1; }
};

/// What is masked of a window of at least 2 tokens: noise clipped to [1, window - 1], at least one span and none of them empty on either side.
SpanCounts span_counts(int64_t window, double density, double mean_span);

/// Lengths of `pieces` non-empty parts that sum to `total`, uniform over all such compositions. Appends to `lengths`.
void random_composition(int64_t total, int64_t pieces, RandomStream& random, std::vector<int32_t>& lengths);

/// 1 where a token is noise; runs alternate, starting with kept tokens.
std::vector<uint8_t> random_noise_mask(int64_t window, double density, double mean_span, RandomStream& random);

/// Replaces `inputs` and `targets` by the corrupted tokens: every run of noise becomes one sentinel in the inputs, and that sentinel followed by
/// the run in the targets; both end in `eos`.
void corrupt_spans(std::span<const int32_t> tokens, std::span<const uint8_t> noise, int32_t first_sentinel, int32_t eos, std::vector<int32_t>& inputs,
                   std::vector<int32_t>& targets);

/// Length of the encoder's part of a prefix language model: uniform in [1, window - 1], for a window of at least 2 tokens.
int64_t random_prefix_length(int64_t window, RandomStream& random);

}  // namespace flanmoe

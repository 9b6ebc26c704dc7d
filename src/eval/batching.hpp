// From token sequences of uneven length to padded batches of evaluation.
//
// What a row gives does not depend on the rows beside it: padding is hidden from attention, every row is a routing group of its own, and its experts' capacity
// counts its real tokens only. So batches are cut as suits the machine: rows of like length together.
#pragma once

#include "model/transformer.hpp"

#include <cstdint>
#include <span>
#include <vector>

namespace flanmoe {

using Tokens = std::vector<int32_t>;

struct BatchLimits {
    int64_t rows = 256;
    int64_t tokens = 8192;  ///< padded input tokens of a batch with more than one row
};

/// Reads weights only: dropout and jitter off, evaluation's capacity, every row routed alone.
Pass evaluation_pass(Context& context, const Transformer& model);

/// Indices of the sequences, the longest first (equal ones in order), cut into batches within the limits.
std::vector<std::vector<size_t>> batches_by_length(std::span<const Tokens* const> sequences, const BatchLimits& limits);

/// What generation starts from, padded on the right to the longest: the encoder side of a batch, or, decoder-only, prompts: the start mark and the input, as
/// training lays them out (a prefix if the model sees its inputs in both directions).
Batch input_batch(const ModelConfig& config, std::span<const Tokens* const> inputs);
/// The same with targets (end mark included) to be scored: on the decoder side shifted right, or, decoder-only, behind their inputs.
Batch scoring_batch(const ModelConfig& config, std::span<const Tokens* const> inputs, std::span<const Tokens* const> targets);

}  // namespace flanmoe

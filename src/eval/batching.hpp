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

/// Encoder side of a batch: sequences padded on the right to the longest.
Batch encoder_batch(const ModelConfig& config, std::span<const Tokens* const> inputs);
/// Adds the decoder side: targets (end mark included) shifted right.
void add_targets(const ModelConfig& config, std::span<const Tokens* const> targets, Batch& batch);

}  // namespace flanmoe

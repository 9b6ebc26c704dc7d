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
    int64_t tokens = 8192;  ///< padded tokens of a batch with more than one row: of its inputs, and of the targets that are scored
};

/// Of a row: tokens of its input; if targets of it are scored, how many share the row, the longest one's tokens and those of all.
struct InputLengths {
    int64_t input = 0, targets = 0, target = 0, target_tokens = 0;
    bool copied = false;  ///< every target has a copy of its input's keys and values (most_copies())
};

/// How many sequences of so many tokens may have keys and values of their own in one batch: 8 times the limit in tokens, but one at least.
int64_t most_copies(const BatchLimits& limits, int64_t tokens);

/// Positions that batches have computed, and those of them that hold a token.
struct BatchSlots {
    int64_t all = 0, busy = 0;
    void add(const Batch& batch);
    BatchSlots& operator+=(const BatchSlots& other) { return all += other.all, busy += other.busy, *this; }
};

/// Reads weights only: dropout and jitter off, evaluation's capacity, every row routed alone.
Pass evaluation_pass(Context& context, const Transformer& model);

/// Indices of the rows, cut into batches within the limits. Rows of a batch have equally many targets; those with the longest targets come first, of these those with the longest inputs
/// (equal ones in order). Where targets are scored, a batch that is not small ends where padding would take over 15 % of its slots; what is generated for inputs takes as many steps as a
/// batch's longest answer, so that smaller batches would cost more than they save.
std::vector<std::vector<size_t>> batches_by_length(std::span<const InputLengths> rows, const BatchLimits& limits);

/// What generation starts from, padded on the right to the longest: the encoder side of a batch, or, decoder-only, prompts: the start mark and the input, as
/// training lays them out (a prefix if the model sees its inputs in both directions).
Batch input_batch(const ModelConfig& config, std::span<const Tokens* const> inputs);
/// The same with targets (end mark included) to be scored, equally many an input: all of input 0 come first. On the decoder side they are shifted right, and share what the encoder and
/// the projections of cross-attention make of their input; routing knows them as rows of their own, so each gets what it would get alone. Decoder-only, a target stands behind its input, one an input.
Batch scoring_batch(const ModelConfig& config, std::span<const Tokens* const> inputs, std::span<const Tokens* const> targets);
/// Decoder-only, what continues the prompts of input_batch(): equally many targets an input, each row beginning with its prompt's last token (continuation_nll() in model/decoding.hpp).
Batch continuation_batch(const ModelConfig& config, std::span<const Tokens* const> inputs, std::span<const Tokens* const> targets);
/// Whether targets of one input may share what the model computes of it, with the result of each alone. Not decoder-only if experts have limits or choose their tokens: a limit counts all
/// tokens of a row, so that a target decides with its length which of the prompt's tokens are dropped.
bool targets_share_input(const ModelConfig& config);

}  // namespace flanmoe

// A micro-batch as the model sees it. Host memory; rows are padded on the right.
//
// Segments: 0 = padding, 1, 2, ... = the packed example a token belongs to. Attention stays inside a segment. Targets equal to `ignored` count in
// no loss. `first_row` is the index of row 0 in the step's global batch: random numbers and routing groups are keyed by it, so that the same step
// gives the same bits however it is cut.
#pragma once

#include <cstdint>
#include <vector>

namespace flanmoe {

constexpr int32_t ignored = -1;

struct Batch {
    int64_t rows = 0;
    int64_t encoder_length = 0;  ///< 0 for decoder-only models
    int64_t decoder_length = 0;
    int64_t first_row = 0;
    int64_t targets_per_row = 1;  ///< decoder rows that read the same encoder row: targets of one input that are scored; all of row 0 come first
    std::vector<int32_t> encoder_ids, encoder_segments;                    ///< [rows, encoder_length]
    std::vector<int32_t> decoder_ids, decoder_segments, decoder_targets;   ///< [rows * targets_per_row, decoder_length]; ids are the targets shifted right within each segment
    std::vector<uint8_t> encoder_routed, decoder_routed;                   ///< 1 = the router may route it; empty: every token that is not padding
    std::vector<int32_t> prefix_ends;  ///< [rows, decoder_length], decoder-only prefix-LM, else empty: of a position inside a segment's prefix (which it
                                       ///< sees in both directions) the index in the row at which that prefix ends; 0 outside of prefixes

    /// Targets that count in the loss.
    int64_t target_tokens() const {
        int64_t n = 0;
        for (int32_t t : decoder_targets) n += t != ignored;
        return n;
    }
    /// Tokens that are not padding, both sides.
    int64_t real_tokens() const {
        int64_t n = 0;
        for (int32_t s : encoder_segments) n += s != 0;
        for (int32_t s : decoder_segments) n += s != 0;
        return n;
    }
};

/// All micro-batches of one optimizer step.
using StepBatch = std::vector<Batch>;

}  // namespace flanmoe

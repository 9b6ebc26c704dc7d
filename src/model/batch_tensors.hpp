// A micro-batch in the memory of a context: ids, segments and masks as the model reads them.
//
// All arrays of a batch lie in one piece, so that one copy brings it to the device: pack() lays them out, upload() does it for a batch that stands alone.
#pragma once

#include "config/model_config.hpp"
#include "core/context.hpp"
#include "data/batch.hpp"

namespace flanmoe {

struct BatchTensors {
    int64_t rows = 0, encoder_length = 0, decoder_length = 0, first_row = 0, targets_per_row = 1;  ///< as in Batch
    Tensor encoder_ids, encoder_segments;  ///< i32 [rows, encoder_length]; empty for decoder-only models
    Tensor encoder_routed, decoder_routed; ///< u8 [tokens]: 1 where the router may route
    Tensor decoder_ids, decoder_segments;  ///< i32 [rows * targets_per_row, decoder_length]
    Tensor targets;                        ///< i32 [decoder tokens]; empty if the batch has none
    Tensor prefix_ends;                    ///< i32 like decoder_ids; empty if the batch has none
};

/// Bytes that pack() fills.
int64_t packed_bytes(const Batch& batch);
/// Lays the batch out from `host` on; the tensors are at the same distances from `device`, which is where the bytes must be copied. Exit::bad_data for an id
/// outside of the model's vocabulary.
BatchTensors pack(const ModelConfig& config, const Batch& batch, void* host, void* device);
/// The batch in the context's arena.
BatchTensors upload(Context& context, const ModelConfig& config, const Batch& batch);

}  // namespace flanmoe

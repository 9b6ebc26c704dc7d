// How much main memory a run needs, told before anything is allocated: a model that does not fit is refused with figures, not killed by the system.
#pragma once

#include "config/config.hpp"
#include "core/tensor.hpp"
#include "model/flops.hpp"
#include "model/transformer.hpp"

#include <string>

namespace flanmoe {

/// Bytes by purpose.
struct MemoryNeed {
    int64_t weights = 0;        ///< master weights
    int64_t compute_copy = 0;   ///< weights in bf16, if that is the compute type
    int64_t gradients = 0;
    int64_t optimizer = 0;
    int64_t activations = 0;    ///< of one micro-batch, forward and backward
    int64_t rows = 0;           ///< of that micro-batch; 0 = not training
    int64_t total() const { return weights + compute_copy + gradients + optimizer + activations; }
};

/// Tokens of a decoder row as the loader makes them: data.decoder_length, or what the objective derives from the encoder's.
int64_t target_length(const DataConfig& data, int64_t source);
/// Weights alone, in a compute type: evaluation, generation.
MemoryNeed memory_of_weights(const ParameterStore& parameters, DType compute);
/// Training with micro-batches of `rows` rows. Frozen parameters have gradients, but no optimizer state. Activations are the tensors that layers keep and the
/// largest that a backward pass adds: within a sixth of the arena's peak (a fifth with Recompute::full).
MemoryNeed memory_of_training(const Config& config, const Transformer& model, const SequenceShape& rows);
/// Exit::out_of_memory with a sentence (what is needed for what, what there is, what to do) if the engine has less.
void check_memory(const MemoryNeed& need, int64_t parameters, const Engine& engine = host_engine());

}  // namespace flanmoe

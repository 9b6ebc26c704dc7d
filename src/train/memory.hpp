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
    int64_t parameters = 0;     ///< that the rank holds; 0 = not training
    int64_t total() const { return weights + compute_copy + gradients + optimizer + activations; }
};

/// Tokens of a decoder row as the loader makes them: data.decoder_length, or what the objective derives from the encoder's.
int64_t target_length(const DataConfig& data, int64_t source);
/// Weights alone, those of this rank, in a compute type: evaluation, generation. Exact.
MemoryNeed memory_of_weights(const ParameterStore& parameters, DType compute);
/// Training with micro-batches of `rows` rows of the part of a model that a rank has. Exact but for activations: weights, gradients and optimizer state are the bytes that store and
/// optimizer take of the host's engine, gaps of alignment included (a GPU's allocator rounds each piece of state up further); of a sharded store those of the replica that needs
/// most. Frozen parameters have gradients, but no optimizer state. Activations are the tensors that layers keep and the
/// largest that a backward pass adds: within a sixth of the arena's peak (a fifth with Recompute::full). With expert ranks the config has the experts of one of them; dropless
/// rows are taken to come evenly.
MemoryNeed memory_of_training(const Config& config, const Transformer& model, const SequenceShape& rows, int64_t expert_ranks = 1);
/// What one rank of a mesh computes, as a config of its own: its part of every width and of the experts, and the most rows that a rank gets, in micro-batches
/// of at most `micro_rows` (0: as the config says), in whole routing groups.
Config config_of_rank(Config config, const MeshShape& mesh, int64_t micro_rows = 0);
/// Training on the rank of a mesh that needs most, without any of its ranks. The mesh must be free of objections (train/plan.hpp).
MemoryNeed memory_of_rank(const Config& config, const MeshShape& mesh, int64_t micro_rows = 0);
/// Whether every rank keeps master weights of what one rank updates: a forward in their type reads them.
bool keeps_all_masters(const TrainConfig& config, const Parameter& parameter);
/// Exit::out_of_memory with a sentence (what is needed for what, what there is, what to do) if the engine has less. `sharers`: ranks that need as much of the same memory.
void check_memory(const MemoryNeed& need, int64_t parameters, const Engine& engine = host_engine(), int sharers = 1);

}  // namespace flanmoe

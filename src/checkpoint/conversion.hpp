// Converting model directories: another stored type, other shards, the layout of another family, and sparse upcycling (as in T5X's sparse_upcycle.gin): a dense
// model becomes a Mixture of Experts in which every expert begins as a copy of the dense feed-forward, under a router drawn from a seed.
//
// Tensors pass from file to file one by one; the model is never in memory as a whole. The new directory is made under a temporary name and renamed when it is
// complete: there is never half of one.
#pragma once

#include "checkpoint/model_directory.hpp"

#include <filesystem>
#include <functional>
#include <string>

namespace flanmoe {

struct ConversionSettings {
    ModelConfig model;                    ///< what the new directory holds: the source's model, or upcycled_model()
    DType weights = DType::f32;           ///< f32 or bf16; routers stay f32
    int64_t shard_bytes = 5'000'000'000;
    int64_t row_tokens = 0;               ///< for write_hf_config
    uint64_t seed = 0;                    ///< of new routers
    bool keep_optimizer = false;          ///< the source's optimizer state too, copied to every expert as the weights are; new parameters have none
};

struct ConversionResult {
    int64_t tensors = 0, bytes = 0;  ///< of the new directory's weights
    int64_t files = 0;               ///< of weights
    int64_t copied = 0, drawn = 0;   ///< tensors that came from the source, and new ones
};

/// `wanted` as an upcycled form of `dense`, of which it has everything but [moe]. Exit::usage with the reason if `dense` has experts already, or if the experts of
/// a sparse layer would not have the shape and activation of the feed-forward they are copied from.
ModelConfig upcycled_model(const ModelConfig& dense, ModelConfig wanted);
/// Why an upcycled model does not compute at step 0 what its parent computes, as a clause; empty if it does (up to rounding, where nothing is dropped).
std::string changed_function(const ModelConfig& sparse);

/// Makes the directory `target` from the model directory `source`. Exit::cannot_create if `target` exists; Exit::bad_checkpoint for a source that is not what its
/// config says, or has no optimizer state to keep. `check`, if given, sees the complete temporary directory before it gets its name, and throws to refuse it.
ConversionResult convert_model(const std::filesystem::path& source, const std::filesystem::path& target, const ConversionSettings& settings,
                               const std::function<void(const std::filesystem::path&)>& check = {});

/// The largest difference of two models' logits on the same random tokens (evaluation, nothing dropped, f32), and the root mean square of the first one's.
struct FunctionDifference {
    double largest = 0, rms = 0;
    double relative() const { return rms > 0 ? largest / rms : largest; }
};
/// Loads one model after the other.
FunctionDifference compare_functions(const std::filesystem::path& first, const std::filesystem::path& second);

}  // namespace flanmoe

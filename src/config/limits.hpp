// Largest sizes that a config may have, a run's as a checkpoint's: what is above is a slip or damage, and products of sizes stay within 64 bits.
#pragma once

#include <cstdint>

namespace flanmoe {

inline constexpr int64_t largest_size = int64_t{1} << 22;  ///< widths, heads, rows of the embedding table
inline constexpr int64_t most_layers = 10000;              ///< of a stack
inline constexpr int64_t most_experts = 65536;             ///< of a layer
inline constexpr int64_t most_buckets = 65536;
inline constexpr double most_weights = 1e15;               ///< of a model
inline constexpr int64_t most_rows = int64_t{1} << 30;     ///< of a batch
inline constexpr int64_t longest_row = int64_t{1} << 30;   ///< in tokens
inline constexpr double most_tokens = 1e13;                ///< of a batch
inline constexpr int64_t most_threads = 4096;

}  // namespace flanmoe

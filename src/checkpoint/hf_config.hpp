// Hugging Face config.json <-> ModelConfig.
//
// Five model types: `t5` (dense encoder-decoder), `switch_transformers` (top-1 ungated experts in the layout of that class), `mixtral` and `qwen2_moe`
// (decoder-only, rotary positions, dropless top-k) and our own `flanmoe` (the T5 keys plus what has no class there: gated experts, other routers, free
// choice of sparse layers, relative positions without an encoder). The first that holds a model exactly is the one that is written. What the classes
// cannot say (capacity factors, drop-out of single sites, ...) stands under a "flanmoe" sub-
// object, which transformers ignores and which restores every field. Reading refuses what we cannot compute, naming the key and the remedy.
#pragma once

#include "config/model_config.hpp"
#include "core/tensor.hpp"

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace flanmoe {

enum class HfLayout : uint8_t { t5, switch_transformers, flanmoe, mixtral, qwen2_moe };
const char* name_of(HfLayout layout);

/// The layout in which a model is written.
HfLayout layout_of(const ModelConfig& config);

/// Text of config.json. `weights` is the stored type; `row_tokens` the length of a row for which the integer expert_capacity of switch_transformers is
/// computed from our evaluation factor (0: so large that nothing is dropped there).
std::string write_hf_config(const ModelConfig& config, DType weights = DType::f32, int64_t row_tokens = 0);

/// ModelConfig from the text of config.json; `where` names the file in errors (Exit::bad_checkpoint).
ModelConfig parse_hf_config(std::string_view json, const std::string& where);

/// Changes `routing` as the JSON object `json` says, whose keys are those of `routing` in recorded cases and of encoder_moe / decoder_moe in our
/// config.json: router, k, normalize, prioritized, density, second {policy, eval_policy, threshold}, capacity (slots; null = dropless), capacity_factor,
/// eval_capacity_factor, eval_dropless, min_capacity, group ("row", "batch" or a number of rows), route_padding, jitter, balance_bias,
/// balance_bias_rate, force_causal. Absent keys change nothing.
void parse_routing(std::string_view json, RoutingConfig& routing, const std::string& where);

/// Text of generation_config.json.
std::string write_generation_config(const ModelConfig& config);

}  // namespace flanmoe

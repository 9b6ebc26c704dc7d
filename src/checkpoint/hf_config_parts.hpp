// What the readers and writers of config.json share. Included by hf_*.cpp only.
#pragma once

#include "checkpoint/hf_config.hpp"
#include "checkpoint/json_reader.hpp"
#include "config/limits.hpp"

namespace flanmoe {

/// transformers' name of an activation: relu, gelu_new (the tanh form), gelu (erf), silu; and back, refusing others.
const char* activation_name(Activation activation);
Activation activation_of(const JsonReader& reader, const char* key, const std::string& name);

/// What Hugging Face's configs cannot say. These keys stand at the top level of a flanmoe config and in the sub-object "flanmoe" of the others.
void write_ours(Json& json, const ModelConfig& config);
void read_ours(const JsonReader& reader, ModelConfig& config);

/// A config that we wrote holds the whole truth in its sub-object "flanmoe"; it is read over `config` where `reader` has one. Refuses one that
/// contradicts the keys that were read before.
void read_sub_object(const JsonReader& reader, ModelConfig& config);

// mixtral and qwen2_moe (hf_decoder_config.cpp).
bool fits_mixtral(const ModelConfig& config);
bool fits_qwen2_moe(const ModelConfig& config);
void write_decoder_keys(Json& json, const ModelConfig& config, HfLayout layout);
ModelConfig read_decoder_keys(const JsonReader& reader, HfLayout layout);

}  // namespace flanmoe

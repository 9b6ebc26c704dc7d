// What there is to know about a path without reading values: our checkpoint, a model directory in Hugging Face layout, or one safetensors file.
#pragma once

#include "checkpoint/model_directory.hpp"

#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace flanmoe {

/// What a stored tensor belongs to, by its name.
enum class TensorKind : uint8_t { embedding, attention, ffn, expert, router, norm, head, other };
constexpr int tensor_kinds = 8;
const char* name_of(TensorKind kind);
TensorKind kind_of(std::string_view tensor_name);

/// Optimizer state by slot: everything behind the last dot of a name.
struct OptimizerSlot {
    std::string slot;
    int64_t tensors = 0, elements = 0, bytes = 0;
};

struct TrainingSummary {
    std::vector<std::pair<std::string, std::string>> state;  ///< top-level keys of state.json and their values as text, safe to print
    std::vector<OptimizerSlot> optimizer;
    int64_t optimizer_bytes = 0;
};

struct Inspection {
    std::filesystem::path path;
    std::string kind;  ///< "flanmoe checkpoint", "model directory" or "safetensors file"
    WeightFiles weights;
    std::optional<ModelConfig> config;
    std::string config_problem;  ///< why there is no config although there is a config.json
    std::optional<TrainingSummary> training;

    int64_t parameters = 0, bytes = 0;
    std::optional<double> active;  ///< parameters that one token meets; unknown for sparse models without a config
    std::array<int64_t, tensor_kinds> parameters_by_kind{}, tensors_by_kind{};
};

/// Reads headers and small JSON files only.
Inspection inspect(const std::filesystem::path& path);

/// One line on a model: family, sizes, experts.
std::string describe(const ModelConfig& config);

/// Every rule that can be checked without another file: headers, index, config against the embedding, manifest and hashes. One sentence a problem;
/// `checked` gets what was done, one line each.
std::vector<std::string> verify_path(const std::filesystem::path& path, std::vector<std::string>& checked);

/// Keys of two config.json files that differ, as "key: old -> new".
std::vector<std::string> config_differences(const std::filesystem::path& a, const std::filesystem::path& b);

}  // namespace flanmoe

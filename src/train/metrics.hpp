// The numbers of a step, as an ordered list of names and values, and metrics.jsonl, which holds them one line a record:
//
//   {"kind":"train","step":20,"loss":3.25,...}
//
// The usual names are those of metric_name below; values that are not finite are written as null, which JSON has. On resume the file is cut after the
// last line of the resumed step, so that no step stands twice.
#pragma once

#include "train/log_file.hpp"

#include <string>
#include <utility>
#include <vector>

namespace flanmoe {

using Metrics = std::vector<std::pair<std::string, double>>;

/// The value of a name; `missing` if there is none.
double metric(const Metrics& metrics, std::string_view name, double missing = 0);

/// Names of the training record, with their units, that progress lines and reports look for; summary.cpp adds others. Figures of one sparse layer have its
/// stack and block in front: "encoder.1/utilization".
namespace metric_name {
constexpr const char* loss = "loss";                    ///< sum of the terms below with their coefficients
constexpr const char* cross_entropy = "cross_entropy";  ///< nats a target token
constexpr const char* balance = "balance";              ///< balance loss, without coefficient
constexpr const char* router_z = "router_z";            ///< router z-loss, without coefficient
constexpr const char* output_z = "output_z";            ///< output z-loss, without coefficient
constexpr const char* learning_rate = "learning_rate";
constexpr const char* gradient_norm = "gradient_norm";  ///< before clipping
constexpr const char* tokens = "tokens";                ///< real tokens seen since the stage began
constexpr const char* tokens_per_second = "tokens_per_second";  ///< real encoder and decoder tokens
constexpr const char* flops_per_second = "flops_per_second";    ///< model operations, forward x 3 (model/flops.hpp)
constexpr const char* peak_share = "peak_share";                ///< flops_per_second / measured peak, in [0, 1]
constexpr const char* expert_load = "expert_load";              ///< rows kept by the busiest expert / mean over experts
constexpr const char* utilization = "utilization";              ///< slots used / slots
constexpr const char* dropped = "dropped";                      ///< share of tokens that no expert took
constexpr const char* confidence = "confidence";                ///< mean gate of what was dispatched
constexpr const char* entropy = "router_entropy";               ///< of a token's probabilities, nats, mean over tokens
constexpr const char* dead_experts = "dead_experts";            ///< experts of a layer that kept no row in the step
constexpr const char* second_dropped = "second_dropped";        ///< of the choices after the first that were wanted, the share that found no slot
constexpr const char* skipped = "skipped";                      ///< steps skipped since the run began
constexpr const char* seconds_per_step = "seconds_per_step";
}  // namespace metric_name

/// metrics.jsonl of a run directory.
class MetricsLog {
public:
    /// Opens the file for appending; what belongs to later steps than `resumed_step` is removed first (0: everything), as is a line cut short.
    MetricsLog(const std::filesystem::path& path, int64_t resumed_step);
    /// `kind` is "train" or "validation".
    void write(std::string_view kind, int64_t step, const Metrics& metrics);

private:
    LogFile file_;
};

}  // namespace flanmoe

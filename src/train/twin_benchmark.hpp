// A sparse model's training step beside that of the dense model that spends as much on a token (config/dense_twin.hpp).
//
// A sparse step cannot be as fast as its twin's: its weights, gradients and optimizer state are many times as many bytes, and every step passes over them.
// So the measure is bound = dense time + extra bytes / copy bandwidth, both of the same run, and what counts is the ratio of the sparse time to it.
#pragma once

#include "train/benchmark.hpp"

namespace flanmoe {

struct TwinResult {
    Workload work;
    int64_t experts = 0, steps = 0;
    StepTimes sparse, dense;                      ///< of steps made in turn
    double extra_bytes = 0;                       ///< of weights (with their bf16 copy), gradients and optimizer state
    double copy_bandwidth = 0;                    ///< bytes copied a second (each is read once and written once), best of eight copies of 256 MB
    double bound() const { return dense.median + extra_bytes / copy_bandwidth; }
    double ratio() const { return sparse.median / bound(); }
};

/// Makes `warmup + steps` steps of the config's model and of its twin in turn and measures the last `steps`. Exit::usage for a dense config, and for
/// frozen parameters, of which the two models have not the same.
TwinResult run_twin_benchmark(const Config& config, const BenchmarkSettings& settings);
std::string to_json(const TwinResult& result);
std::string to_table(const TwinResult& result);

/// Best of eight copies inside the context's memory, in bytes copied a second.
double copy_bandwidth(Context& context, int64_t bytes = int64_t{256} << 20);

}  // namespace flanmoe

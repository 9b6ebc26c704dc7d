// Speed of a training step on random tokens, beside the speed of plain matrix products measured in the same run.
#pragma once

#include "config/config.hpp"
#include "core/tensor.hpp"

#include <string>
#include <utility>
#include <vector>

namespace flanmoe {

struct BenchmarkSettings {
    int64_t warmup = 2, steps = 7;
    int64_t source = 0, target = 0;  ///< tokens of a row; 0 = from the config's data section
    int64_t matmul_size = 2048;      ///< cube of the matrix-product measurement
};

struct BenchmarkResult {
    std::string dtype, forward;
    int64_t threads = 0, rows = 0, source = 0, target = 0, parameters = 0;
    double step_seconds = 0, fastest_seconds = 0, slowest_seconds = 0;  ///< median and spread of a step
    double tokens_per_second = 0;       ///< source + target tokens over the median
    double flops_per_second = 0;        ///< model operations (forward x 3) over the median
    double matmul_flops_per_second = 0; ///< best of eight products of matmul_size cubed in the run's type
    double peak_bytes = 0;              ///< largest resident memory of the process
    double loss = 0;
    std::vector<std::pair<std::string, double>> parts;  ///< mean milliseconds a step of every part, the longest first
};

/// Trains `warmup + steps` steps of the config's model on random tokens and measures the last `steps`.
BenchmarkResult run_benchmark(const Config& config, const BenchmarkSettings& settings);
std::string to_json(const BenchmarkResult& result);
std::string to_table(const BenchmarkResult& result);

/// Best rate of a matrix product n x n x n in operations a second.
double matmul_rate(DType type, int64_t n, int repetitions = 8);
/// Largest resident memory of this process so far, in bytes.
double peak_resident_bytes();

}  // namespace flanmoe

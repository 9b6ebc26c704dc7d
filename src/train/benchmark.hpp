// Speed of a training step on random tokens, beside the speed of plain matrix products measured in the same run; on several ranks also what they send, beside
// what the plan says (train/plan.hpp).
#pragma once

#include "comm/mesh.hpp"
#include "config/config.hpp"
#include "core/context.hpp"
#include "data/batch.hpp"
#include "model/transformer.hpp"
#include "optim/optimizer.hpp"
#include "train/memory.hpp"
#include "train/step.hpp"

#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace flanmoe {

struct BenchmarkSettings {
    int64_t warmup = 2, steps = 7;
    int64_t source = 0, target = 0;  ///< tokens of a row; 0 = from the config's data section
    int64_t matmul_size = 2048;      ///< cube of the matrix-product measurement
};

/// What was timed and on what.
struct Workload {
    std::string device, dtype, forward;  ///< forward: the type of the layers' forward
    int64_t threads = 0;                 ///< of a rank
    int64_t rows = 0, source = 0, target = 0;  ///< of a step of all ranks
    std::string text() const;  ///< "bf16 with a forward in f32 on cpu, 2 threads, 8 x (512 + 114) tokens a step"
    std::string json() const;  ///< its fields, without braces
};
struct StepTimes {
    double median = 0, fastest = 0, slowest = 0;  ///< seconds
};
StepTimes times_of(std::vector<double> seconds);

/// One kind of collective in one group of ranks: what a rank sends in a step, the mean of all ranks, and what the closed formulas of the plan say.
struct CollectiveTraffic {
    std::string group;
    int ranks = 1;
    Collective kind = Collective::all_reduce;
    double bytes = 0;
    double planned = 0;  ///< 0: the plan knows nothing of it
};

struct BenchmarkResult {
    Workload work;
    MeshShape mesh;
    int64_t parameters = 0;
    StepTimes step;
    double tokens_per_second = 0;       ///< source + target tokens over the median
    double flops_per_second = 0;        ///< model operations (forward x 3) over the median
    double matmul_flops_per_second = 0; ///< best of eight products of matmul_size cubed in the run's type, the sum of all ranks
    double peak_bytes = 0;              ///< largest resident memory of a process, on the host
    double loss = 0;
    std::vector<std::pair<std::string, double>> parts;  ///< mean milliseconds a step of every part on this rank, the longest first
    std::vector<CollectiveTraffic> collectives;         ///< none on one rank
};

/// A model of the config, its optimizer and random tokens, this rank's of a mesh, all on one device: makes steps. The same steps on any number of ranks.
class BenchmarkRig {
public:
    /// `settings` gives the tokens of a row. Does not communicate. Exit::out_of_memory if the model does not fit, Exit::usage if it does not divide.
    BenchmarkRig(Context& context, const Config& config, const BenchmarkSettings& settings, const Mesh& mesh = one_rank());
    /// One step; returns its seconds.
    double step();
    /// With the lengths and rows of a micro-batch that are timed.
    const Config& config() const { return config_; }
    const Transformer& model() const { return model_; }
    const MemoryNeed& need() const { return need_; }
    const Workload& work() const { return work_; }
    double loss() const { return loss_; }

private:
    Context& context_;
    Config config_;
    Workload work_;
    Transformer model_;
    MemoryNeed need_;
    std::unique_ptr<Optimizer> optimizer_;
    std::unique_ptr<GradientSync> sync_;
    std::unique_ptr<TrainingStep> training_step_;
    StepBatch batches_;
    int64_t steps_ = 0;
    double loss_ = 0;
};

/// Trains `warmup + steps` steps of the config's model on random tokens and measures the last `steps`; every rank of the mesh calls it.
BenchmarkResult run_benchmark(Context& context, const Config& config, const BenchmarkSettings& settings, const Mesh& mesh = one_rank());
std::string to_json(const BenchmarkResult& result);
std::string to_table(const BenchmarkResult& result);

/// Best rate of a matrix product n x n x n in operations a second.
double matmul_rate(Context& context, DType type, int64_t n, int repetitions = 8);
/// Largest resident memory of this process so far, in bytes.
double peak_resident_bytes();

}  // namespace flanmoe

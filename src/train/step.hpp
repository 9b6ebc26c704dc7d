// One optimizer step: gradients of all micro-batches with the step-wide loss normaliser, then clipping and the update.
//
// All of it is queued without looking at the device: losses, routing and the gradient's norm add up in a report there, and what decides whether the step may
// reach the weights (finite values, no spike of the loss) decides there too. The host waits once, at the end, and reads the report. A step that is not
// accepted changes neither weights nor optimizer.
#pragma once

#include "config/config.hpp"
#include "model/gradient_sync.hpp"
#include "model/transformer.hpp"
#include "optim/optimizer.hpp"

#include <limits>
#include <memory>
#include <vector>

namespace flanmoe {

/// Precisions of a training run: of the backward's products and the output layer, and of the layers' forward.
struct TrainingTypes {
    DType compute, forward;
};
TrainingTypes training_types(const TrainConfig& config);

struct LossCoefficients {
    double balance = 0, router_z = 0, output_z = 0;
};

/// What a step leaves on the device, side by side: ops/report.hpp. Beside the sums, the squared norm of the gradient, the loss, and `accepted` (NaN: refused).
struct StepReport {
    Tensor all;  ///< f64 [size_of_report]
    Tensor sums, squared_norm, loss, accepted;
};
/// Numbers of such a report.
int64_t size_of_report(const Transformer& model);

/// Loss of a step, and the norm of its gradient before clipping.
struct StepGradients {
    LossSums sums;
    double loss = 0;
    double gradient_norm = 0;
    StepReport report;  ///< where it came from; valid as long as the memory it lies in
    /// Whether the step may reach weights and optimizer: no NaN, no infinity, and squares of gradients stay finite in 32 bits.
    bool finite() const;
};

/// Everything but the data that a step depends on.
struct StepSettings {
    LossCoefficients coefficients;
    uint64_t seed = 0;
    int64_t step = 0;      ///< keys dropout and jitter
    int64_t update = 0;    ///< of the optimizer, from 0
    double rate = 0, clip = 0;  ///< learning rate; largest global norm, 0 = any
    double largest_loss = std::numeric_limits<double>::infinity();  ///< a step with a larger one is not applied
    Recompute recompute = Recompute::none;
    bool sequence_parallel = false;  ///< tensor ranks share the tokens between sub-layers
    int64_t exchange_chunks = 1;  ///< parts in which rows travel between expert ranks
};

/// What of them stands in a config: coefficients, seed, clipping, recomputation, and how ranks work together.
StepSettings step_settings(const Config& config);

/// Why a step of these ranks waits inside and cannot be recorded as one piece; empty if it can, on a device that records.
std::string recording_problem(const ModelConfig& config, const Mesh& mesh);

/// Makes the steps of a run. Queues copies of the batches, gradients, report, verdict and update; with `graph`, on a device that records, as one piece from the
/// second step of the same shapes on. The first step asks the device for what memory the step needs; after it the same shapes need no more. Between steps of
/// new shapes nothing of the context's arena may be in use.
class TrainingStep {
public:
    /// All of it must outlive the object.
    TrainingStep(Context& context, const Transformer& model, Optimizer& optimizer, bool graph = false, GradientSync* sync = nullptr);
    /// One step of this rank's batches; with `sync` gradients and report are summed over the ranks, and are those of the whole step on each of them. It was applied if it is finite and its loss at most settings.largest_loss.
    StepGradients run(const StepBatch& batches, const StepSettings& settings);

private:
    Context& context_;
    const Transformer& model_;
    Optimizer& optimizer_;
    GradientSync* sync_;
    std::unique_ptr<Lane> exchange_lane_;  ///< null where experts are not divided
    bool graph_;
    std::vector<int64_t> shapes_;  // of the step before
    Buffer input_, report_;        // on the device: largest loss and packed batches; report
    PinnedBuffer packed_, read_;   // the same on the host
    std::unique_ptr<Engine::Recording> recording_;
};

/// A step in two halves, with a look at the device between them, for what looks at gradients. The first fills the store's gradients for step `step` (which keys
/// dropout and jitter; `dropout` false switches both off and routes as in evaluation); its report lies in the arena.
StepGradients compute_gradients(Context& context, const Transformer& model, const StepBatch& batches, const LossCoefficients& coefficients, uint64_t seed, int64_t step,
                                bool dropout = true, Recompute recompute = Recompute::none, GradientSync* sync = nullptr);
/// Clips by global norm (0 = not), updates the master weights with learning rate `rate` and the routers' balance biases, and refreshes the compute copy.
void apply_gradients(Context& context, const Transformer& model, Optimizer& optimizer, const StepGradients& gradients, double clip, int64_t step, double rate);

}  // namespace flanmoe

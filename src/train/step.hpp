// One optimizer step: gradients of all micro-batches with the step-wide loss normaliser, then clipping and the update.
//
// In two halves, so that the loop can look at loss and gradient norm before the weights change: a step with a non-finite or spiking value never
// reaches them.
#pragma once

#include "config/config.hpp"
#include "model/transformer.hpp"
#include "optim/optimizer.hpp"

namespace flanmoe {

/// Precisions of a training run: of the backward's products and the output layer, and of the layers' forward.
struct TrainingTypes {
    DType compute, forward;
};
TrainingTypes training_types(const TrainConfig& config);

/// Loss of a step, and the norm of its gradient before clipping.
struct StepGradients {
    LossSums sums;
    LossScales scales;
    double loss = 0;
    double gradient_norm = 0;
    /// Whether the step may reach weights and optimizer: no NaN, no infinity, and squares of gradients stay finite in 32 bits.
    bool finite() const;
};

struct LossCoefficients {
    double balance = 0, router_z = 0, output_z = 0;
};

/// Fills the store's gradients for step `step` (which keys dropout and jitter; `dropout` false switches both off and routes as in evaluation).
StepGradients compute_gradients(Context& context, Transformer& model, const StepBatch& batches, const LossCoefficients& coefficients, uint64_t seed, int64_t step,
                                bool dropout = true);
/// Clips by global norm (0 = not), updates the master weights with learning rate `rate` and the routers' balance biases, and refreshes the compute copy.
void apply_gradients(Context& context, Transformer& model, Optimizer& optimizer, const StepGradients& gradients, double clip, int64_t step, double rate);

}  // namespace flanmoe

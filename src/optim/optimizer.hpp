// The optimizer of a run: state for every parameter that is not frozen, one update a step, state as named tensors for checkpoints.
//
// Every tensor on disk has its own state, so every expert's matrix does: its Adafactor statistics are per expert, as in T5X. Slots are named
// "<tensor name>.v_row", ".v_col", ".v" (Adafactor) or ".m", ".v" (AdamW).
#pragma once

#include "config/config.hpp"
#include "core/context.hpp"
#include "model/parameters.hpp"
#include "ops/optimizer.hpp"

#include <string>
#include <utility>
#include <vector>

namespace flanmoe {

/// The state of one tensor of a record as suffix and shape, in order: ".m", ".v" (AdamW), ".v_row", ".v_col" or ".v" (Adafactor); none if it is frozen.
std::vector<std::pair<std::string, Shape>> optimizer_slots(const OptimizerConfig& config, const Parameter& parameter);

class Optimizer {
public:
    /// State is zero and lives as long as the optimizer; the store must outlive it and stay allocated.
    Optimizer(const OptimizerConfig& config, const ParameterStore& store);

    /// Applies the store's gradients times gradient_scale to the master weights; step counts from 0. The compute copy is not refreshed. With
    /// `squared_norm` (gradient_squares) they are clipped to `clip` too, and not applied at all if they are not finite (ops/optimizer.hpp): the host
    /// need not have read it.
    void update(Context& context, int64_t step, double rate, double gradient_scale, const Tensor& squared_norm = {}, double clip = 0);
    /// Every slot under its name, in the order of the records.
    const std::vector<std::pair<std::string, Tensor>>& state() const { return state_; }
    void reset();

private:
    Tensor slot(const std::string& name, DType type, Shape shape);

    OptimizerConfig config_;
    Engine* engine_;
    std::vector<Buffer> memory_;
    std::vector<std::pair<std::string, Tensor>> state_;
    std::vector<ops::AdafactorTensor> adafactor_;
    std::vector<ops::AdamWTensor> adamw_;
};

/// sum[0] += the squares of the gradients of every parameter that is not frozen (f64 [1]); not finite if any gradient is not.
void gradient_squares(Context& context, const ParameterStore& store, const Tensor& sum);
/// Their root on the host: global norm of the gradients of every parameter that is not frozen; not finite if any gradient is not.
double gradient_norm(Context& context, const ParameterStore& store);

}  // namespace flanmoe

// The optimizer of a run: state for every parameter that is not frozen, one update a step, state as named tensors for checkpoints.
//
// Every tensor on disk has its own state, so every expert's matrix does: its Adafactor statistics are per expert, as in T5X. Slots are named
// "<tensor name>.v_row", ".v_col", ".v" (Adafactor) or ".m", ".v" (AdamW). Of a sharded store this rank updates, and has state for, what it owns
// (model/sharding.hpp).
#pragma once

#include "config/config.hpp"
#include "core/context.hpp"
#include "model/gather.hpp"
#include "model/sharding.hpp"
#include "ops/optimizer.hpp"

#include <string>
#include <vector>

namespace flanmoe {

/// A part of the state of one tensor of a record, whole: ".m", ".v" (AdamW), ".v_row", ".v_col" or ".v" (Adafactor).
struct StateSlot {
    std::string suffix;
    Shape shape;
    Split split = Split::none;  ///< how tensor ranks share it
};
/// In order; none if the record is frozen.
std::vector<StateSlot> optimizer_slots(const OptimizerConfig& config, const Parameter& parameter);

class Optimizer {
public:
    /// State is zero and lives as long as the optimizer; the store must outlive it and stay allocated.
    Optimizer(const OptimizerConfig& config, const ParameterStore& store);

    /// Applies the store's gradients times gradient_scale to the master weights; step counts from 0. The compute copy is not refreshed. With
    /// `squared_norm` (gradient_squares) they are clipped to `clip` too, and not applied at all if they are not finite (ops/optimizer.hpp): the host
    /// need not have read it.
    void update(Context& context, int64_t step, double rate, double gradient_scale, const Tensor& squared_norm = {}, double clip = 0);
    /// Everybody's weights after an update: those of a sharded store come from their owners, and the compute copy is refreshed.
    void refresh_weights(Context& context) const { weights_.run(context); }
    /// Every slot of the whole model under its name, in the order of the records: this rank's part of it, if it has one.
    const NamedTensors& state() const { return state_; }
    void reset();

private:
    Tensor slot(const std::string& name, DType type, Shape shape);
    void add_tensor(const ParameterStore& store, const Parameter& parameter, int64_t tensor, const std::vector<Tensor>& slots);

    OptimizerConfig config_;
    Engine* engine_;
    std::vector<Buffer> memory_;
    const Mesh* mesh_;
    WeightSync weights_;
    NamedTensors state_;
    std::vector<ops::AdafactorTensor> adafactor_;
    std::vector<ops::AdamWTensor> adamw_;
};

/// Adds to sum (f64 [1], 0 before) the squares of the gradients of every parameter that is not frozen, of the whole model: on a mesh each element counts once,
/// and every rank gets the same bits; whether the store is sharded changes the order of the sum, in double. Not finite if any gradient is not.
void gradient_squares(Context& context, const ParameterStore& store, const Tensor& sum);
/// Their root on the host: global norm of the gradients of every parameter that is not frozen; not finite if any gradient is not.
double gradient_norm(Context& context, const ParameterStore& store);

}  // namespace flanmoe

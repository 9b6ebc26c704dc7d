// What every layer needs during one pass over one micro-batch: context, parameters, mode, random keys and the losses' scales.
#pragma once

#include "config/model_config.hpp"
#include "core/context.hpp"
#include "core/lane.hpp"
#include "core/random.hpp"
#include "model/parameters.hpp"

#include <functional>

namespace flanmoe {

class GradientSync;    // model/gradient_sync.hpp
struct SubLayerSaved;  // model/stack.hpp

/// What the loss is made of and how it is normalised over the whole step (all micro-batches, all ranks):
///   loss = sum nll / tokens + output_z * sum lse^2 / tokens + (balance * mean balance + router_z * mean z over sparse layers and groups)
struct LossScales {
    double balance = 0, router_z = 0, output_z = 0;  ///< coefficients
    int64_t tokens = 1;          ///< target tokens of the step
    int64_t encoder_groups = 1;  ///< routing groups of the step that have a routable token, encoder side
    int64_t decoder_groups = 1;
};

/// Memory for what the backward pass computes again (Recompute::cheap): one tensor of each kind, used by all layers in turn.
class Reused {
public:
    enum Kind { normed, router_input, rows, activated, expert_activated, scaled, kinds };
    /// As large as the largest so far asks for; a larger one is allocated.
    Tensor take(Context& context, Kind kind, DType type, Shape shape);

private:
    Tensor slots_[kinds];
};

struct Pass {
    Context& context;
    const ParameterStore& parameters;  ///< its tensors are views: gradients are written through them
    const ModelConfig& config;
    bool training = false;          ///< dropout and the routers' exploration on, capacity and second policy of training
    bool route_rows_alone = false;  ///< every row is a routing group of its own, whatever the config says: evaluation and generation
    bool no_drop = false;           ///< no expert has a limit: incremental decoding
    bool training_capacity = false; ///< capacity and second policy of training although `training` is false: traces of the routing
    Recompute recompute = Recompute::none;  ///< what train() computes again in the backward pass
    Reused* reused = nullptr;       ///< where that lies; set by train() for Recompute::cheap
    bool sequence_parallel = false; ///< tensor ranks share the tokens between sub-layers (token_shards.hpp)
    Lane* exchange_lane = nullptr;  ///< where rows travel between expert ranks beside the experts' products; null: in line with them
    int64_t exchange_chunks = 1;    ///< parts in which they do
    GradientSync* sync = nullptr;   ///< told which gradients are done; in the last micro-batch of a step on several ranks
    uint64_t seed = 0;
    uint32_t step = 0;
    LossScales loss;
    /// For comparisons of devices and types: logits that routers take in place of their own, by layer, so that rounding changes no decision.
    const std::vector<Tensor>* router_logits = nullptr;
    /// Shown what a sub-layer of a stack has computed, by its number there, before Recompute::full forgets it.
    std::function<void(size_t, const SubLayerSaved&)> after_sublayer;

    const Mesh& mesh() const { return parameters.mesh(); }
    const Parameter& record(size_t index) const { return parameters.records()[index]; }
    DType type() const { return parameters.compute_type(); }
    DType accumulate() const { return parameters.master_type(); }
    /// Of what the forward computes and saves; weights of that type serve it.
    DType forward_type() const { return parameters.forward_type(); }
    Tensor weight(size_t index, int64_t expert = 0) const { return parameters.compute(parameters.records()[index], expert); }
    Tensor gradient(size_t index, int64_t expert = 0) const { return parameters.gradient(parameters.records()[index], expert); }
    /// Full-precision weight: the router computes with it.
    Tensor master(size_t index) const { return parameters.master(parameters.records()[index]); }
    /// The copy of a weight that has a type: master or compute.
    Tensor weight_of(DType type, size_t index, int64_t expert = 0) const { return type == accumulate() ? parameters.master(record(index), expert) : weight(index, expert); }
    Tensor fused_weight_of(DType type, size_t index, int64_t count, int64_t expert = 0) const { return stack_rows(weight_of(type, index, expert), index, count); }
    /// Memory for what can be computed again at little cost: reused by the next layer, or kept for the backward pass.
    Tensor cheap(Reused::Kind kind, DType type, Shape shape) const { return reused ? reused->take(context, kind, type, shape) : context.allocate(type, shape); }
    /// What the forward saved, in the type of the backward's products: itself, or a copy in the arena.
    Tensor narrow(const Tensor& saved) const;
    /// `count` records that lie side by side, as one matrix [sum of rows, cols]: a fused projection.
    Tensor fused_weight(size_t index, int64_t count, int64_t expert = 0) const { return stack_rows(weight(index, expert), index, count); }
    Tensor fused_gradient(size_t index, int64_t count, int64_t expert = 0) const { return stack_rows(gradient(index, expert), index, count); }
    /// `count` vectors that lie side by side, as one.
    Tensor fused_vector_of(DType type, size_t index, int64_t count) const { return join(weight_of(type, index), index, count); }
    Tensor fused_vector_gradient(size_t index, int64_t count) const { return join(gradient(index), index, count); }
    /// Of a tensor [.., length, features]; model.dropout_broadcast draws one mask for all places along the length, but not where `features` is left out.
    Dropout dropout(double rate, int layer, Purpose purpose, int64_t first_element, int64_t length = 0, int64_t features = 0) const {
        if (!training || rate <= 0) return {};
        Dropout d = Dropout::with(static_cast<float>(rate), {seed, step, static_cast<uint16_t>(layer), purpose}, static_cast<uint64_t>(first_element));
        if (config.dropout_broadcast && features > 0) d.length = static_cast<uint64_t>(length), d.features = static_cast<uint64_t>(features);
        return d;
    }

private:
    Tensor stack_rows(Tensor first, size_t index, int64_t count) const {
        int64_t rows = 0;
        for (int64_t i = 0; i < count; ++i) rows += parameters.records()[index + static_cast<size_t>(i)].part[0];
        return Tensor(first.data, first.dtype, {rows, first.cols()});
    }
    Tensor join(Tensor first, size_t index, int64_t count) const {
        int64_t elements = 0;
        for (int64_t i = 0; i < count; ++i) elements += parameters.records()[index + static_cast<size_t>(i)].part_elements();
        return Tensor(first.data, first.dtype, {elements});
    }
};

/// The rows a stack works on.
struct Sequence {
    int64_t rows = 0, length = 0;
    int64_t first_row = 0;  ///< of the step's global batch
    Tensor segments;        ///< i32 [rows, length]
    Tensor routed;          ///< u8 [rows * length]: 1 = may be routed
    Tensor prefix_ends;     ///< optional i32 [rows, length]: see Batch
    Tensor rotary;          ///< optional [length, d_kv]: table of ops/rotary.hpp
    int64_t tokens() const { return rows * length; }
    int64_t first_token() const { return first_row * length; }
};

}  // namespace flanmoe

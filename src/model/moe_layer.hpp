// Mixture-of-Experts sub-layer, in three parts that know little of each other:
//   router      logits = explore(x) Wr^T in float (jitter or dropout of the input), then the decision of ops/route.hpp, drawn if the config says so
//   dispatcher  rows sorted by expert, and the weighted sum of their answers (ops/dispatch.hpp); between ranks, the way to the experts (model/dispatcher.hpp)
//   experts     one feed-forward per expert, as grouped products over the sorted rows; gated ones with a multiplicative bias if the config says so
// delta[n] = sum over the kept experts e of token n of gate[n, e] * expert_e(x[n]); a dropped token gives zero.
// Experts are divided over the expert ranks, and the width of each over the tensor ranks; the router is the same on all.
// A shared expert, if there is one, adds its answer for every token, times sigmoid(x[n] . w) if it has a gate.
#pragma once

#include "model/dispatcher.hpp"
#include "model/feed_forward.hpp"
#include "model/pass.hpp"
#include "ops/route.hpp"

namespace flanmoe {

struct MoeLayer {
    size_t router = 0;  ///< record of Wr [E, D]
    size_t input = 0;   ///< expert records wi, or wi_0 with wi_1 behind it
    size_t output = 0;  ///< expert record wo
    size_t scale = 0;         ///< expert record of the multiplicative bias, if the config has one
    size_t balance_bias = 0;  ///< record of loss-free balancing's bias [E], if the stack's routing has one
    bool has_shared = false, shared_gated = false;
    FeedForward shared;
    size_t shared_gate = 0;  ///< record of w [1, D]
    bool decoder = false;
    int layer = 0;
};

struct MoeSaved {
    ops::RouteArgs route;  ///< decision, statistics, tables
    Tensor router_input;   ///< [N, D] accumulation type, after exploration
    Dispatch dispatch;     ///< the way of its rows: R of them at this rank's experts
    Tensor rows;           ///< [R, D] sorted by expert
    Tensor inner;          ///< [R, F] or [R, 2F], F of this rank
    Tensor activated;      ///< [R, F]
    Tensor scaled;         ///< [R, F] activated x multiplicative bias; `activated` itself without one
    Tensor answers;        ///< [max_rows, D] before the gates, in the order of the routing; of this tensor rank's part of the experts
    Tensor x;              ///< [N, D] the layer's input; with a shared expert
    FeedForwardSaved shared;
    Tensor shared_answer;  ///< [N, D] before its gate
    Tensor shared_logit;   ///< [N, 1] of its gate, accumulation type
};

/// What a stack's routing means to the operation, in training or in evaluation.
ops::RouteRule rule_of(const RoutingConfig& routing, bool training);

/// How a layer's stack routes.
const RoutingConfig& routing_of(const ModelConfig& config, const MoeLayer& layer);
/// Loss-free balancing after an optimizer step, with the demand [E] of the whole step (ops::balance_bias). Nothing if the layer has no such bias or its router is
/// frozen.
void update_balance_bias(Context& context, const ParameterStore& store, const ModelConfig& config, const MoeLayer& layer, const Tensor& demand, const Tensor& accepted);

/// Declares the records of router and experts under `prefix` ("encoder.block.1.layer.1.mlp").
MoeLayer declare_moe(ParameterStore& store, const ModelConfig& config, const std::string& prefix, bool decoder);
/// delta [N, D], into memory of the type of x if given.
Tensor moe_forward(Pass& pass, const MoeLayer& layer, const Tensor& x, const Sequence& sequence, MoeSaved& saved, const Tensor& into = {});
/// All of it that the backward needs, from x alone, without the sum at its end: what Recompute::full computes again.
void moe_inner(Pass& pass, const MoeLayer& layer, const Tensor& x, const Sequence& sequence, MoeSaved& saved);
/// What Recompute::cheap did not keep: router input, rows and activations, from x and what was kept.
void moe_recompute(Pass& pass, const MoeLayer& layer, const Tensor& x, const Sequence& sequence, MoeSaved& saved);
/// Gradient of x, router losses included; adds to the weights' gradients. Overwrites what the forward saved.
Tensor moe_backward(Pass& pass, const MoeLayer& layer, const Sequence& sequence, const Tensor& d_delta, const MoeSaved& saved);

}  // namespace flanmoe

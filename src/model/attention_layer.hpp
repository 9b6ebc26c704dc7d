// Self- and cross-attention sub-layers: fused projections, the attention operation, output projection.
//
//   self:   [q k v] = x [Wq Wk Wv]^T;  delta = attention(q, k, v) Wo^T
//   cross:  q = x Wq^T;  [k v] = memory [Wk Wv]^T;  delta = attention(q, k, v) Wo^T       (no positions)
// Shapes: x [N, D], I = heads * d_kv, J = key heads * d_kv, Wq [I, D], Wk and Wv [J, D], Wo [D, I]. Options: biases on q, k and v; rotary positions, which
// turn q and k of self-attention in place, instead of the bias table; scores x d_kv^-0.5. Residual, norm and dropout around it belong to the stack.
// Tensor ranks share the heads: rows of Wq, Wk, Wv and their biases, columns of Wo and of the bias table; I and J below are widths of a rank's heads.
#pragma once

#include "model/pass.hpp"
#include "ops/attention.hpp"

namespace flanmoe {

struct AttentionLayer {
    size_t query = 0;   ///< record of Wq; Wk and Wv follow it (self), or stand in their own group (cross)
    size_t key = 0;
    size_t output = 0;
    size_t bias = 0;    ///< record of the table of relative positions
    size_t query_bias = 0;  ///< records of the bias vectors, grouped as the matrices are
    size_t key_bias = 0;
    bool has_bias = false, has_vectors = false, cross = false, causal = false;
    int layer = 0;      ///< global number, keys the dropout
};

struct AttentionSaved {
    ops::AttentionArgs args;  ///< with out and log_sum
    Tensor fused;             ///< self: [N, I + 2J]; cross: q [N, I]
    Tensor memory_fused;      ///< cross: [M, 2J]
    Tensor rotary;            ///< the sequence's table; self-attention with rotary positions
};

/// Declares the records of one attention sub-layer under `prefix` ("encoder.block.0.layer.0.SelfAttention").
AttentionLayer declare_attention(ParameterStore& store, const ModelConfig& config, const std::string& prefix, bool cross);

/// I and J: widths of this rank's queries, and of its keys.
inline int64_t query_width(const Pass& pass, const AttentionLayer& layer) { return pass.record(layer.query).part[0]; }
inline int64_t key_width(const Pass& pass, const AttentionLayer& layer) { return pass.record(layer.key).part[0]; }

/// Table of `positions` rotary positions; empty if the model has none.
Tensor rotary_table(Context& context, const ModelConfig& config, DType type, int64_t positions);
/// What config and layer say of the operation, in every mode: this rank's heads, scale, position bias, causality, window.
ops::AttentionArgs attention_rule(const Pass& pass, const AttentionLayer& layer);
/// q, k and v of self-attention side by side, [N, I + 2J]: biases added, q and k turned if there is a table for rows of `length` tokens.
Tensor self_projection(Pass& pass, const AttentionLayer& layer, const Tensor& x, int64_t length, const Tensor& rotary);
/// Turns q and k of such a fused tensor; inverse: their gradients.
void turn_projection(Pass& pass, const AttentionLayer& layer, const Tensor& fused, int64_t length, const Tensor& rotary, bool inverse);
/// q of cross-attention [N, I].
Tensor query_projection(Pass& pass, const AttentionLayer& layer, const Tensor& x);
/// k and v of cross-attention side by side, [M, 2J], of the encoder's output.
Tensor memory_projection(Pass& pass, const AttentionLayer& layer, const Tensor& memory);
/// delta [N, D] from what attention gives for this rank's heads, into memory of the accumulation type if given.
Tensor output_projection(Pass& pass, const AttentionLayer& layer, const Tensor& attended, const Tensor& into = {});

/// delta [N, D], into memory of the accumulation type if given. `memory` (cross only) is the encoder's output [M, D] with its sequence.
Tensor attention_forward(Pass& pass, const AttentionLayer& layer, const Tensor& x, const Sequence& sequence, const Tensor& memory, const Sequence* memory_sequence,
                         AttentionSaved& saved, const Tensor& into = {});
/// All of the forward but its last product: what the backward pass needs.
void attention_inner(Pass& pass, const AttentionLayer& layer, const Tensor& x, const Sequence& sequence, const Tensor& memory, const Sequence* memory_sequence,
                     AttentionSaved& saved);
/// Gradient of x [N, D]; adds to the weights' gradients and, for cross-attention, to d_memory [M, D] (accumulation type) what this rank's heads say of it:
/// the sum over tensor ranks is taken once for all layers.
Tensor attention_backward(Pass& pass, const AttentionLayer& layer, const Tensor& x, const Tensor& d_delta, const Tensor& memory, const Tensor& d_memory,
                          const AttentionSaved& saved);

}  // namespace flanmoe

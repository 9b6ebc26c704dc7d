// Self- and cross-attention sub-layers: fused projections, the attention operation, output projection.
//
//   self:   [q k v] = x [Wq Wk Wv]^T;  delta = attention(q, k, v) Wo^T
//   cross:  q = x Wq^T;  [k v] = memory [Wk Wv]^T;  delta = attention(q, k, v) Wo^T       (no position bias)
// Shapes: x [N, D], I = heads * d_kv, weights [I, D] and Wo [D, I]. Residual, norm and dropout around it belong to the stack.
#pragma once

#include "model/pass.hpp"
#include "ops/attention.hpp"

namespace flanmoe {

struct AttentionLayer {
    size_t query = 0;   ///< record of Wq; Wk and Wv follow it (self), or stand in their own group (cross)
    size_t key = 0;
    size_t output = 0;
    size_t bias = 0;    ///< record of the bias table
    bool has_bias = false, cross = false, causal = false;
    int layer = 0;      ///< global number, keys the dropout
};

struct AttentionSaved {
    ops::AttentionArgs args;  ///< with out and log_sum
    Tensor fused;             ///< self: [N, 3I]; cross: q [N, I]
    Tensor memory_fused;      ///< cross: [M, 2I]
};

/// Declares the records of one attention sub-layer under `prefix` ("encoder.block.0.layer.0.SelfAttention").
AttentionLayer declare_attention(ParameterStore& store, const ModelConfig& config, const std::string& prefix, bool cross);

/// delta [N, D]. `memory` (cross only) is the encoder's output [M, D] with its sequence.
Tensor attention_forward(Pass& pass, const AttentionLayer& layer, const Tensor& x, const Sequence& sequence, const Tensor& memory, const Sequence* memory_sequence,
                         AttentionSaved& saved);
/// Gradient of x [N, D]; adds to the weights' gradients and, for cross-attention, to d_memory [M, D] (accumulation type).
Tensor attention_backward(Pass& pass, const AttentionLayer& layer, const Tensor& x, const Tensor& d_delta, const Tensor& memory, const Tensor& d_memory,
                          const AttentionSaved& saved);

}  // namespace flanmoe

// A stack of blocks: the encoder, the decoder, or the whole of a decoder-only model.
//
// A stack is a list of sub-layers (self-attention, cross-attention, feed-forward or experts, ST-MoE's extra feed-forward), each with its own norm:
//   h_0 = dropout(embedding)     h_{s+1} = h_s + dropout(sublayer_s(norm_s(h_s)))     out = dropout(norm(h_S))
// so that "add, dropout, norm" between two sub-layers is one operation. Names follow Hugging Face: PREFIX.block.i.layer.j.*.
//
// Recompute::cheap keeps h_s and what products gave, and computes norms, activations and gathered rows again before a sub-layer's backward; Recompute::full
// keeps h_s alone. Random numbers go by index, so both give the same bits.
#pragma once

#include "model/attention_layer.hpp"
#include "model/feed_forward.hpp"
#include "model/moe_layer.hpp"
#include "model/pass.hpp"

#include <variant>
#include <vector>

namespace flanmoe {

struct SubLayer {
    size_t norm = 0;  ///< record of the gain
    int block = 0;
    Purpose output_dropout = Purpose::sublayer_dropout;  ///< of the dropout on this sub-layer's output
    int layer = 0;    ///< global number, keys the dropout
    std::variant<AttentionLayer, FeedForward, MoeLayer> body;
};

struct Stack {
    std::vector<SubLayer> sublayers;
    size_t final_norm = 0;
    bool decoder = false;
    int first_layer = 0;  ///< global number of block 0
};

struct SubLayerSaved {
    Tensor h, y, rstd;
    AttentionSaved attention;
    FeedForwardSaved feed_forward;
    MoeSaved moe;
};

struct StackSaved {
    std::vector<SubLayerSaved> sublayers;
    Tensor h, rstd, out;  ///< before and after the final norm
    Tensor memory;        ///< what cross-attention read, with its sequence
    const Sequence* memory_sequence = nullptr;
};

/// Declares encoder (decoder = false) or decoder records.
Stack declare_stack(ParameterStore& store, const ModelConfig& config, bool decoder);
/// Output [N, D] of the stack from the embeddings [N, D] (accumulation type, overwritten: they become the residual stream). `memory` = the encoder's output
/// for a decoder with cross-attention, else empty.
Tensor stack_forward(Pass& pass, const Stack& stack, const Tensor& embedded, const Sequence& sequence, const Tensor& memory, const Sequence* memory_sequence, StackSaved& saved);
/// Gradient of the embeddings; adds to the weights' gradients and to d_memory (accumulation type).
Tensor stack_backward(Pass& pass, const Stack& stack, const Sequence& sequence, const Tensor& memory, const Tensor& d_out, const Tensor& d_memory, const StackSaved& saved);

}  // namespace flanmoe

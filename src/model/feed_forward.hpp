// Dense feed-forward sub-layer: delta = dropout(act(x Wi^T)) Wo^T, or gated with Wi_0 and Wi_1 fused into one product.
// Shapes: x [N, D], Wi [F, D], Wo [D, F]. Tensor ranks share F: rows of Wi, columns of Wo; shapes below are of a rank's part.
#pragma once

#include "model/pass.hpp"

namespace flanmoe {

struct FeedForward {
    size_t input = 0;  ///< record of wi, or of wi_0 with wi_1 behind it
    size_t output = 0;
    bool gated = false;
    Activation activation = Activation::relu;
    int64_t width = 0;          ///< F, of all tensor ranks
    double dropout = 0;         ///< rate inside, and what it is for
    Purpose purpose = Purpose::ffn_dropout;
    int layer = 0;
};

struct FeedForwardSaved {
    Tensor inner;      ///< [N, F] or [N, 2F], before the activation
    Tensor activated;  ///< [N, F]
};

/// The records wi (or wi_0, wi_1) of one feed-forward, or of every expert if experts > 0; prefix ends before ".wi".
std::vector<Parameter> feed_forward_input_records(const ModelConfig& config, const std::string& prefix, bool gated, int64_t d_ff, int64_t experts);
/// The record wo of the same.
Parameter feed_forward_output_record(const ModelConfig& config, const std::string& prefix, int64_t d_ff, int64_t experts);

/// Declares the records of one dense feed-forward of inner width d_ff under `prefix` ("encoder.block.0.layer.1.DenseReluDense").
FeedForward declare_feed_forward(ParameterStore& store, const ModelConfig& config, const std::string& prefix, int64_t d_ff);
/// The same for the shared expert of a sparse layer: the experts' activation and dropout, a width of its own.
FeedForward declare_shared_expert(ParameterStore& store, const ModelConfig& config, const std::string& prefix);
/// delta [N, D], into memory of the accumulation type if given; the place of the sequence in the step's batch keys the dropout.
Tensor feed_forward_forward(Pass& pass, const FeedForward& layer, const Tensor& x, const Sequence& sequence, FeedForwardSaved& saved, const Tensor& into = {});
/// All of the forward but its last product: what the backward pass needs.
void feed_forward_inner(Pass& pass, const FeedForward& layer, const Tensor& x, const Sequence& sequence, FeedForwardSaved& saved);
/// saved.activated from saved.inner.
void feed_forward_activation(Pass& pass, const FeedForward& layer, const Sequence& sequence, FeedForwardSaved& saved);
/// Gradient of x; adds to the weights' gradients. Overwrites saved.inner.
Tensor feed_forward_backward(Pass& pass, const FeedForward& layer, const Tensor& x, const Sequence& sequence, const Tensor& d_delta, const FeedForwardSaved& saved);

}  // namespace flanmoe

// Floating-point operations of a model, without building it.
//
// A multiply and an add count as two. Counted: matrix products of projections, feed-forwards (k experts a token, no capacity slack), router, shared experts and output layer, and
// the two products of attention (causal self-attention: half of the square). Not counted: embedding lookup, norms, softmax, recomputation. Backward = twice
// the forward.
#pragma once

#include "config/model_config.hpp"

namespace flanmoe {

struct SequenceShape {
    int64_t rows = 1, source = 0, target = 0;
};

/// Share of a stack's experts that a token meets in evaluation.
double active_share(const RoutingConfig& routing, int64_t experts);

/// Forward operations of one batch; training is three times that.
double forward_flops(const ModelConfig& config, const SequenceShape& shape);

}  // namespace flanmoe

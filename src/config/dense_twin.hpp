// The dense model that spends on a token what a sparse model spends: the comparison of every MoE study, made by `moe.dense_twin = true`.
//
// A sparse layer becomes a dense feed-forward as wide as the experts that a token uses together (k of them, or the capacity factor under expert choice;
// a shared one besides), and ST-MoE's extra feed-forward joins it. Capacity slack counts nothing. The router's product is left out, so that the twin of a top-1 model is plain T5
// whose feed-forward fits into the experts; only where that would miss by more than 1 % (thousands of experts) it becomes width, too.
#pragma once

#include "config/model_config.hpp"

namespace flanmoe {

struct DenseTwin {
    ModelConfig model;
    /// FLOPs of a token in the products of layers, relative to the sparse model's: 0.01 = 1 % more. The stack where it is larger. Attention scores and the
    /// output layer, which are the same in both, are not counted: the whole model's difference is smaller.
    double difference = 0;
};

/// The twin of a sparse model; a dense model is its own.
DenseTwin dense_twin(const ModelConfig& sparse);

}  // namespace flanmoe

// Optimizer updates of many tensors in one call.
//
// Adafactor as in T5X (t5x/adafactor.py), per tensor and step t = 0, 1, ...: decay = 1 - (t + 1)^-exponent (the caller gives it);
//   q = g^2 + epsilon;  factored: v_row <- decay v_row + (1 - decay) mean over the larger dimension of q, v_col the same over the smaller one (of equal
//   sizes the last counts as larger), u = g (v_row / mean v_row)^-1/2 v_col^-1/2;  unfactored: v <- decay v + (1 - decay) q, u = g v^-1/2;
//   u <- u / max(1, rms(u) / clipping_threshold);  parameter <- parameter - rate * (scale_by_parameter ? max(rms(parameter), minimum_scale) : 1) * u.
// AdamW: parameter <- parameter (1 - rate weight_decay); m, v with bias correction by t + 1; parameter -= rate m^ / (sqrt(v^) + epsilon).
// Every expert's matrix is a tensor of its own: its statistics are. Gradients are multiplied by gradient_scale (clipping) as they are read.
// All tensors of one type: f32 or f64. Sums within a tensor have a fixed order.
#pragma once

#include "core/context.hpp"

#include <span>

namespace flanmoe::ops {

struct AdafactorTensor {
    Tensor parameter, gradient;  ///< [n] or [rows, cols]
    Tensor v_row, v_col;         ///< factored: v_row has as many entries as the smaller dimension, v_col as the larger; else empty
    Tensor v;                    ///< unfactored, like the parameter; else empty
};
struct AdafactorSettings {
    double rate = 0;
    double decay = 0;  ///< 1 - (t + 1)^-0.8
    double epsilon = 1e-30;
    double clipping_threshold = 1.0;  ///< 0 = no clipping
    double minimum_scale = 1e-3;
    bool scale_by_parameter = true;
    double gradient_scale = 1;
};
/// True if T5X would factor this shape: two dimensions, both at least `minimum_dimension`.
bool adafactor_factors(const Shape& shape, int64_t minimum_dimension);
void adafactor(Context& context, std::span<const AdafactorTensor> tensors, const AdafactorSettings& settings);

struct AdamWTensor {
    Tensor parameter, gradient, m, v;
    bool decay = true;  ///< weight decay applies
};
struct AdamWSettings {
    double rate = 0, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, weight_decay = 0;
    int64_t step = 0;  ///< t, from 0
    double gradient_scale = 1;
};
void adamw(Context& context, std::span<const AdamWTensor> tensors, const AdamWSettings& settings);

}  // namespace flanmoe::ops

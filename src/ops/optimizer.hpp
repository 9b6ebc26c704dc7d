// Optimizer updates of many tensors in one call.
//
// Adafactor as in T5X (t5x/adafactor.py), per tensor and step t = 0, 1, ...: decay = 1 - (t + 1)^-exponent (the caller gives it);
//   q = g^2 + epsilon;  factored: v_row <- decay v_row + (1 - decay) mean over the larger dimension of q, v_col the same over the smaller one (of equal
//   sizes the last counts as larger), u = g (v_row / mean v_row)^-1/2 v_col^-1/2;  unfactored: v <- decay v + (1 - decay) q, u = g v^-1/2;
//   u <- u / max(1, rms(u) / clipping_threshold);  parameter <- parameter - rate * (scale_by_parameter ? max(rms(parameter), minimum_scale) : 1) * u.
// AdamW: parameter <- parameter (1 - rate weight_decay); m, v with bias correction by t + 1; parameter -= rate m^ / (sqrt(v^) + epsilon).
// Every expert's matrix is a tensor of its own: its statistics are.
// Gradients are multiplied by gradient_scale as they are read; where the sum of their squares is given, by clipped_scale, so that the host need not know it:
//   norm = sqrt(squared_norm);  norm < largest_gradient_norm: gradient_scale min(1, clip / norm);  else, not finite too: neither parameters nor state change.
// All tensors of one type: f32 or f64. Sums within a tensor have a fixed order.
//
// Of a tensor that ranks share along one dimension, parameter, gradient and the state along that dimension are parts; state along the other is whole, and
// the same everywhere. Sums over the tensor are then sums over the ranks, which `add_parts` takes: twice a call, for all shared tensors at once.
#pragma once

#include "core/context.hpp"

#include <functional>
#include <limits>
#include <span>

namespace flanmoe::ops {

/// From this global norm on a gradient is refused, as one that is not finite is: its square still fits into 32-bit second moments.
inline constexpr double largest_gradient_norm = 1e18;
/// What gradients are multiplied by, the formula above, clip = 0 meaning none; NaN = nothing shall change.
constexpr double clipped_scale(double scale, double norm, double clip) {
    if (!(norm < largest_gradient_norm)) return std::numeric_limits<double>::quiet_NaN();
    return clip > 0 && norm > clip ? scale * (clip / norm) : scale;
}

struct AdafactorTensor {
    Tensor parameter, gradient;  ///< [n] or [rows, cols]
    Tensor v_row, v_col;         ///< factored: v_row has as many entries as the smaller dimension, v_col as the larger; else empty
    Tensor v;                    ///< unfactored, like the parameter; else empty
    int shared = -1;             ///< dimension that ranks share; -1: the tensor is whole
    int64_t whole = 0;           ///< its size in all
};
/// Whether v_row belongs to the rows of a matrix: they are the smaller dimension of the whole tensor (of equal ones the last counts as larger).
inline bool rows_are_smaller(const AdafactorTensor& t) {
    return (t.shared == 0 ? t.whole : t.parameter.shape[0]) <= (t.shared == 1 ? t.whole : t.parameter.shape[1]);
}
struct AdafactorSettings {
    double rate = 0;
    double decay = 0;  ///< 1 - (t + 1)^-0.8
    double epsilon = 1e-30;
    double clipping_threshold = 1.0;  ///< 0 = no clipping
    double minimum_scale = 1e-3;
    bool scale_by_parameter = true;
    double gradient_scale = 1;
    Tensor squared_norm;  ///< optional f64 [1]: of all gradients, before gradient_scale
    double clip = 0;      ///< largest norm, with squared_norm; 0 = any
    std::function<void(const Tensor& sums)> add_parts;  ///< f64 [n], in place: the sum over the ranks that share tensors
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
    Tensor squared_norm;  ///< as in AdafactorSettings
    double clip = 0;
};
void adamw(Context& context, std::span<const AdamWTensor> tensors, const AdamWSettings& settings);

}  // namespace flanmoe::ops

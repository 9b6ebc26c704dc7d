// RMS norm fused with the residual addition and dropout before it, and with dropout after it.
//
//   h = residual + dropout(delta)          (h = dropout(delta) if there is no residual: the embedding)
//   y = dropout_out(gain * h * rstd),  rstd = 1 / sqrt(mean(h^2) + epsilon)      (T5: no mean subtraction, no bias)
//
// The residual stream (residual, h and their gradients), the gain and the statistics are in the accumulation type: float, double for f64. A stream of
// bf16 would lose most of what a sub-layer adds to a sum that grows from layer to layer. y, dy and d_delta, the operands of matrix products, are in the
// type of the activations. Backward: given dy and the gradient that reaches h by the residual path,
//   g = dropout_out(dy) * gain;  dh = d_residual_path + rstd * (g - h * rstd^2 * mean(g * h));  dgain += sum_n dropout_out(dy) * h * rstd
//   d_residual = dh;  d_delta = dropout(dh)
#pragma once

#include "core/context.hpp"
#include "core/random.hpp"

namespace flanmoe::ops {

struct ResidualNormArgs {
    Tensor residual;  ///< optional [N, D], accumulation type
    Tensor delta;     ///< optional [N, D], the type of y or the accumulation type; at least one of the two
    Dropout delta_dropout;
    Tensor gain;      ///< [D], accumulation type
    double epsilon = 1e-6;
    Dropout out_dropout;
    Tensor h;         ///< [N, D] out, accumulation type: the new residual stream; may be the same memory as delta (of that type), or, if there is
                      ///< no delta, as the residual, and may then be empty
    Tensor y;         ///< [N, D] out: its type is that of the activations
    Tensor rstd;      ///< [N] out, accumulation type
};
void residual_norm(Context& context, const ResidualNormArgs& args);

struct ResidualNormBackwardArgs {
    Tensor h, gain, rstd;
    Tensor dy;               ///< [N, D], the type of the activations
    Tensor d_residual_path;  ///< optional [N, D], accumulation type: gradient of h from later layers
    Dropout delta_dropout, out_dropout;
    Tensor dh;       ///< [N, D] out, accumulation type: gradient of the residual; may be the same memory as d_residual_path
    Tensor d_delta;  ///< optional [N, D] out, the type of dy: gradient of delta (same memory as dh allowed only in one type without delta_dropout)
    Tensor d_gain;   ///< [D] accumulation type: added to, in a fixed order
};
void residual_norm_backward(Context& context, const ResidualNormBackwardArgs& args);

}  // namespace flanmoe::ops

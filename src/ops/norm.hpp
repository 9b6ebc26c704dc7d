// RMS norm fused with the residual addition and dropout before it, and with dropout after it.
//
//   h = residual + dropout(delta)          (h = dropout(delta) if there is no residual: the embedding)
//   y = dropout_out(gain * h * rstd),  rstd = 1 / sqrt(mean(h^2) + epsilon)      (T5: no mean subtraction, no bias)
//
// Statistics in float (double for f64). Backward: given dy and the gradient that reaches h by the residual path,
//   g = dropout_out(dy) * gain;  dh = d_residual_path + rstd * (g - h * rstd^2 * mean(g * h));  dgain += sum_n dropout_out(dy) * h * rstd
//   d_residual = dh;  d_delta = dropout(dh)
#pragma once

#include "core/context.hpp"
#include "core/random.hpp"

namespace flanmoe::ops {

struct ResidualNormArgs {
    Tensor residual;  ///< optional [N, D]
    Tensor delta;     ///< optional [N, D]; at least one of the two
    Dropout delta_dropout;
    Tensor gain;      ///< [D], the type of the activations
    double epsilon = 1e-6;
    Dropout out_dropout;
    Tensor h;         ///< [N, D] out: the new residual stream; may be the residual itself if there is no delta, and may then be empty
    Tensor y;         ///< [N, D] out
    Tensor rstd;      ///< [N] out, accumulation type
};
void residual_norm(Context& context, const ResidualNormArgs& args);

struct ResidualNormBackwardArgs {
    Tensor h, gain, rstd;
    Tensor dy;               ///< [N, D]
    Tensor d_residual_path;  ///< optional [N, D]: gradient of h from later layers
    Dropout delta_dropout, out_dropout;
    Tensor dh;       ///< [N, D] out: gradient of the residual; may be the same memory as d_residual_path
    Tensor d_delta;  ///< optional [N, D] out: gradient of delta (same memory as dh allowed only without delta_dropout)
    Tensor d_gain;   ///< [D] accumulation type: added to, in a fixed order
};
void residual_norm_backward(Context& context, const ResidualNormBackwardArgs& args);

}  // namespace flanmoe::ops

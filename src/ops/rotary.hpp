// Rotary positions: pairs of elements of a head are turned by an angle that grows with the position.
//
//   w_i = theta^(-2i / K)                                         i in [0, K/2), K = width of a head
//   y_i       = x_i cos(p w_i) - x_{i+K/2} sin(p w_i)             p = position
//   y_{i+K/2} = x_{i+K/2} cos(p w_i) + x_i sin(p w_i)
// Source: Su et al., "RoFormer" (2021); halves paired as in Mixtral and Qwen2. The product of a turned query and a turned key depends on the
// difference of their positions alone, so positions may be counted from anywhere: from the start of a row, whatever is packed or padded in it.
// Backward: the same turn by the opposite angle.
#pragma once

#include "core/context.hpp"

namespace flanmoe::ops {

/// Row p of the table = cosines, then sines of position first + p. Angles are computed in double and rounded once.
struct RotaryTableArgs {
    double theta = 1e4;  ///< above 0
    int64_t first = 0;
    Tensor table;        ///< [P, K] out, accumulation type
};
void rotary_table(Context& context, const RotaryTableArgs& args);

struct RotaryArgs {
    Tensor x;      ///< [B, S, H*K], turned in place (rows may be strided: a slice of a fused product)
    int64_t heads = 1;
    Tensor table;  ///< [P, K] with P >= S, accumulation type: row t is for element t of each batch row
    bool inverse = false;  ///< turns back: the gradient
};
void rotary(Context& context, const RotaryArgs& args);

}  // namespace flanmoe::ops

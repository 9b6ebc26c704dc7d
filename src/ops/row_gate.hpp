// Rows weighed by a sigmoid each and added: the gate of a shared expert.
//
//   row_gate:           out[n] += s_n in[n],  s_n = 1 / (1 + exp(-logit[n]))
//   row_gate_backward:  d_in[n] = s_n d_out[n];  d_logit[n] = s_n (1 - s_n) in[n] . d_out[n]
#pragma once

#include "core/context.hpp"

namespace flanmoe::ops {

struct RowGateArgs {
    Tensor in;     ///< [N, D]
    Tensor logit;  ///< [N] or [N, 1], accumulation type
    Tensor out;    ///< [N, D], added to
};
void row_gate(Context& context, const RowGateArgs& args);

struct RowGateBackwardArgs {
    Tensor in, logit;
    Tensor d_out;    ///< [N, D]
    Tensor d_in;     ///< [N, D] overwritten; may be the same memory as `in`
    Tensor d_logit;  ///< like logit, of the type of `in`: overwritten
};
void row_gate_backward(Context& context, const RowGateBackwardArgs& args);

}  // namespace flanmoe::ops

// Multiplicative bias of experts (ST-MoE, appendix C): a learned vector of each expert scales the hidden units of its rows.
//
//   expert_scale:           out[r] = in[r] * scale[e]                  for rows r in [offsets[e], offsets[e+1]) of expert e
//   expert_scale_backward:  d_in[r] = d_out[r] * scale[e];  d_scale[e] += sum over the rows r of e of d_out[r] * in[r]
// Rows beyond offsets[E] are neither read nor written. Sums are in the accumulation type, in the order of rows.
#pragma once

#include "core/context.hpp"

namespace flanmoe::ops {

struct ExpertScaleArgs {
    Tensor in;             ///< [R, F]
    Tensor scale;          ///< expert 0's vector [F], of the type of `in`
    int64_t scale_stride = 0;  ///< elements from one expert's vector to the next
    Tensor offsets;        ///< i32 [E + 1]
    Tensor out;            ///< [R, F]
};
void expert_scale(Context& context, const ExpertScaleArgs& args);

struct ExpertScaleBackwardArgs {
    Tensor in, scale;
    int64_t scale_stride = 0;  ///< of scale and of d_scale
    Tensor offsets;
    Tensor d_out;    ///< [R, F]
    Tensor d_in;     ///< [R, F] overwritten; may be the same memory as d_out
    Tensor d_scale;  ///< expert 0's vector [F], accumulation type: adds
};
void expert_scale_backward(Context& context, const ExpertScaleBackwardArgs& args);

}  // namespace flanmoe::ops

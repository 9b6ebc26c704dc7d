// A bias vector of a projection.
//
//   add_bias:       x[n, c] += bias[c]
//   bias_backward:  d_bias[c] += sum_n d_out[n, c]       (the gradient of x is that of the sum)
#pragma once

#include "core/context.hpp"

namespace flanmoe::ops {

struct AddBiasArgs {
    Tensor x;     ///< [N, C] in place; rows may be strided
    Tensor bias;  ///< [C], type of x
};
void add_bias(Context& context, const AddBiasArgs& args);

struct BiasBackwardArgs {
    Tensor d_out;   ///< [N, C]; rows may be strided
    Tensor d_bias;  ///< [C] accumulation type: added to, in a fixed order
};
void bias_backward(Context& context, const BiasBackwardArgs& args);

}  // namespace flanmoe::ops

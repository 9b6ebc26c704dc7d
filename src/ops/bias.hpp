// Gradient of a projection's bias vector; the projection itself adds it (`bias` in ops/matmul.hpp).
//
//   d_bias[c] += sum_n d_out[n, c]
#pragma once

#include "core/context.hpp"

namespace flanmoe::ops {

struct BiasBackwardArgs {
    Tensor d_out;   ///< [N, C]; rows may be strided
    Tensor d_bias;  ///< [C] accumulation type: added to, in a fixed order
};
void bias_backward(Context& context, const BiasBackwardArgs& args);

}  // namespace flanmoe::ops

// Activations of a feed-forward, plain and gated, with dropout on the result.
//
//   plain: out = dropout(act(in))                       in [N, F]
//   gated: out = dropout(act(in[:, :F]) * in[:, F:])    in [N, 2F], wi_0 half first
// relu; gelu_tanh = 0.5 z (1 + tanh(sqrt(2/pi) (z + 0.044715 z^3))) (T5 v1.1's "gated-gelu"); gelu_erf; silu.
// Rows sorted by expert carry `row_ids`: dropout element (row, f) is row_ids[row] * F + f, so that it does not depend on the order of rows.
// Of a feed-forward that ranks share, in and out are some of the columns: `dropout_cols` is the whole F in that formula, and the first column is counted in
// dropout.first.
// `rows_used` (i32 [1], the last of the expert offsets) limits the rows; those beyond are neither read nor written.
#pragma once

#include "core/context.hpp"
#include "core/kinds.hpp"
#include "core/random.hpp"

namespace flanmoe::ops {

struct ActivationArgs {
    Activation kind = Activation::relu;
    bool gated = false;
    Tensor in;         ///< [N, F] or [N, 2F]
    Tensor row_ids;    ///< optional i64 [N]
    Tensor rows_used;  ///< optional i32 [1]
    Dropout dropout;
    Tensor out;        ///< [N, F]
    int64_t dropout_cols = 0;  ///< F of the whole tensor; 0 = that of `out`
};
void activation(Context& context, const ActivationArgs& args);

struct ActivationBackwardArgs {
    Activation kind = Activation::relu;
    bool gated = false;
    Tensor in, row_ids, rows_used;
    Dropout dropout;
    Tensor d_out;  ///< [N, F]
    Tensor d_in;   ///< [N, F] or [N, 2F] out; may be the same memory as `in`
    int64_t dropout_cols = 0;  ///< as in the forward
};
void activation_backward(Context& context, const ActivationBackwardArgs& args);

}  // namespace flanmoe::ops

// Matrix products: dense, and grouped over experts.
//
//   matmul:                 out = op(a) op(b)          (+ out if accumulate, + bias in every row if there is one), op = identity or transpose
//   grouped_matmul:         out[r] = a[r] op(b[e])     for rows r in [offsets[e], offsets[e+1]) of expert e
//   grouped_matmul_weight:  out[e] (+)= a_e^T b_e      a_e, b_e = the rows of expert e
//
// Backward of y = x w^T (w [out, in] as on disk): dx = dy w, dw += dy^T x; of the grouped product the same per expert. Element types: a and b alike
// (f32, bf16, f64); out of the same type or, for bf16 operands, f32. Sums are in float (double for f64). Experts without rows: grouped_matmul
// does nothing, grouped_matmul_weight adds nothing (writes zeros if not accumulate).
#pragma once

#include "core/context.hpp"

namespace flanmoe::ops {

struct MatmulArgs {
    Tensor a;    ///< [m, k], or [k, m] if transpose_a; leading dimensions are rows
    Tensor b;    ///< [k, n], or [n, k] if transpose_b
    Tensor out;  ///< [m, n]
    bool transpose_a = false, transpose_b = false;
    bool accumulate = false;
    Tensor bias = {};  ///< [n] of out's type, or nothing; excludes accumulate. Its gradient: ops/bias.hpp
};
void matmul(Context& context, const MatmulArgs& args);

struct GroupedMatmulArgs {
    Tensor a;        ///< [R, k], rows sorted by expert; rows before offsets[0] and from offsets[E] on are neither read nor written
    Tensor b;        ///< expert 0's matrix: [k, n], or [n, k] if transpose_b
    int64_t b_stride = 0;  ///< elements from one expert's matrix to the next
    Tensor offsets;  ///< i32 [E + 1]
    Tensor out;      ///< [R, n]
    bool transpose_b = false;
};
void grouped_matmul(Context& context, const GroupedMatmulArgs& args);

struct GroupedMatmulWeightArgs {
    Tensor a;        ///< [R, m]
    Tensor b;        ///< [R, n]
    Tensor offsets;  ///< i32 [E + 1]
    Tensor out;      ///< expert 0's [m, n]
    int64_t out_stride = 0;
    bool accumulate = true;
};
void grouped_matmul_weight(Context& context, const GroupedMatmulWeightArgs& args);

}  // namespace flanmoe::ops

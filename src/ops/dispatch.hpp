// Moving rows between token order and expert order, and weighing the experts' answers. The tables come from route(); only rows below the last
// entry of `offsets` are touched.
//
//   gather_rows:           out[r] = in[row_token[r]]
//   gather_rows_backward:  d_in[n] = sum over the rows r of token n of d_out[r]          (0 for a token without rows)
//   combine:               out[n] = sum over the rows r of token n of gate[r] * in[r]    (0: a dropped token adds nothing to the residual)
//   combine_backward:      d_in[r] = gate[r] * d_out[token of r];  d_gate[r] = in[r] . d_out[token of r]
#pragma once

#include "core/context.hpp"

namespace flanmoe::ops {

struct RowTables {
    Tensor offsets;        ///< i32 [E + 1]
    Tensor row_token;      ///< i32 [max_rows]
    Tensor token_offsets;  ///< i32 [N + 1]
    Tensor token_rows;     ///< i32 [max_rows]
};

struct GatherRowsArgs {
    Tensor in;   ///< [N, D]
    RowTables tables;
    Tensor out;  ///< [max_rows, D]
};
void gather_rows(Context& context, const GatherRowsArgs& args);

struct GatherRowsBackwardArgs {
    RowTables tables;
    Tensor d_out;  ///< [max_rows, D]
    Tensor d_in;   ///< [N, D] overwritten
};
void gather_rows_backward(Context& context, const GatherRowsBackwardArgs& args);

struct CombineArgs {
    Tensor in;    ///< [max_rows, D]
    Tensor gate;  ///< [max_rows] accumulation type
    RowTables tables;
    Tensor out;   ///< [N, D]
};
void combine(Context& context, const CombineArgs& args);

struct CombineBackwardArgs {
    Tensor in, gate;
    RowTables tables;
    Tensor d_out;   ///< [N, D]
    Tensor d_in;    ///< [max_rows, D] overwritten; may be the same memory as `in`
    Tensor d_gate;  ///< [max_rows] accumulation type, overwritten
};
void combine_backward(Context& context, const CombineBackwardArgs& args);

}  // namespace flanmoe::ops

#include "ops/activation.hpp"

#include "ops/run.hpp"

namespace flanmoe::cpu {
void activation(Context&, const ops::ActivationArgs&);
void activation_backward(Context&, const ops::ActivationBackwardArgs&);
}  // namespace flanmoe::cpu
namespace flanmoe::cuda {
void activation(Context&, const ops::ActivationArgs&);
void activation_backward(Context&, const ops::ActivationBackwardArgs&);
}  // namespace flanmoe::cuda

namespace flanmoe::ops {

namespace {

// What forward and backward share; `out` is d_out in the backward.
void check(const Tensor& in, bool gated, const Tensor& row_ids, const Tensor& rows_used, const Tensor& out, int64_t dropout_cols) {
    const DType type = out.dtype;
    const int64_t rows = out.rows(), cols = out.cols();
    require(is_float(type) && is_matrix(out, type, rows, cols), "a floating result");
    require(is_matrix(in, type, rows, gated ? 2 * cols : cols), "an input of the result's type and width (twice the width if gated)");
    require(!row_ids || is_vector(row_ids, DType::i64, rows), "an i64 row id for every row");
    require(!rows_used || is_vector(rows_used, DType::i32, 1), "one i32 number of used rows");
    require(dropout_cols == 0 || dropout_cols >= cols, "masks at least as wide as the rows they are for");
}

}  // namespace

void activation(Context& context, const ActivationArgs& args) {
    check(args.in, args.gated, args.row_ids, args.rows_used, args.out, args.dropout_cols);
    dispatch(context, args.out.dtype, [&] { cpu::activation(context, args); }, [&] { cuda::activation(context, args); });
}

void activation_backward(Context& context, const ActivationBackwardArgs& args) {
    check(args.in, args.gated, args.row_ids, args.rows_used, args.d_out, args.dropout_cols);
    require(is_matrix(args.d_in, args.in.dtype, args.in.rows(), args.in.cols()), "a d_in like the input");
    dispatch(context, args.d_out.dtype, [&] { cpu::activation_backward(context, args); }, [&] { cuda::activation_backward(context, args); });
}

}  // namespace flanmoe::ops

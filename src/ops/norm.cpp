#include "ops/norm.hpp"

#include "ops/run.hpp"

namespace flanmoe::cpu {
void residual_norm(Context&, const ops::ResidualNormArgs&);
void residual_norm_backward(Context&, const ops::ResidualNormBackwardArgs&);
}  // namespace flanmoe::cpu

namespace flanmoe::ops {

void residual_norm(Context& context, const ResidualNormArgs& args) {
    const DType type = args.y.dtype;
    const int64_t rows = args.y.rows(), cols = args.y.cols();
    require(is_float(type) && is_matrix(args.y, type, rows, cols), "a floating y");
    require(args.residual || args.delta, "a residual or a delta");
    require(!args.residual || is_matrix(args.residual, type, rows, cols), "a residual like y");
    require(!args.delta || is_matrix(args.delta, type, rows, cols), "a delta like y");
    require(args.h ? is_matrix(args.h, type, rows, cols) : !args.delta, "an h like y, or none if there is no delta");
    require(is_vector(args.gain, type, cols), "a gain of y's type for every column");
    require(is_vector(args.rstd, accumulate_type(type), rows), "an rstd for every row in the accumulation type");
    dispatch(context, [&] { cpu::residual_norm(context, args); });
}

void residual_norm_backward(Context& context, const ResidualNormBackwardArgs& args) {
    const DType type = args.h.dtype;
    const int64_t rows = args.h.rows(), cols = args.h.cols();
    require(is_float(type) && is_matrix(args.h, type, rows, cols), "a floating h");
    require(is_vector(args.gain, type, cols), "a gain of h's type for every column");
    require(is_vector(args.rstd, accumulate_type(type), rows), "an rstd for every row in the accumulation type");
    require(is_matrix(args.dy, type, rows, cols), "a dy like h");
    require(!args.d_residual_path || is_matrix(args.d_residual_path, type, rows, cols), "a gradient of the residual path like h");
    require(is_matrix(args.dh, type, rows, cols), "a dh like h");
    require(!args.d_delta || is_matrix(args.d_delta, type, rows, cols), "a d_delta like h");
    require(args.d_delta.data != args.dh.data || !args.delta_dropout.active(), "dh and d_delta apart if there is dropout between them");
    require(is_vector(args.d_gain, accumulate_type(type), cols), "a d_gain in the accumulation type for every column");
    dispatch(context, [&] { cpu::residual_norm_backward(context, args); });
}

}  // namespace flanmoe::ops

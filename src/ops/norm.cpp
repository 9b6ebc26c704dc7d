#include "ops/norm.hpp"

#include "ops/run.hpp"

namespace flanmoe::cpu {
void residual_norm(Context&, const ops::ResidualNormArgs&);
void residual_norm_backward(Context&, const ops::ResidualNormBackwardArgs&);
}  // namespace flanmoe::cpu

namespace flanmoe::cuda {
void residual_norm(Context&, const ops::ResidualNormArgs&);
void residual_norm_backward(Context&, const ops::ResidualNormBackwardArgs&);
}  // namespace flanmoe::cuda

namespace flanmoe::ops {

void residual_norm(Context& context, const ResidualNormArgs& args) {
    const DType type = args.y.dtype, wide = accumulate_type(type);
    const int64_t rows = args.y.rows(), cols = args.y.cols();
    require(is_float(type) && is_matrix(args.y, type, rows, cols), "a floating y");
    require(args.residual || args.delta, "a residual or a delta");
    require(!args.residual || is_matrix(args.residual, wide, rows, cols), "a residual of y's shape in the accumulation type");
    require(!args.delta || is_matrix(args.delta, args.delta.dtype == wide ? wide : type, rows, cols), "a delta of y's shape, in its type or the accumulation type");
    require(args.h ? is_matrix(args.h, wide, rows, cols) : !args.delta, "an h like the residual, or none if there is no delta");
    require(is_vector(args.gain, wide, cols), "a gain for every column in the accumulation type");
    require(is_vector(args.rstd, wide, rows), "an rstd for every row in the accumulation type");
    dispatch(context, type, [&] { cpu::residual_norm(context, args); }, [&] { cuda::residual_norm(context, args); });
}

void residual_norm_backward(Context& context, const ResidualNormBackwardArgs& args) {
    const DType type = args.dy.dtype, wide = accumulate_type(type);
    const int64_t rows = args.dy.rows(), cols = args.dy.cols();
    require(is_float(type) && is_matrix(args.dy, type, rows, cols), "a floating dy");
    require(is_matrix(args.h, wide, rows, cols), "an h of dy's shape in the accumulation type");
    require(is_vector(args.gain, wide, cols), "a gain for every column in the accumulation type");
    require(is_vector(args.rstd, wide, rows), "an rstd for every row in the accumulation type");
    require(!args.d_residual_path || is_matrix(args.d_residual_path, wide, rows, cols), "a gradient of the residual path like h");
    require(is_matrix(args.dh, wide, rows, cols), "a dh like h");
    require(!args.d_delta || is_matrix(args.d_delta, type, rows, cols), "a d_delta like dy");
    require(args.d_delta.data != args.dh.data || (type == wide && !args.delta_dropout.active()), "dh and d_delta apart if they differ in type or by dropout");
    require(is_vector(args.d_gain, wide, cols), "a d_gain in the accumulation type for every column");
    dispatch(context, type, [&] { cpu::residual_norm_backward(context, args); }, [&] { cuda::residual_norm_backward(context, args); });
}

}  // namespace flanmoe::ops

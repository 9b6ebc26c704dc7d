#include "ops/row_gate.hpp"

#include "ops/run.hpp"

namespace flanmoe::cpu {
void row_gate(Context&, const ops::RowGateArgs&);
void row_gate_backward(Context&, const ops::RowGateBackwardArgs&);
}  // namespace flanmoe::cpu
namespace flanmoe::cuda {
void row_gate(Context&, const ops::RowGateArgs&);
void row_gate_backward(Context&, const ops::RowGateBackwardArgs&);
}  // namespace flanmoe::cuda

namespace flanmoe::ops {

void row_gate(Context& context, const RowGateArgs& args) {
    const Tensor& in = args.in;
    require(is_float(in.dtype) && is_matrix(in, in.dtype, in.rows(), in.cols()), "a floating input");
    require(is_vector(args.logit, accumulate_type(in.dtype), in.rows()), "a logit for every row in the accumulation type");
    require(is_matrix(args.out, in.dtype, in.rows(), in.cols()), "an output like the input");
    dispatch(context, args.in.dtype, [&] { cpu::row_gate(context, args); }, [&] { cuda::row_gate(context, args); });
}

void row_gate_backward(Context& context, const RowGateBackwardArgs& args) {
    const Tensor& in = args.in;
    require(is_float(in.dtype) && is_matrix(in, in.dtype, in.rows(), in.cols()), "a floating input");
    require(is_vector(args.logit, accumulate_type(in.dtype), in.rows()), "a logit for every row in the accumulation type");
    require(is_matrix(args.d_out, in.dtype, in.rows(), in.cols()) && is_matrix(args.d_in, in.dtype, in.rows(), in.cols()), "gradients like the input");
    require(is_vector(args.d_logit, in.dtype, in.rows()), "a gradient for every logit in the input's type");
    dispatch(context, args.in.dtype, [&] { cpu::row_gate_backward(context, args); }, [&] { cuda::row_gate_backward(context, args); });
}

}  // namespace flanmoe::ops

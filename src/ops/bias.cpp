#include "ops/bias.hpp"

#include "ops/run.hpp"

namespace flanmoe::cpu {
void add_bias(Context&, const ops::AddBiasArgs&);
void bias_backward(Context&, const ops::BiasBackwardArgs&);
}  // namespace flanmoe::cpu
namespace flanmoe::cuda {
void add_bias(Context&, const ops::AddBiasArgs&);
void bias_backward(Context&, const ops::BiasBackwardArgs&);
}  // namespace flanmoe::cuda

namespace flanmoe::ops {

void add_bias(Context& context, const AddBiasArgs& args) {
    const Tensor& x = args.x;
    require(is_float(x.dtype) && is_matrix(x, x.dtype, x.rows(), x.cols()), "a floating x");
    require(is_vector(args.bias, x.dtype, x.cols()), "a bias of x's type for every column");
    dispatch(context, args.x.dtype, [&] { cpu::add_bias(context, args); }, [&] { cuda::add_bias(context, args); });
}

void bias_backward(Context& context, const BiasBackwardArgs& args) {
    const Tensor& d = args.d_out;
    require(is_float(d.dtype) && is_matrix(d, d.dtype, d.rows(), d.cols()), "a floating d_out");
    require(is_vector(args.d_bias, accumulate_type(d.dtype), d.cols()), "a d_bias in the accumulation type for every column");
    dispatch(context, args.d_out.dtype, [&] { cpu::bias_backward(context, args); }, [&] { cuda::bias_backward(context, args); });
}

}  // namespace flanmoe::ops

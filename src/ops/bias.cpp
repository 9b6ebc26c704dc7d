#include "ops/bias.hpp"

#include "ops/run.hpp"

namespace flanmoe::cpu {
void bias_backward(Context&, const ops::BiasBackwardArgs&);
}  // namespace flanmoe::cpu
namespace flanmoe::cuda {
void bias_backward(Context&, const ops::BiasBackwardArgs&);
}  // namespace flanmoe::cuda

namespace flanmoe::ops {

void bias_backward(Context& context, const BiasBackwardArgs& args) {
    const Tensor& d = args.d_out;
    require(is_float(d.dtype) && is_matrix(d, d.dtype, d.rows(), d.cols()), "a floating d_out");
    require(is_vector(args.d_bias, accumulate_type(d.dtype), d.cols()), "a d_bias in the accumulation type for every column");
    dispatch(context, args.d_out.dtype, [&] { cpu::bias_backward(context, args); }, [&] { cuda::bias_backward(context, args); });
}

}  // namespace flanmoe::ops

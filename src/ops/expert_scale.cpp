// Argument checks of expert_scale.hpp.
#include "ops/expert_scale.hpp"

#include "ops/run.hpp"

namespace flanmoe::cpu {
void expert_scale(Context& context, const ops::ExpertScaleArgs& args);
void expert_scale_backward(Context& context, const ops::ExpertScaleBackwardArgs& args);
}  // namespace flanmoe::cpu
namespace flanmoe::cuda {
void expert_scale(Context& context, const ops::ExpertScaleArgs& args);
void expert_scale_backward(Context& context, const ops::ExpertScaleBackwardArgs& args);
}  // namespace flanmoe::cuda

namespace flanmoe::ops {

namespace {

void check(const Tensor& in, const Tensor& scale, int64_t stride, const Tensor& offsets) {
    require(is_float(in.dtype) && is_matrix(in, in.dtype, in.rows(), in.cols()), "rows of f32, bf16 or f64");
    require(is_vector(scale, in.dtype, in.cols()) && stride >= in.cols(), "a vector of each expert, as long as a row and of its type");
    require(offsets && offsets.dtype == DType::i32 && offsets.elements() >= 2, "expert offsets i32 [E + 1]");
}

}  // namespace

void expert_scale(Context& context, const ExpertScaleArgs& args) {
    check(args.in, args.scale, args.scale_stride, args.offsets);
    require(is_matrix(args.out, args.in.dtype, args.in.rows(), args.in.cols()), "a result like the input");
    dispatch(context, args.in.dtype, [&] { cpu::expert_scale(context, args); }, [&] { cuda::expert_scale(context, args); });
}

void expert_scale_backward(Context& context, const ExpertScaleBackwardArgs& args) {
    check(args.in, args.scale, args.scale_stride, args.offsets);
    require(is_matrix(args.d_out, args.in.dtype, args.in.rows(), args.in.cols()) && is_matrix(args.d_in, args.in.dtype, args.in.rows(), args.in.cols()), "gradients like the input");
    require(is_vector(args.d_scale, accumulate_type(args.in.dtype), args.in.cols()), "a gradient of the vectors in the accumulation type");
    dispatch(context, args.in.dtype, [&] { cpu::expert_scale_backward(context, args); }, [&] { cuda::expert_scale_backward(context, args); });
}

}  // namespace flanmoe::ops

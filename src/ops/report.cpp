// Argument checks of report.hpp. Its numbers are doubles on both devices, so the context alone says where they are.
#include "ops/report.hpp"

#include "ops/run.hpp"

namespace flanmoe::cpu {
void add_sums(Context& context, std::span<const Tensor> parts, const Tensor& total);
void step_verdict(Context& context, const ops::StepVerdictArgs& args);
void balance_bias(Context& context, const ops::BalanceBiasArgs& args);
}  // namespace flanmoe::cpu
namespace flanmoe::cuda {
void add_sums(Context& context, std::span<const Tensor> parts, const Tensor& total);
void step_verdict(Context& context, const ops::StepVerdictArgs& args);
void balance_bias(Context& context, const ops::BalanceBiasArgs& args);
}  // namespace flanmoe::cuda

namespace flanmoe::ops {

void add_sums(Context& context, std::span<const Tensor> parts, const Tensor& total) {
    int64_t elements = 0;
    for (const Tensor& part : parts) {
        require(is_vector(part, DType::f64, part.elements()), "sums in double");
        elements += part.elements();
    }
    require(is_vector(total, DType::f64, elements), "as many sums as their parts have together");
    dispatch(context, DType::f32, [&] { cpu::add_sums(context, parts, total); }, [&] { cuda::add_sums(context, parts, total); });
}

void step_verdict(Context& context, const StepVerdictArgs& args) {
    require(is_vector(args.report, DType::f64, output_sums + args.layers * (route_sums + 2 * args.experts)), "a report of all sparse layers");
    for (const Tensor& t : {args.squared_norm, args.largest_loss, args.loss, args.accepted}) require(is_vector(t, DType::f64, 1), "single numbers in double");
    dispatch(context, DType::f32, [&] { cpu::step_verdict(context, args); }, [&] { cuda::step_verdict(context, args); });
}

void balance_bias(Context& context, const BalanceBiasArgs& args) {
    const int64_t experts = args.demand.elements();
    require(experts > 0 && is_vector(args.demand, DType::f64, experts) && is_vector(args.accepted, DType::f64, 1), "demand [E] and a verdict in double");
    require((args.bias.dtype == DType::f32 || args.bias.dtype == DType::f64) && is_vector(args.bias, args.bias.dtype, experts), "a bias [E] of f32 or f64");
    dispatch(context, args.bias.dtype, [&] { cpu::balance_bias(context, args); }, [&] { cuda::balance_bias(context, args); });
}

}  // namespace flanmoe::ops

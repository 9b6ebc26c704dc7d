// Argument checks and dispatch of matrix products.
#include "ops/matmul.hpp"

#include "ops/run.hpp"

namespace flanmoe::cpu {
void matmul(Context& context, const ops::MatmulArgs& args);
void grouped_matmul(Context& context, const ops::GroupedMatmulArgs& args);
void grouped_matmul_weight(Context& context, const ops::GroupedMatmulWeightArgs& args);
}  // namespace flanmoe::cpu

namespace flanmoe::cuda {
void matmul(Context& context, const ops::MatmulArgs& args);
void grouped_matmul(Context& context, const ops::GroupedMatmulArgs& args);
void grouped_matmul_weight(Context& context, const ops::GroupedMatmulWeightArgs& args);
}  // namespace flanmoe::cuda

namespace flanmoe::ops {

namespace {
void require_types(const Tensor& a, const Tensor& b, const Tensor& out) {
    require(is_float(a.dtype) && b.dtype == a.dtype, "operands of one floating type");
    require(out.dtype == a.dtype || (a.dtype == DType::bf16 && out.dtype == DType::f32), "a result of the operands' type, or f32 of bf16 operands");
}
}  // namespace

void matmul(Context& context, const MatmulArgs& args) {
    const int64_t m = args.out.rows(), n = args.out.cols(), k = args.transpose_a ? args.a.rows() : args.a.cols();
    require_types(args.a, args.b, args.out);
    require((args.transpose_a ? args.a.cols() : args.a.rows()) == m, "as many rows in the result as in the left operand");
    require((args.transpose_b ? args.b.cols() : args.b.rows()) == k, "inner dimensions that agree");
    require((args.transpose_b ? args.b.rows() : args.b.cols()) == n, "as many columns in the result as in the right operand");
    require(!args.bias.data || (is_vector(args.bias, args.out.dtype, n) && !args.accumulate && k > 0), "a bias of the result's type for every column, and nothing to add to");
    context.flops += 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
    dispatch(context, args.a.dtype, [&] { cpu::matmul(context, args); }, [&] { cuda::matmul(context, args); });
}

void grouped_matmul(Context& context, const GroupedMatmulArgs& args) {
    const int64_t n = args.out.cols(), k = args.a.cols();
    require_types(args.a, args.b, args.out);
    require(args.a.rows() == args.out.rows(), "as many rows in the result as in the left operand");
    require((args.transpose_b ? args.b.cols() : args.b.rows()) == k && (args.transpose_b ? args.b.rows() : args.b.cols()) == n, "matrices of the experts that fit");
    require(args.offsets.dtype == DType::i32 && args.offsets.elements() >= 2, "i32 offsets of at least one expert");
    dispatch(context, args.a.dtype, [&] { cpu::grouped_matmul(context, args); }, [&] { cuda::grouped_matmul(context, args); });
}

void grouped_matmul_weight(Context& context, const GroupedMatmulWeightArgs& args) {
    require_types(args.a, args.b, args.out);
    require(args.a.rows() == args.b.rows(), "as many rows in both operands");
    require(args.out.rows() == args.a.cols() && args.out.cols() == args.b.cols(), "a result of the operands' columns");
    require(args.offsets.dtype == DType::i32 && args.offsets.elements() >= 2, "i32 offsets of at least one expert");
    dispatch(context, args.a.dtype, [&] { cpu::grouped_matmul_weight(context, args); }, [&] { cuda::grouped_matmul_weight(context, args); });
}

}  // namespace flanmoe::ops

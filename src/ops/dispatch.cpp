// Argument checks of dispatch.hpp.
#include "ops/dispatch.hpp"

#include "ops/run.hpp"

namespace flanmoe::cpu {
void gather_rows(Context& context, const ops::GatherRowsArgs& args);
void gather_rows_backward(Context& context, const ops::GatherRowsBackwardArgs& args);
void combine(Context& context, const ops::CombineArgs& args);
void combine_backward(Context& context, const ops::CombineBackwardArgs& args);
}  // namespace flanmoe::cpu
namespace flanmoe::cuda {
void gather_rows(Context& context, const ops::GatherRowsArgs& args);
void gather_rows_backward(Context& context, const ops::GatherRowsBackwardArgs& args);
void combine(Context& context, const ops::CombineArgs& args);
void combine_backward(Context& context, const ops::CombineBackwardArgs& args);
}  // namespace flanmoe::cuda

namespace flanmoe::ops {

namespace {

void check_tables(const RowTables& tables, int64_t tokens) {
    require(tables.offsets.dtype == DType::i32 && tables.offsets.elements() >= 2, "expert offsets i32 [E + 1]");
    require(is_vector(tables.token_offsets, DType::i32, tokens + 1), "token offsets i32 [N + 1]");
    require(tables.row_token && tables.row_token.dtype == DType::i32 && is_vector(tables.token_rows, DType::i32, tables.row_token.elements()),
            "row tables i32 [max_rows]");
}

/// A floating matrix of `width` columns with a row for every possible row of the tables.
bool is_rows(const Tensor& tensor, DType type, const RowTables& tables, int64_t width) {
    return is_matrix(tensor, type, tensor.rows(), width) && tensor.rows() >= tables.row_token.elements();
}

}  // namespace

void gather_rows(Context& context, const GatherRowsArgs& args) {
    require(is_float(args.in.dtype), "rows of f32, bf16 or f64");
    check_tables(args.tables, args.in.rows());
    require(is_rows(args.out, args.in.dtype, args.tables, args.in.cols()), "gathered rows [max_rows, D] of the input's type");
    dispatch(context, args.in.dtype, [&] { cpu::gather_rows(context, args); }, [&] { cuda::gather_rows(context, args); });
}

void gather_rows_backward(Context& context, const GatherRowsBackwardArgs& args) {
    require(is_float(args.d_in.dtype), "rows of f32, bf16 or f64");
    check_tables(args.tables, args.d_in.rows());
    require(is_rows(args.d_out, args.d_in.dtype, args.tables, args.d_in.cols()), "gradients of the gathered rows [max_rows, D]");
    dispatch(context, args.d_out.dtype, [&] { cpu::gather_rows_backward(context, args); }, [&] { cuda::gather_rows_backward(context, args); });
}

void combine(Context& context, const CombineArgs& args) {
    require(is_float(args.out.dtype), "rows of f32, bf16 or f64");
    check_tables(args.tables, args.out.rows());
    require(is_rows(args.in, args.out.dtype, args.tables, args.out.cols()), "expert rows [max_rows, D] of the output's type");
    require(is_vector(args.gate, accumulate_type(args.out.dtype), args.tables.row_token.elements()), "gates [max_rows] of the accumulation type");
    dispatch(context, args.in.dtype, [&] { cpu::combine(context, args); }, [&] { cuda::combine(context, args); });
}

void combine_backward(Context& context, const CombineBackwardArgs& args) {
    const DType type = args.d_out.dtype;
    const int64_t rows = args.tables.row_token.elements();
    require(is_float(type), "rows of f32, bf16 or f64");
    check_tables(args.tables, args.d_out.rows());
    require(is_rows(args.in, type, args.tables, args.d_out.cols()) && is_rows(args.d_in, type, args.tables, args.d_out.cols()), "expert rows [max_rows, D]");
    require(is_vector(args.gate, accumulate_type(type), rows) && is_vector(args.d_gate, accumulate_type(type), rows), "gates [max_rows] of the accumulation type");
    dispatch(context, args.in.dtype, [&] { cpu::combine_backward(context, args); }, [&] { cuda::combine_backward(context, args); });
}

}  // namespace flanmoe::ops

#include "ops/embedding.hpp"

#include "ops/run.hpp"

namespace flanmoe::cpu {
void embedding(Context&, const ops::EmbeddingArgs&);
void embedding_backward(Context&, const ops::EmbeddingBackwardArgs&);
}  // namespace flanmoe::cpu
namespace flanmoe::cuda {
void embedding(Context&, const ops::EmbeddingArgs&);
void embedding_backward(Context&, const ops::EmbeddingBackwardArgs&);
}  // namespace flanmoe::cuda

namespace flanmoe::ops {

namespace {
bool is_part(const Tensor& table, int64_t first_id, int64_t vocabulary) {
    return vocabulary ? first_id >= 0 && first_id + table.rows() <= vocabulary : first_id == 0;
}
}  // namespace

void embedding(Context& context, const EmbeddingArgs& args) {
    const DType type = args.table.dtype;
    require(is_float(type) && is_matrix(args.table, type, args.table.rows(), args.table.cols()), "a floating table");
    require(is_matrix(args.out, type, args.out.rows(), args.table.cols()), "an output of the table's type and width");
    require(is_vector(args.ids, DType::i32, args.out.rows()), "an i32 id for every row of the output");
    require(is_part(args.table, args.first_id, args.vocabulary), "a table, or rows of a larger one");
    dispatch(context, args.out.dtype, [&] { cpu::embedding(context, args); }, [&] { cuda::embedding(context, args); });
}

void embedding_backward(Context& context, const EmbeddingBackwardArgs& args) {
    const DType type = args.d_out.dtype;
    require(is_float(type) && is_matrix(args.d_out, type, args.d_out.rows(), args.d_out.cols()), "a floating d_out");
    require(is_matrix(args.d_table, accumulate_type(type), args.d_table.rows(), args.d_out.cols()),
            "a d_table of d_out's width in the accumulation type");
    require(is_vector(args.ids, DType::i32, args.d_out.rows()), "an i32 id for every row of d_out");
    require(is_part(args.d_table, args.first_id, args.vocabulary), "a d_table like the table");
    dispatch(context, args.d_out.dtype, [&] { cpu::embedding_backward(context, args); }, [&] { cuda::embedding_backward(context, args); });
}

}  // namespace flanmoe::ops

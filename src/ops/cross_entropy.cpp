// Argument checks and dispatch of the output layer with its loss.
#include "ops/cross_entropy.hpp"

#include "ops/run.hpp"

namespace flanmoe::cpu {
void linear_cross_entropy(Context& context, const ops::LinearCrossEntropyArgs& args);
}
namespace flanmoe::cuda {
void linear_cross_entropy(Context& context, const ops::LinearCrossEntropyArgs& args);
}

namespace flanmoe::ops {

void linear_cross_entropy(Context& context, const LinearCrossEntropyArgs& args) {
    const DType type = args.hidden.dtype;
    const int64_t rows = args.targets.elements(), width = args.weight.cols(), vocabulary = args.weight.rows();
    require(is_float(type), "hidden states of a floating type");
    require(is_matrix(args.hidden, type, rows, width), "one hidden state a target, as wide as the output matrix");
    require(is_matrix(args.weight, type, vocabulary, width), "an output matrix of the hidden states' type");
    require(is_vector(args.targets, DType::i32, rows), "compact i32 targets");
    require(!args.d_hidden || is_matrix(args.d_hidden, type, rows, width), "a gradient like the hidden states");
    require(!args.d_weight || is_matrix(args.d_weight, accumulate_type(type), vocabulary, width), "a gradient like the output matrix, in the accumulation type");
    require(!args.token_nll || is_vector(args.token_nll, accumulate_type(type), rows), "one loss a row, in the accumulation type");
    const VocabularyPart& part = args.part;
    require(part.parts == 1 || (part.parts > 1 && part.gather && part.first_id + vocabulary <= part.vocabulary && vocabulary <= largest_part(part, vocabulary)),
            "rows of an output matrix that parts share, and their exchange");
    require(is_vector(args.sums, DType::f64, 4), "four sums in double");
    dispatch(context, type, [&] { cpu::linear_cross_entropy(context, args); }, [&] { cuda::linear_cross_entropy(context, args); });
}

CrossEntropySums read_sums(const Context& context, const Tensor& sums) {
    const std::vector<double> values = context.download<double>(sums);
    return {values[0], values[1], static_cast<int64_t>(values[2]), static_cast<int64_t>(values[3])};
}

}  // namespace flanmoe::ops

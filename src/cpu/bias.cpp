// Gradients of bias vectors on the CPU: summed over fixed blocks of rows, then over the blocks in order: the same bits for any number of threads.
#include "ops/bias.hpp"

#include "core/parallel.hpp"
#include "cpu/vector_math.hpp"
#include "ops/run.hpp"

namespace flanmoe::cpu {

namespace {

constexpr int64_t elements_per_thread = 8192;  // least work worth waking a thread for
constexpr int64_t block_rows = 64;

template <class T>
void backward(Context& context, const ops::BiasBackwardArgs& args) {
    using A = accumulate_t<T>;
    const Arena::Scope scope(context.arena);
    const int64_t rows = args.d_out.rows(), cols = args.d_out.cols(), blocks = (rows + block_rows - 1) / block_rows;
    const Tensor sums = context.zeros(dtype_of<A>, {blocks, cols});
    parallel_for(blocks, std::max<int64_t>(1, elements_per_thread / (block_rows * cols)), [&](int64_t begin, int64_t end) {
        for (int64_t b = begin; b < end; ++b)
            for (int64_t r = b * block_rows; r < std::min(rows, (b + 1) * block_rows); ++r) add_row(row_of<T>(args.d_out, r), row_of<A>(sums, b), cols);
    });
    for (int64_t b = 0; b < blocks; ++b) add_row(row_of<A>(sums, b), args.d_bias.as<A>(), cols);
}

}  // namespace

void bias_backward(Context& context, const ops::BiasBackwardArgs& args) {
    ops::with_type(args.d_out.dtype, [&]<class T>() { backward<T>(context, args); });
}

}  // namespace flanmoe::cpu

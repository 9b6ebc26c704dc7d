// The variants of grouped products for one architecture and for another: the same sums, each to the bit, since both add inner elements in their order.
#include "cuda/engine.hpp"
#include "ops/check.hpp"
#include "ops/matmul.hpp"

#include <doctest/doctest.h>

using namespace flanmoe;
using namespace flanmoe::test;

namespace {

// An engine of a device of this architecture.
struct On {
    explicit On(int architecture) : before(std::exchange(cudasim::machine().architecture, architecture)), context(Device::cuda, engine) {}
    ~On() { cudasim::machine().architecture = before; }
    int before;
    cuda::Engine engine;
    Context context;
};

const std::vector<int32_t> starts = {0, 70, 70, 275, 276, 340};  // 70 rows, none, 205, 1 and 64

Tensor rows_product(Context& context, int64_t inner, int64_t cols, bool transpose_b, DType out_type) {
    const int64_t rows = starts.back(), experts = static_cast<int64_t>(starts.size()) - 1;
    const Tensor a = random(context, DType::bf16, {rows, inner}, 1), b = random(context, DType::bf16, {experts * (transpose_b ? cols : inner), transpose_b ? inner : cols}, 2);
    const Tensor out = make(context, out_type, {rows, cols});
    ops::grouped_matmul(context, {.a = a, .b = b.slice_rows(0, transpose_b ? cols : inner), .b_stride = inner * cols, .offsets = context.upload(starts, {experts + 1}), .out = out,
                                  .transpose_b = transpose_b});
    return out;
}

Tensor weights_product(Context& context, int64_t rows, int64_t cols, DType out_type) {
    const int64_t experts = static_cast<int64_t>(starts.size()) - 1;
    const Tensor out = random(context, out_type, {experts * rows, cols}, 3);
    ops::grouped_matmul_weight(context, {.a = random(context, DType::bf16, {starts.back(), rows}, 1), .b = random(context, DType::bf16, {starts.back(), cols}, 2),
                                         .offsets = context.upload(starts, {experts + 1}), .out = out.slice_rows(0, rows), .out_stride = rows * cols, .accumulate = true});
    return out;
}

}  // namespace

TEST_SUITE("cudasim/grouped") {
    TEST_CASE("Hopper's products are the portable ones") {
        On portable(80), hopper(90);
        for (const DType type : {DType::f32, DType::bf16}) {
            for (const bool transpose_b : {false, true})
                CHECK(same_bits(rows_product(portable.context, 200, 264, transpose_b, type), rows_product(hopper.context, 200, 264, transpose_b, type)));
            CHECK(same_bits(weights_product(portable.context, 136, 264, type), weights_product(hopper.context, 136, 264, type)));
        }
    }
}

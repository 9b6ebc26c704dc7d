// Dense matrix products: cuBLASLt does them, a bias in its epilogue (blas.hpp). bf16 operands run on tensor cores with sums in f32; f32 stays f32.
//
// Counted: 2 m n k FLOPs; limit: what the library reaches, about 80 % of the tensor cores' peak on large bf16 products. Not yet measured on hardware.
#include "ops/matmul.hpp"

#include "blas.hpp"
#include "engine.hpp"

namespace flanmoe::cuda {

void matmul(Context& context, const ops::MatmulArgs& args) {
    Engine& engine = engine_of(context);
    const int64_t m = args.out.rows(), n = args.out.cols(), k = args.transpose_a ? args.a.rows() : args.a.cols();
    if (m == 0 || n == 0) return;
    if (k == 0) {  // an empty sum; the library takes no empty matrix
        if (args.accumulate) return;
        const int64_t row_bytes = n * size_of(args.out.dtype), stride = args.out.ld * size_of(args.out.dtype);
        if (args.out.compact()) return engine.zero(args.out.data, m * row_bytes);
        for (int64_t r = 0; r < m; ++r) engine.zero(static_cast<char*>(args.out.data) + r * stride, row_bytes);
        return;
    }
    engine.blas().multiply({.m = m,
                            .n = n,
                            .k = k,
                            .a = args.a.data,
                            .b = args.b.data,
                            .out = args.out.data,
                            .bias = args.bias.data,
                            .lda = args.a.ld,
                            .ldb = args.b.ld,
                            .ld_out = args.out.ld,
                            .transpose_a = args.transpose_a,
                            .transpose_b = args.transpose_b,
                            .accumulate = args.accumulate,
                            .in = args.a.dtype,
                            .out_type = args.out.dtype},
                           engine);
}

}  // namespace flanmoe::cuda

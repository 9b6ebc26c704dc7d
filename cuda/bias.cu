// Gradients of bias vectors; cuBLASLt adds the vectors themselves while it writes a product (matmul.cu). Its epilogues for gradients overwrite, where
// those of several micro-batches are added.
//
// A block adds 256 rows of 256 columns, each of its eight warps every eighth row, and leaves a partial sum; a second launch adds the partial sums in order.
//
// Bytes at 64 Ki x 3072, bf16: 403 MB and 2 x 3 MB of partial sums: 0.15 ms at 2.7 TB/s. Not yet measured on hardware.
// Registers on sm_90a: 40, with 8 KB of shared memory a block.
#include "ops/bias.hpp"

#include "device.cuh"
#include "launch.hpp"

namespace flanmoe::cuda {

namespace {

constexpr int wide = 8;           // elements of a row that a thread takes at once
constexpr int warps = 8;          // of a block
constexpr int piece_rows = 256;   // that one block adds

/// partial[piece][c] = sum of the piece's rows.
template <class T, int N>
__global__ void sum_pieces(const T* d_out, int64_t ld, int64_t rows, int64_t cols, float* partial) {
    constexpr int columns = 32 * N;
    Shared shared;
    float* const by_warp = shared.take<float>(warps * columns);
    const int64_t begin = int64_t{blockIdx.x} * piece_rows, end = min(rows, begin + piece_rows);
    const int64_t first = int64_t{blockIdx.y} * columns, c = first + lane() * N;
    float sum[N] = {};
    if (c < cols) {
        const int left = static_cast<int>(min(cols - c, int64_t{N}));
#pragma unroll 4
        for (int64_t r = begin + warp(); r < end; r += warps) {
            float value[N];
            load_floats<N>(d_out + r * ld + c, left, value);
#pragma unroll
            for (int j = 0; j < N; ++j) sum[j] += value[j];
        }
    }
#pragma unroll
    for (int j = 0; j < N; ++j) by_warp[warp() * columns + lane() * N + j] = sum[j];
    __syncthreads();
    for (int i = threadIdx.x; i < columns && first + i < cols; i += warps * 32) {
        float total = 0;
        for (int w = 0; w < warps; ++w) total += by_warp[w * columns + i];
        partial[blockIdx.x * cols + first + i] = total;
    }
}

/// d_bias[c] += the pieces' sums: each warp every eighth piece, then the warps' sums.
__global__ void join_pieces(const float* partial, int64_t pieces, int64_t cols, float* d_bias) {
    Shared shared;
    float* const by_warp = shared.take<float>(warps * 32);
    const int64_t c = int64_t{blockIdx.x} * 32 + lane();
    float sum = 0;
    if (c < cols)
        for (int64_t p = warp(); p < pieces; p += warps) sum += partial[p * cols + c];
    by_warp[threadIdx.x] = sum;
    __syncthreads();
    if (warp() != 0 || c >= cols) return;
    float total = 0;
    for (int w = 0; w < warps; ++w) total += by_warp[w * 32 + lane()];
    d_bias[c] += total;
}

template <class T, int N>
void backward(Context& context, const ops::BiasBackwardArgs& args) {
    Arena::Scope scope(context.arena);
    const int64_t rows = args.d_out.rows(), cols = args.d_out.cols(), pieces = (rows + piece_rows - 1) / piece_rows;
    const Tensor partial = context.allocate(DType::f32, {pieces, cols});
    const dim3 grid(blocks_for(rows, piece_rows), blocks_for(cols, 32 * N));
    launch(context, "bias backward", sum_pieces<T, N>, grid, warps * 32, shared_bytes<float>(warps * 32 * N), args.d_out.as<T>(),
           args.d_out.ld, rows, cols, partial.as<float>());
    launch(context, "bias backward join", join_pieces, pieces ? blocks_for(cols, 32) : 0, warps * 32, shared_bytes<float>(warps * 32),
           partial.as<float>(), pieces, cols, args.d_bias.as<float>());
}

template <class T>
void backward(Context& context, const ops::BiasBackwardArgs& args) {
    if (has_aligned_rows(args.d_out)) backward<T, wide>(context, args);
    else backward<T, 1>(context, args);
}

}  // namespace

void bias_backward(Context& context, const ops::BiasBackwardArgs& args) {
    with_storage(args.d_out.dtype, [&]<class T>() { backward<T>(context, args); });
}

}  // namespace flanmoe::cuda

// RMS norm with residual and dropout: a block a row, eight columns a thread at a time, the row kept in shared memory between its two passes.
//
// Each thread comes back to the columns that it wrote itself, so only the sums need barriers. Backward: a block takes `rows_per_block` rows one after the
// other and keeps the sum of their gain gradients, per column, in shared memory; a second kernel adds the blocks' sums in a fixed order.
// Threads depend on the number of columns alone, and so does every order of sums.
//
// Counted traffic per element, bf16 activations and f32 stream (bytes): forward residual 4, delta 2, h 4, y 2 = 12; backward h 4, dy 2, path 4, dh 4,
// d_delta 2 = 16, and 8 / rows_per_block for the partial sums. Shared memory: 4 (forward) and 12 (backward) bytes a column. Not yet measured on hardware.
#include "ops/norm.hpp"

#include "device.cuh"
#include "launch.hpp"

namespace flanmoe::cuda {

namespace {

constexpr int most_threads = 256, rows_per_block = 16, per_thread = 8;
constexpr int gain_columns = 32, gain_rows = 32;  ///< threads of a block of the second kernel, across and along the blocks' sums

template <class T, class D>
struct Forward {
    Rows<const float> residual;
    Rows<const D> delta;
    Dropout delta_dropout, out_dropout;
    const float* gain;
    Rows<float> h;  // null: not to be stored
    Rows<T> y;
    float* rstd;
    float epsilon;
    int64_t cols;
};

template <int N, class T, class D>
__global__ void __launch_bounds__(most_threads) forward_kernel(Forward<T, D> a) {
    Shared shared;
    float* const sums = shared.take<float>(block_sum_piece);
    float* const row = shared.take<float>(a.cols);
    const int64_t r = blockIdx.x, step = static_cast<int64_t>(blockDim.x) * N;
    const uint64_t first = static_cast<uint64_t>(r * a.cols);
    float squares = 0;
    for (int64_t c = threadIdx.x * N; c < a.cols; c += step) {
        const int n = static_cast<int>(min(a.cols - c, static_cast<int64_t>(N)));
        float x[N] = {};
        if (a.delta) {
            load_floats<N>(a.delta.row(r) + c, n, x);
            multiply_dropout<N>(a.delta_dropout, first + static_cast<uint64_t>(c), x);
        }
        if (a.residual) {
            float before[N];
            load_floats<N>(a.residual.row(r) + c, n, before);
#pragma unroll
            for (int j = 0; j < N; ++j) x[j] += before[j];
        }
        if (a.h) store_floats<N>(a.h.row(r) + c, n, x);
        store_floats<N>(row + c, n, x);
#pragma unroll
        for (int j = 0; j < N; ++j) squares += x[j] * x[j];
    }
    const float rstd = 1 / sqrtf(block_sum(squares, sums) / static_cast<float>(a.cols) + a.epsilon);
    if (threadIdx.x == 0) a.rstd[r] = rstd;
    for (int64_t c = threadIdx.x * N; c < a.cols; c += step) {
        const int n = static_cast<int>(min(a.cols - c, static_cast<int64_t>(N)));
        float x[N], gain[N];
        load_floats<N>(row + c, n, x);
        load_floats<N>(a.gain + c, n, gain);
#pragma unroll
        for (int j = 0; j < N; ++j) x[j] *= gain[j] * rstd;
        multiply_dropout<N>(a.out_dropout, first + static_cast<uint64_t>(c), x);
        store_floats<N>(a.y.row(r) + c, n, x);
    }
}

template <class T>
struct Backward {
    Rows<const float> h, path;
    Rows<const T> dy;
    const float *gain, *rstd;
    Dropout delta_dropout, out_dropout;
    Rows<float> dh;
    Rows<T> d_delta;  // null: not to be stored
    float* partial;   // [blocks, cols]
    int64_t rows, cols;
};

template <int N, class T>
__global__ void __launch_bounds__(most_threads) backward_kernel(Backward<T> a) {
    Shared shared;
    float* const sums = shared.take<float>(block_sum_piece);
    float* const h_row = shared.take<float>(a.cols);
    float* const g_row = shared.take<float>(a.cols);
    float* const d_gain = shared.take<float>(a.cols);
    const int64_t step = static_cast<int64_t>(blockDim.x) * N, begin = static_cast<int64_t>(blockIdx.x) * rows_per_block;
    const int64_t end = min(begin + rows_per_block, a.rows);
    const float zeros[N] = {};
    for (int64_t c = threadIdx.x * N; c < a.cols; c += step) store_floats<N>(d_gain + c, static_cast<int>(min(a.cols - c, static_cast<int64_t>(N))), zeros);
    for (int64_t r = begin; r < end; ++r) {
        const uint64_t first = static_cast<uint64_t>(r * a.cols);
        const float rstd = a.rstd[r];
        float product = 0;  // of g and h
        for (int64_t c = threadIdx.x * N; c < a.cols; c += step) {
            const int n = static_cast<int>(min(a.cols - c, static_cast<int64_t>(N)));
            float g[N], h[N], gain[N], sum[N];
            load_floats<N>(a.dy.row(r) + c, n, g);
            multiply_dropout<N>(a.out_dropout, first + static_cast<uint64_t>(c), g);
            load_floats<N>(a.h.row(r) + c, n, h);
            load_floats<N>(a.gain + c, n, gain);
            load_floats<N>(d_gain + c, n, sum);
#pragma unroll
            for (int j = 0; j < N; ++j) {
                sum[j] += g[j] * h[j] * rstd;
                g[j] *= gain[j];
                product += g[j] * h[j];
            }
            store_floats<N>(d_gain + c, n, sum);
            store_floats<N>(g_row + c, n, g);
            store_floats<N>(h_row + c, n, h);
        }
        const float pull = rstd * rstd * rstd * block_sum(product, sums) / static_cast<float>(a.cols);
        for (int64_t c = threadIdx.x * N; c < a.cols; c += step) {
            const int n = static_cast<int>(min(a.cols - c, static_cast<int64_t>(N)));
            float g[N], h[N], path[N] = {};
            load_floats<N>(g_row + c, n, g);
            load_floats<N>(h_row + c, n, h);
            if (a.path) load_floats<N>(a.path.row(r) + c, n, path);
#pragma unroll
            for (int j = 0; j < N; ++j) g[j] = rstd * g[j] - pull * h[j] + path[j];
            store_floats<N>(a.dh.row(r) + c, n, g);
            if (!a.d_delta) continue;
            multiply_dropout<N>(a.delta_dropout, first + static_cast<uint64_t>(c), g);
            store_floats<N>(a.d_delta.row(r) + c, n, g);
        }
    }
    for (int64_t c = threadIdx.x * N; c < a.cols; c += step) {
        const int n = static_cast<int>(min(a.cols - c, static_cast<int64_t>(N)));
        float sum[N];
        load_floats<N>(d_gain + c, n, sum);
        store_floats<N>(a.partial + blockIdx.x * a.cols + c, n, sum);
    }
}

// d_gain[c] += sum of partial[.., c]: each thread every gain_rows-th of them, then the threads of a column in order.
__global__ void __launch_bounds__(gain_columns* gain_rows) gain_kernel(const float* partial, int64_t blocks, int64_t cols, float* d_gain) {
    Shared shared;
    float* const sums = shared.take<float>(gain_columns * gain_rows);
    const int64_t c = static_cast<int64_t>(blockIdx.x) * gain_columns + threadIdx.x;
    float sum = 0;
    if (c < cols)
        for (int64_t b = threadIdx.y; b < blocks; b += gain_rows) sum += partial[b * cols + c];
    sums[threadIdx.y * gain_columns + threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y != 0 || c >= cols) return;
    for (int i = 1; i < gain_rows; ++i) sum += sums[i * gain_columns + threadIdx.x];
    d_gain[c] += sum;
}

// Whole warps, at most eight columns a thread where they suffice.
int threads_for(int64_t cols) {
    const int64_t wanted = (cols + per_thread - 1) / per_thread;
    return static_cast<int>(std::min<int64_t>(most_threads, (wanted + warp_size - 1) / warp_size * warp_size));
}

bool all_aligned(std::initializer_list<const Tensor*> tensors) {
    for (const Tensor* t : tensors)
        if (!has_aligned_rows(*t)) return false;
    return true;
}

template <class T, class D>
void forward(Context& context, const ops::ResidualNormArgs& args) {
    const bool store_h = args.h && (args.delta || args.h.data != args.residual.data);
    const int64_t rows = args.y.rows(), cols = args.y.cols();
    const Forward<T, D> a{.residual = rows_of<const float>(args.residual),
                          .delta = rows_of<const D>(args.delta),
                          .delta_dropout = args.delta_dropout,
                          .out_dropout = args.out_dropout,
                          .gain = args.gain.as<float>(),
                          .h = rows_of<float>(store_h ? args.h : Tensor{}),
                          .y = rows_of<T>(args.y),
                          .rstd = args.rstd.as<float>(),
                          .epsilon = static_cast<float>(args.epsilon),
                          .cols = cols};
    const auto kernel = all_aligned({&args.residual, &args.delta, &args.gain, &args.h, &args.y}) ? forward_kernel<per_thread, T, D> : forward_kernel<1, T, D>;
    launch(context, "residual_norm", kernel, static_cast<unsigned>(rows), threads_for(cols), shared_bytes<float>(block_sum_piece) + shared_bytes<float>(cols), a);
}

}  // namespace

void residual_norm(Context& context, const ops::ResidualNormArgs& args) {
    with_storage(args.y.dtype, [&]<class T>() { args.delta.dtype == DType::f32 ? forward<T, float>(context, args) : forward<T, T>(context, args); });
}

void residual_norm_backward(Context& context, const ops::ResidualNormBackwardArgs& args) {
    const Arena::Scope scope(context.arena);
    const int64_t rows = args.h.rows(), cols = args.h.cols(), blocks = (rows + rows_per_block - 1) / rows_per_block;
    if (rows == 0 || cols == 0) return;
    const Tensor partial = context.allocate(DType::f32, {blocks, cols});
    with_storage(args.dy.dtype, [&]<class T>() {
        const bool own_delta = args.d_delta && args.d_delta.data != args.dh.data;
        const Backward<T> a{.h = rows_of<const float>(args.h),
                            .path = rows_of<const float>(args.d_residual_path),
                            .dy = rows_of<const T>(args.dy),
                            .gain = args.gain.as<float>(),
                            .rstd = args.rstd.as<float>(),
                            .delta_dropout = args.delta_dropout,
                            .out_dropout = args.out_dropout,
                            .dh = rows_of<float>(args.dh),
                            .d_delta = rows_of<T>(own_delta ? args.d_delta : Tensor{}),
                            .partial = partial.as<float>(),
                            .rows = rows,
                            .cols = cols};
        const auto kernel = all_aligned({&args.h, &args.d_residual_path, &args.dy, &args.gain, &args.dh, &args.d_delta, &partial}) ? backward_kernel<per_thread, T>
                                                                                                                                   : backward_kernel<1, T>;
        const size_t bytes = shared_bytes<float>(block_sum_piece) + 3 * shared_bytes<float>(cols);
        launch(context, "residual_norm_backward", kernel, static_cast<unsigned>(blocks), threads_for(cols), bytes, a);
    });
    launch(context, "residual_norm_backward, gain", gain_kernel, blocks_for(cols, gain_columns), dim3(gain_columns, gain_rows),
           shared_bytes<float>(gain_columns * gain_rows), partial.as<float>(), blocks, cols, args.d_gain.as<float>());
}

}  // namespace flanmoe::cuda

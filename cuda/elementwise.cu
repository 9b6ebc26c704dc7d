// Operations over whole tensors: eight elements a thread in vectors of 16 bytes (one each where a tensor does not lie on such a border), all bound by memory.
//
// sum_of_squares: blocks of a fixed number of elements, each summed in double in a fixed order; then one block adds the blocks' sums. The order depends
// on the number of elements alone.
//
// Counted traffic per element (bytes read + written): cast f32 to bf16 6; add bf16 into f32 10; scale f32 8; dropout bf16 4; jitter bf16 to f32 6; sum
// of squares f32 4. Philox takes about 70 integer instructions for eight dropout factors and so stays below memory's time. Not yet measured on hardware.
#include "ops/elementwise.hpp"

#include "device.cuh"
#include "launch.hpp"

namespace flanmoe::cuda {

namespace {

constexpr int threads = 256, per_thread = 8;
constexpr int64_t squares_per_block = 16384;

// What an operation does with elements [i, i + n), n <= N.
template <class T>
struct DropoutBody {
    const T* in;
    T* out;
    Dropout dropout;
    template <int N>
    __device__ void run(int64_t i, int n) const {
        float x[N];
        load_floats<N>(in + i, n, x);
        multiply_dropout<N>(dropout, static_cast<uint64_t>(i), x);
        store_floats<N>(out + i, n, x);
    }
};
template <class From, class To>
struct CastBody {
    const From* from;
    To* to;
    template <int N>
    __device__ void run(int64_t i, int n) const {
        float x[N];
        load_floats<N>(from + i, n, x);
        store_floats<N>(to + i, n, x);
    }
};
template <class From, class To>
struct AddBody {
    const From* from;
    To* to;
    template <int N>
    __device__ void run(int64_t i, int n) const {
        float x[N], sum[N];
        load_floats<N>(from + i, n, x);
        load_floats<N>(to + i, n, sum);
#pragma unroll
        for (int j = 0; j < N; ++j) sum[j] += x[j];
        store_floats<N>(to + i, n, sum);
    }
};
template <class T>
struct ScaleBody {
    T* values;
    float factor;
    template <int N>
    __device__ void run(int64_t i, int n) const {
        float x[N];
        load_floats<N>(values + i, n, x);
#pragma unroll
        for (int j = 0; j < N; ++j) x[j] *= factor;
        store_floats<N>(values + i, n, x);
    }
};
template <class From, class To>
struct JitterBody {
    const From* in;
    To* out;
    float low, width;
    RandomKey key;
    uint64_t first;
    template <int N>
    __device__ void run(int64_t i, int n) const {
        float x[N], u[N];
        load_floats<N>(in + i, n, x);
        uniforms<N>(key, first + static_cast<uint64_t>(i), u);
#pragma unroll
        for (int j = 0; j < N; ++j) x[j] *= low + width * u[j];
        store_floats<N>(out + i, n, x);
    }
};
// In double, so that the experts drawn are the CPU's: its logarithm and this one differ in the last place of 53 bits.
struct SamplingScoresBody {
    const float* logits;
    float* scores;
    double temperature;
    RandomKey key;
    uint64_t first;
    template <int N>
    __device__ void run(int64_t i, int n) const {
        float x[N], u[N];
        load_floats<N>(logits + i, n, x);
        uniforms<N>(key, first + static_cast<uint64_t>(i), u);
#pragma unroll
        for (int j = 0; j < N; ++j) x[j] = static_cast<float>(static_cast<double>(x[j]) / temperature - log(-log(static_cast<double>(u[j]) + 0x1p-25)));
        store_floats<N>(scores + i, n, x);
    }
};

template <int N, class Body>
__global__ void __launch_bounds__(threads) each_kernel(int64_t count, Body body) {
    const int64_t i = (static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x) * N;
    if (i < count) body.template run<N>(i, static_cast<int>(min(count - i, static_cast<int64_t>(N))));
}

template <class Body>
void for_each(Context& context, const char* name, int64_t count, bool aligned, const Body& body) {
    if (aligned) {
        launch(context, name, each_kernel<per_thread, Body>, blocks_for(count, threads * per_thread), threads, 0, count, body);
    } else {
        launch(context, name, each_kernel<1, Body>, blocks_for(count, threads), threads, 0, count, body);
    }
}

template <int N, class T>
__global__ void __launch_bounds__(threads) squares_kernel(const T* values, int64_t count, double* partial) {
    Shared shared;
    double* const piece = shared.take<double>(block_sum_piece);
    const int64_t begin = static_cast<int64_t>(blockIdx.x) * squares_per_block, end = min(begin + squares_per_block, count);
    double sum = 0;
    for (int64_t i = begin + threadIdx.x * N; i < end; i += threads * N) {
        float x[N];
        load_floats<N>(values + i, static_cast<int>(min(end - i, static_cast<int64_t>(N))), x);
#pragma unroll
        for (int j = 0; j < N; ++j) sum += static_cast<double>(x[j]) * x[j];
    }
    sum = block_sum(sum, piece);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(threads) add_sums_kernel(const double* partial, int64_t count, double* total) {
    Shared shared;
    double* const piece = shared.take<double>(block_sum_piece);
    double sum = 0;
    for (int64_t i = threadIdx.x; i < count; i += threads) sum += partial[i];
    sum = block_sum(sum, piece);
    if (threadIdx.x == 0) *total += sum;
}

}  // namespace

void dropout(Context& context, const ops::DropoutArgs& args) {
    with_storage(args.in.dtype, [&]<class T>() {
        for_each(context, "dropout", args.in.elements(), is_aligned(args.in.data) && is_aligned(args.out.data),
                 DropoutBody<T>{args.in.as<T>(), args.out.as<T>(), args.dropout});
    });
}

void cast(Context& context, const Tensor& from, const Tensor& to) {
    with_storages(from.dtype, to.dtype, [&]<class From, class To>() {
        for_each(context, "cast", from.elements(), is_aligned(from.data) && is_aligned(to.data), CastBody<From, To>{from.as<From>(), to.as<To>()});
    });
}

void add(Context& context, const Tensor& from, const Tensor& to) {
    with_storages(from.dtype, to.dtype, [&]<class From, class To>() {
        for_each(context, "add", from.elements(), is_aligned(from.data) && is_aligned(to.data), AddBody<From, To>{from.as<From>(), to.as<To>()});
    });
}

void scale(Context& context, const Tensor& values, double factor) {
    with_storage(values.dtype, [&]<class T>() {
        for_each(context, "scale", values.elements(), is_aligned(values.data), ScaleBody<T>{values.as<T>(), static_cast<float>(factor)});
    });
}

void jitter(Context& context, const ops::JitterArgs& args) {
    const float low = static_cast<float>(1 - args.epsilon), width = static_cast<float>(2 * args.epsilon);
    with_storages(args.in.dtype, args.out.dtype, [&]<class From, class To>() {
        for_each(context, "jitter", args.in.elements(), is_aligned(args.in.data) && is_aligned(args.out.data),
                 JitterBody<From, To>{args.in.as<From>(), args.out.as<To>(), low, width, args.key, args.first});
    });
}

void sampling_scores(Context& context, const ops::SamplingScoresArgs& args) {
    for_each(context, "sampling_scores", args.logits.elements(), is_aligned(args.logits.data) && is_aligned(args.scores.data),
             SamplingScoresBody{args.logits.as<float>(), args.scores.as<float>(), args.temperature, args.key, args.first});
}

void sum_of_squares(Context& context, const Tensor& values, const Tensor& sum) {
    const Arena::Scope scope(context.arena);
    const int64_t count = values.elements(), blocks = (count + squares_per_block - 1) / squares_per_block;
    if (count == 0) return;
    double* const partial = context.allocate(DType::f64, {blocks}).as<double>();
    with_storage(values.dtype, [&]<class T>() {
        const auto kernel = is_aligned(values.data) ? squares_kernel<per_thread, T> : squares_kernel<1, T>;
        launch(context, "sum_of_squares", kernel, static_cast<unsigned>(blocks), threads, shared_bytes<double>(block_sum_piece), values.as<T>(), count, partial);
    });
    launch(context, "sum_of_squares, blocks", add_sums_kernel, 1, threads, shared_bytes<double>(block_sum_piece), partial, blocks, sum.as<double>());
}

}  // namespace flanmoe::cuda

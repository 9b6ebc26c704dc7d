// Rotary positions on the GPU: a thread turns 1 to 8 pairs of a head; memory-bound, 2 * rows * width elements and, once, the table.
// Angles are computed in double, as on the CPU: 2 * P * K sines and cosines a model, once.
#include "device.cuh"
#include "launch.hpp"
#include "ops/rotary.hpp"

#include <cmath>

namespace flanmoe::cuda {

namespace {

constexpr int threads = 256;

__device__ inline int64_t global_thread() { return int64_t{blockIdx.x} * threads + threadIdx.x; }

__global__ void rotary_table_rows(double theta, int64_t first, float* table, int64_t rows, int64_t size) {
    const int64_t half = size / 2, n = global_thread(), p = n / half, i = n % half;
    if (p >= rows) return;
    const double angle = static_cast<double>(first + p) * pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(size));
    table[p * size + i] = static_cast<float>(cos(angle));
    table[p * size + half + i] = static_cast<float>(sin(angle));
}

template <class T>
struct Turn {
    T* x;
    int64_t ld, rows, positions;
    int heads, size;
    const float* table;
    float sign;
};

/// Each thread n neighbouring pairs.
template <class T, int n>
__global__ void rotary_turn(const __grid_constant__ Turn<T> turn) {
    const int half = turn.size / 2, per_head = half / n;
    const int64_t per_row = int64_t{turn.heads} * per_head, thread = global_thread(), row = thread / per_row;
    if (row >= turn.rows) return;
    const int place = static_cast<int>(thread % per_row), head = place / per_head, i = place % per_head * n;
    const float* cosine = turn.table + row % turn.positions * turn.size + i;
    const float* sine = cosine + half;
    T *low = turn.x + row * turn.ld + head * turn.size + i, *high = low + half;
    Vec<T, n> a = load_vec<n>(low), b = load_vec<n>(high);
#pragma unroll
    for (int k = 0; k < n; ++k) {
        const float first = to_float(a[k]), second = to_float(b[k]), s = turn.sign * sine[k];
        a[k] = from_float<T>(first * cosine[k] - second * s);
        b[k] = from_float<T>(second * cosine[k] + first * s);
    }
    store_vec(low, a);
    store_vec(high, b);
}

}  // namespace

void rotary_table(Context& context, const ops::RotaryTableArgs& args) {
    const int64_t rows = args.table.rows(), size = args.table.cols();
    launch(context, "rotary_table", rotary_table_rows, blocks_for(rows * size / 2, threads), threads, 0, args.theta, args.first, args.table.as<float>(), rows, size);
}

void rotary(Context& context, const ops::RotaryArgs& args) {
    with_storage(args.x.dtype, [&]<class T>() {
        constexpr int most = 16 / static_cast<int>(sizeof(T));
        const int64_t size = args.x.cols() / args.heads, pairs = args.x.rows() * args.x.cols() / 2;
        const Turn<T> turn{args.x.as<T>(), args.x.ld, args.x.rows(), args.x.shape[1], static_cast<int>(args.heads), static_cast<int>(size), args.table.as<float>(),
                           args.inverse ? -1.0f : 1.0f};
        const bool aligned = has_aligned_rows(args.x) && size / 2 % most == 0;
        if (aligned) launch(context, "rotary", rotary_turn<T, most>, blocks_for(pairs / most, threads), threads, 0, turn);
        else launch(context, "rotary", rotary_turn<T, 1>, blocks_for(pairs, threads), threads, 0, turn);
    });
}

}  // namespace flanmoe::cuda

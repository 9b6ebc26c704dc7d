// Rows in pieces of eight elements, in vectors of 16 bytes where rows are aligned to them. Which lane has which columns, and so the order of a sum over a row,
// does not depend on the alignment.
#pragma once

#include "device.cuh"

namespace flanmoe::cuda {

constexpr int row_piece = 8;
constexpr int row_warps = 8;  ///< of a block whose warps have a row each
__device__ inline int64_t own_row() { return static_cast<int64_t>(blockIdx.x) * row_warps + warp(); }

/// Elements of the piece at column c that a row of `width` has.
__device__ inline int piece_length(int64_t width, int64_t c) { return static_cast<int>(min(int64_t{row_piece}, width - c)); }

/// x[j] = from[j] for j < n, 0 beyond.
template <bool aligned, class T>
__device__ inline void load_piece(const T* from, int n, float (&x)[row_piece]) {
    if constexpr (aligned) {
        load_floats<row_piece>(from, n, x);
    } else {
#pragma unroll
        for (int j = 0; j < row_piece; ++j) x[j] = j < n ? to_float(from[j]) : 0.0f;
    }
}
/// to[j] = x[j] for j < n.
template <bool aligned, class T>
__device__ inline void store_piece(T* to, int n, const float (&x)[row_piece]) {
    if constexpr (aligned) {
        store_floats<row_piece>(to, n, x);
    } else {
#pragma unroll
        for (int j = 0; j < row_piece; ++j)
            if (j < n) to[j] = from_float<T>(x[j]);
    }
}
/// to = weight g, by a warp; returns x . g in every lane. `to` may be the memory of x or g: every lane reads a piece before it writes the same one.
template <bool aligned, class T>
__device__ inline float weigh_row(const T* x, const T* g, float weight, T* to, int64_t width) {
    float dot = 0;
    for (int64_t c = lane() * row_piece; c < width; c += 32 * row_piece) {
        const int count = piece_length(width, c);
        float a[row_piece], b[row_piece];
        load_piece<aligned>(x + c, count, a);
        load_piece<aligned>(g + c, count, b);
        for (int j = 0; j < row_piece; ++j) {
            dot += a[j] * b[j];
            b[j] *= weight;
        }
        store_piece<aligned>(to + c, count, b);
    }
    return warp_sum(dot);
}

}  // namespace flanmoe::cuda

// What kernels share: shared memory, vectors of elements, conversions, sums in a fixed order, random factors.
//
// Kernels compute in float; storage is float or bf16. Everything here has the same result on the GPU and on the simulator.
#pragma once

#include "core/random.hpp"
#include "core/tensor.hpp"

#include <cuda_runtime.h>

namespace flanmoe::cuda {

inline constexpr unsigned full_mask = 0xffffffffu;
inline constexpr int warp_size = 32;

__device__ inline int lane() { return static_cast<int>(threadIdx.x) % warp_size; }  ///< of one-dimensional blocks
__device__ inline int warp() { return static_cast<int>(threadIdx.x) / warp_size; }
__device__ inline uint32_t lanes_below() { return (1u << lane()) - 1; }  ///< a bit for each lane below this one

/// Bytes that a piece of n elements takes of dynamic shared memory.
template <class T>
constexpr size_t shared_bytes(int64_t n) {
    return (static_cast<size_t>(n) * sizeof(T) + 15) / 16 * 16;
}

/// Dynamic shared memory, piece by piece; every thread takes the same pieces in the same order. Each begins at a multiple of 16 bytes (the first of 1024).
class Shared {
public:
    template <class T>
    __device__ T* take(int64_t n) {
        const size_t offset = used_;
        used_ += shared_bytes<T>(n);
#ifdef FLANMOE_CUDASIM
        return static_cast<T*>(cudasim::shared_piece(offset, static_cast<size_t>(n) * sizeof(T)));
#else
        extern __shared__ __align__(1024) unsigned char dynamic_shared_memory[];
        return reinterpret_cast<T*>(dynamic_shared_memory + offset);
#endif
    }

private:
    size_t used_ = 0;
};

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(bf16 x) { return __uint_as_float(static_cast<unsigned>(x.bits) << 16); }

template <class T>
__device__ T from_float(float x);
template <>
__device__ inline float from_float<float>(float x) {
    return x;
}
/// Rounds to nearest even.
template <>
__device__ inline bf16 from_float<bf16>(float x) {
#ifdef FLANMOE_CUDASIM
    return bf16(x);
#else
    bf16 result;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(result.bits) : "f"(x));
    return result;
#endif
}

/// N elements in one access of at most 16 bytes, at a multiple of their size.
template <class T, int N>
struct alignas(sizeof(T) * N) Vec {
    static_assert(sizeof(T) * N <= 16);
    T v[N];
    __device__ T& operator[](int i) { return v[i]; }
    __device__ const T& operator[](int i) const { return v[i]; }
};
template <int N, class T>
__device__ inline Vec<T, N> load_vec(const T* from) {
#ifdef FLANMOE_CUDASIM
    cudasim::check_aligned(from, sizeof(Vec<T, N>), "reads a vector");
#endif
    return *reinterpret_cast<const Vec<T, N>*>(from);
}
template <class T, int N>
__device__ inline void store_vec(T* to, const Vec<T, N>& values) {
#ifdef FLANMOE_CUDASIM
    cudasim::check_aligned(to, sizeof(Vec<T, N>), "writes a vector");
#endif
    *reinterpret_cast<Vec<T, N>*>(to) = values;
}

/// x[j] = from[j] for j < n, 0 beyond. All N at once in vectors of 16 bytes, where `from` must lie on such a border if N > 1.
template <int N, class T>
__device__ inline void load_floats(const T* from, int n, float (&x)[N]) {
    constexpr int per_vec = N * sizeof(T) < 16 ? N : 16 / sizeof(T);
    if (n >= N) {
#pragma unroll
        for (int j = 0; j < N; j += per_vec) {
            const Vec<T, per_vec> values = load_vec<per_vec>(from + j);
#pragma unroll
            for (int i = 0; i < per_vec; ++i) x[j + i] = to_float(values[i]);
        }
    } else {
#pragma unroll
        for (int j = 0; j < N; ++j) x[j] = j < n ? to_float(from[j]) : 0.0f;
    }
}
/// to[j] = x[j] for j < n, as load_floats reads.
template <int N, class T>
__device__ inline void store_floats(T* to, int n, const float (&x)[N]) {
    constexpr int per_vec = N * sizeof(T) < 16 ? N : 16 / sizeof(T);
    if (n >= N) {
#pragma unroll
        for (int j = 0; j < N; j += per_vec) {
            Vec<T, per_vec> values;
#pragma unroll
            for (int i = 0; i < per_vec; ++i) values[i] = from_float<T>(x[j + i]);
            store_vec(to + j, values);
        }
    } else {
#pragma unroll
        for (int j = 0; j < N; ++j)
            if (j < n) to[j] = from_float<T>(x[j]);
    }
}
/// Sum over the warp, the same bits in every lane: each step adds two halves, and a + b = b + a.
template <class T>
__device__ inline T warp_sum(T value) {
#pragma unroll
    for (int step = warp_size / 2; step > 0; step /= 2) value += __shfl_xor_sync(full_mask, value, step);
    return value;
}
template <class T>
__device__ inline T warp_max(T value) {
#pragma unroll
    for (int step = warp_size / 2; step > 0; step /= 2) value = max(value, __shfl_xor_sync(full_mask, value, step));
    return value;
}

/// Sum over the lanes up to this one.
template <class T>
__device__ inline T warp_prefix(T value) {
    for (int distance = 1; distance < warp_size; distance *= 2) {
        const T before = __shfl_up_sync(full_mask, value, distance);
        if (lane() >= distance) value += before;
    }
    return value;
}

/// Elements of a row from c on that a vector of N may take.
template <int N>
__device__ inline int left_of(int64_t cols, int64_t c) {
    return static_cast<int>(min(cols - c, int64_t{N}));
}

inline constexpr int block_sum_piece = 32;  ///< elements of shared memory that block_sum and block_max need
/// What `combine` makes of the warps' values of a one-dimensional block, in order, in every thread. `piece` may be used again at once.
template <class T, class Combine>
__device__ inline T combine_warps(T of_warp, T* piece, Combine combine) {
    if (lane() == 0) piece[warp()] = of_warp;
    __syncthreads();
    T all = piece[0];
    for (int w = 1; w < static_cast<int>(blockDim.x) / warp_size; ++w) all = combine(all, piece[w]);
    __syncthreads();
    return all;
}
/// Sum over a one-dimensional block of whole warps, in every thread: lanes first, then warps in order.
template <class T>
__device__ inline T block_sum(T value, T* piece) {
    return combine_warps(warp_sum(value), piece, [](T a, T b) { return a + b; });
}
template <class T>
__device__ inline T block_max(T value, T* piece) {
    return combine_warps(warp_max(value), piece, [](T a, T b) { return max(a, b); });
}

/// x[j] *= dropout.factor(i + j). One block of random numbers serves eight elements that lie within it; others draw one each.
template <int N>
__device__ inline void multiply_dropout(const Dropout& dropout, uint64_t i, float (&x)[N]) {
    if (!dropout.active()) return;
    if constexpr (N == 8) {
        const uint64_t first = dropout.draw(i);
        if (first % 8 == 0 && (dropout.features == 0 || (dropout.first + i) % dropout.features + 8 <= dropout.features)) {
            const std::array<uint32_t, 4> words = random_block(dropout.key, first / 8);
#pragma unroll
            for (int j = 0; j < 8; ++j) x[j] *= (words[j / 2] >> (j % 2 * 16) & 0xffffu) < dropout.threshold ? 0.0f : dropout.scale;
            return;
        }
    }
#pragma unroll
    for (int j = 0; j < N; ++j) x[j] *= dropout.factor(i + j);
}

/// u[j] = uniform(key, i + j).
template <int N>
__device__ inline void uniforms(const RandomKey& key, uint64_t i, float (&u)[N]) {
    if constexpr (N % 4 == 0) {
        if (i % 4 == 0) {
#pragma unroll
            for (int j = 0; j < N; j += 4) {
                const std::array<uint32_t, 4> words = random_block(key, i / 4 + j / 4);
#pragma unroll
                for (int w = 0; w < 4; ++w) u[j + w] = static_cast<float>(words[w] >> 8) * 0x1p-24f;
            }
            return;
        }
    }
#pragma unroll
    for (int j = 0; j < N; ++j) u[j] = uniform(key, i + j);
}

}  // namespace flanmoe::cuda

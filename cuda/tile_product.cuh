// Matrix products of one warp over tiles in shared memory, for bf16 on tensor cores and for fp32 with FMA, in one layout of the sums.
//
// A tile is [rows][width] with rows row_stride<T>(width) elements apart: 16 bytes more than the row, so that eight consecutive rows lie in different banks
// for any of the widths 32, 64, 96, 128. A warp's sums are Sums[m][n][e], m a block of 16 rows, n of 8 columns, and e as in mma.cuh:
//   row 16 m + lane / 4 + 8 (e / 2),  column 8 n + 2 (lane % 4) + e % 2.
// Two products suffice for attention, forward and backward:
//   add_product_transposed   sums += A B^T   A: the warp's rows (RowOperand), B: a tile whose rows are the columns of the result
//   add_product              sums += P B     P: sums of an earlier product (rounded to T), B: a tile whose rows are P's columns
// fp32 sums one product after the other in the order of k (fma); bf16 16 at a time in the order of the tensor core.
#pragma once

#include "mma.cuh"

#include <type_traits>

namespace flanmoe::cuda {

template <class T>
constexpr bool on_tensor_cores = std::is_same_v<T, bf16>;

/// Elements from one row of a tile in shared memory to the next.
template <class T>
constexpr int row_stride(int width) {
    return width + 16 / static_cast<int>(sizeof(T));
}

template <int m_tiles, int n_tiles>
using Sums = float[m_tiles][n_tiles][4];

__device__ inline int fragment_row() { return lane() / 4; }
__device__ inline int fragment_column() { return lane() % 4 * 2; }

/// f(m, n, e) for every element of sums.
template <int m_tiles, int n_tiles, class F>
__device__ __forceinline__ void for_fragment(F&& f) {
#pragma unroll
    for (int m = 0; m < m_tiles; ++m)
#pragma unroll
        for (int n = 0; n < n_tiles; ++n)
#pragma unroll
            for (int e = 0; e < 4; ++e) f(m, n, e);
}
template <int m_tiles, int n_tiles>
__device__ __forceinline__ void clear(Sums<m_tiles, n_tiles>& sums) {
    for_fragment<m_tiles, n_tiles>([&](int m, int n, int e) { sums[m][n][e] = 0; });
}

/// The left side of A B^T: 16 * m_tiles rows of a tile. `kept`: the fragments stay in registers, so that shared memory is read once.
template <class T, int width, int m_tiles, bool kept>
class RowOperand;

template <int width, int m_tiles, bool kept>
class RowOperand<bf16, width, m_tiles, kept> {
public:
    /// Call when the rows are in shared memory; they must stay there unless kept.
    __device__ __forceinline__ void set(const bf16* rows) {
        rows_ = rows + lane() % 16 * row_stride<bf16>(width) + lane() / 16 * 8;
        if constexpr (kept) {
#pragma unroll
            for (int m = 0; m < m_tiles; ++m)
#pragma unroll
                for (int k = 0; k < width / 16; ++k) ldmatrix_x4(fragments_[m][k], at(m, k));
        }
    }
    __device__ __forceinline__ void get(int m, int k, uint32_t (&a)[4]) const {
        if constexpr (kept) {
#pragma unroll
            for (int i = 0; i < 4; ++i) a[i] = fragments_[m][k][i];
        } else {
            ldmatrix_x4(a, at(m, k));
        }
    }

private:
    __device__ __forceinline__ const bf16* at(int m, int k) const { return rows_ + 16 * m * row_stride<bf16>(width) + 16 * k; }
    const bf16* rows_;
    uint32_t fragments_[kept ? m_tiles : 1][kept ? width / 16 : 1][4];
};

template <int width, int m_tiles, bool kept>
class RowOperand<float, width, m_tiles, kept> {
public:
    __device__ __forceinline__ void set(const float* rows) { rows_ = rows + fragment_row() * row_stride<float>(width); }
    /// Four consecutive elements from column k of this lane's row 16 m + 8 r.
    __device__ __forceinline__ Vec<float, 4> get(int m, int r, int k) const { return load_vec<4>(rows_ + (16 * m + 8 * r) * row_stride<float>(width) + k); }

private:
    const float* rows_;
};

/// sums += A B^T, B = 8 * n_tiles rows of a tile (n_tiles even).
template <int width, int m_tiles, int n_tiles, bool kept>
__device__ __forceinline__ void add_product_transposed(Sums<m_tiles, n_tiles>& sums, const RowOperand<bf16, width, m_tiles, kept>& a, const bf16* b) {
    static_assert(n_tiles % 2 == 0 && width % 16 == 0);
    constexpr int stride = row_stride<bf16>(width);
    b += (lane() / 16 * 8 + lane() % 8) * stride + lane() / 8 % 2 * 8;
#pragma unroll
    for (int k = 0; k < width / 16; ++k) {
        uint32_t left[m_tiles][4];
#pragma unroll
        for (int m = 0; m < m_tiles; ++m) a.get(m, k, left[m]);
#pragma unroll
        for (int n = 0; n < n_tiles; n += 2) {
            uint32_t both[4];
            ldmatrix_x4(both, b + 8 * n * stride + 16 * k);
            const uint32_t first[2] = {both[0], both[1]}, second[2] = {both[2], both[3]};
#pragma unroll
            for (int m = 0; m < m_tiles; ++m) {
                mma_16x8x16(sums[m][n], left[m], first);
                mma_16x8x16(sums[m][n + 1], left[m], second);
            }
        }
    }
}

template <int width, int m_tiles, int n_tiles, bool kept>
__device__ __forceinline__ void add_product_transposed(Sums<m_tiles, n_tiles>& sums, const RowOperand<float, width, m_tiles, kept>& a, const float* b) {
    constexpr int stride = row_stride<float>(width);
    b += fragment_column() * stride;
#pragma unroll 2
    for (int k = 0; k < width; k += 4) {
        Vec<float, 4> left[m_tiles][2];
#pragma unroll
        for (int m = 0; m < m_tiles; ++m) left[m][0] = a.get(m, 0, k), left[m][1] = a.get(m, 1, k);
#pragma unroll
        for (int n = 0; n < n_tiles; ++n)
#pragma unroll
            for (int odd = 0; odd < 2; ++odd) {
                const Vec<float, 4> right = load_vec<4>(b + (8 * n + odd) * stride + k);
#pragma unroll
                for (int m = 0; m < m_tiles; ++m)
#pragma unroll
                    for (int r = 0; r < 2; ++r)
#pragma unroll
                        for (int i = 0; i < 4; ++i) sums[m][n][2 * r + odd] = fmaf(left[m][r][i], right[i], sums[m][n][2 * r + odd]);
            }
    }
}

/// Floats of shared memory that add_product needs for each warp.
template <class T>
constexpr int staging_floats(int m_tiles, int k_tiles) {
    return on_tensor_cores<T> ? 0 : 16 * m_tiles * (8 * k_tiles + 4);
}

/// sums += P B: P the warp's 8 * k_tiles columns (k_tiles even), B as many rows of a tile.
template <int width, int m_tiles, int k_tiles>
__device__ __forceinline__ void add_product(Sums<m_tiles, width / 8>& sums, const Sums<m_tiles, k_tiles>& p, const bf16* b, float*) {
    static_assert(k_tiles % 2 == 0);
    constexpr int stride = row_stride<bf16>(width);
    b += lane() % 16 * stride + lane() / 16 * 8;
#pragma unroll
    for (int k = 0; k < k_tiles; k += 2) {
        uint32_t left[m_tiles][4];
#pragma unroll
        for (int m = 0; m < m_tiles; ++m)
#pragma unroll
            for (int i = 0; i < 4; ++i) left[m][i] = pack_bf16(p[m][k + i / 2][i % 2 * 2], p[m][k + i / 2][i % 2 * 2 + 1]);
#pragma unroll
        for (int n = 0; n < width / 8; n += 2) {
            uint32_t both[4];
            ldmatrix_x4_transposed(both, b + 8 * k * stride + 8 * n);
            const uint32_t first[2] = {both[0], both[1]}, second[2] = {both[2], both[3]};
#pragma unroll
            for (int m = 0; m < m_tiles; ++m) {
                mma_16x8x16(sums[m][n], left[m], first);
                mma_16x8x16(sums[m][n + 1], left[m], second);
            }
        }
    }
}

/// fp32: P passes through `staging`, where every lane finds whole rows of it.
template <int width, int m_tiles, int k_tiles>
__device__ __forceinline__ void add_product(Sums<m_tiles, width / 8>& sums, const Sums<m_tiles, k_tiles>& p, const float* b, float* staging) {
    constexpr int stride = row_stride<float>(width), p_stride = 8 * k_tiles + 4;
    __syncwarp();  // an earlier product has read its P
    float* mine = staging + fragment_row() * p_stride;
    for_fragment<m_tiles, k_tiles>([&](int m, int n, int e) { mine[(16 * m + e / 2 * 8) * p_stride + 8 * n + fragment_column() + e % 2] = p[m][n][e]; });
    __syncwarp();
    b += fragment_column();
#pragma unroll 2
    for (int k = 0; k < 8 * k_tiles; ++k) {
        float left[m_tiles][2];
#pragma unroll
        for (int m = 0; m < m_tiles; ++m) left[m][0] = mine[16 * m * p_stride + k], left[m][1] = mine[(16 * m + 8) * p_stride + k];
#pragma unroll
        for (int n = 0; n < width / 8; ++n) {
            const Vec<float, 2> right = load_vec<2>(b + k * stride + 8 * n);
#pragma unroll
            for (int m = 0; m < m_tiles; ++m)
#pragma unroll
                for (int e = 0; e < 4; ++e) sums[m][n][e] = fmaf(left[m][e / 2], right[e % 2], sums[m][n][e]);
        }
    }
}

/// Rows of a tile from global memory: `rows` of them, zeros beyond the first `valid` and beyond `size` columns. `aligned`: pointer, ld and size are whole
/// multiples of 16 bytes. The caller closes the group of copies.
template <class T, int width, int rows, int threads>
__device__ __forceinline__ void load_tile(T* to, const T* from, int64_t ld, int valid, int size, bool aligned) {
    if (aligned) {
        constexpr int chunk = 16 / static_cast<int>(sizeof(T)), chunks = width / chunk;
#pragma unroll 1
        for (int n = static_cast<int>(threadIdx.x); n < rows * chunks; n += threads) {
            const int row = n / chunks, column = n % chunks * chunk;
            const bool inside = row < valid && column < size;
            copy_async_16(to + row * row_stride<T>(width) + column, inside ? from + row * ld + column : from, inside);
        }
    } else {
#pragma unroll 1
        for (int n = static_cast<int>(threadIdx.x); n < rows * width; n += threads) {
            const int row = n / width, column = n % width;
            to[row * row_stride<T>(width) + column] = row < valid && column < size ? from[row * ld + column] : from_float<T>(0);
        }
    }
}

/// A warp's sums, row r times factor[m][r / 8], to the first `valid` rows in global memory, by way of the warp's own 16 * m_tiles rows of a tile.
template <class T, int width, int m_tiles>
__device__ __forceinline__ void store_tile(T* to, int64_t ld, int valid, int size, bool aligned, const Sums<m_tiles, width / 8>& sums,
                                           const float (&factor)[m_tiles][2], T* staging) {
    constexpr int stride = row_stride<T>(width), chunk = 16 / static_cast<int>(sizeof(T)), chunks = width / chunk;
    __syncwarp();  // the rows of the tile have been read
    for_fragment<m_tiles, width / 8>([&](int m, int n, int e) {
        staging[(16 * m + fragment_row() + e / 2 * 8) * stride + 8 * n + fragment_column() + e % 2] = from_float<T>(sums[m][n][e] * factor[m][e / 2]);
    });
    __syncwarp();
    if (aligned) {
#pragma unroll 4
        for (int n = lane(); n < 16 * m_tiles * chunks; n += 32) {
            const int row = n / chunks, column = n % chunks * chunk;
            if (row < valid && column < size) store_vec(to + row * ld + column, load_vec<chunk>(staging + row * stride + column));
        }
    } else {
#pragma unroll 1
        for (int n = lane(); n < 16 * m_tiles * width; n += 32) {
            const int row = n / width, column = n % width;
            if (row < valid && column < size) to[row * ld + column] = staging[row * stride + column];
        }
    }
}

}  // namespace flanmoe::cuda

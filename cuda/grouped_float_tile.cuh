// A tile of a product of f32 matrices with fused multiply-adds (no TF32): 64 x 64, 128 threads of 8 x 4 sums.
//
// Pieces of 16 inner elements pass through registers to shared memory, where the inner index is the slow one: the next piece is fetched while this one is
// multiplied. Three reads of 16 bytes feed 32 multiply-adds. Any alignment.
#pragma once

#include "grouped_schedule.cuh"

namespace flanmoe::cuda {

template <class, bool a_inner_contiguous, bool b_inner_contiguous, bool>
class FloatTile {
public:
    using T = float;
    static constexpr int rows = 64, cols = 64, threads = 128, blocks = 3;  // blocks: that a multiprocessor shall hold
    static constexpr size_t bytes = 2 * shared_bytes<float>(16 * 68);

    __device__ explicit FloatTile(Shared& shared) : a_(shared.take<float>(depth * stride)), b_(shared.take<float>(depth * stride)) {}

    __device__ void multiply(const GroupedTile<float, float>& tile) const {
        float sums[8][4] = {}, a[each], b[each];
        const int row = static_cast<int>(threadIdx.x) / 16 * 8, col = static_cast<int>(threadIdx.x) % 16 * 4;
        fetch<a_inner_contiguous>(a, tile.a, tile.a_ld, tile.rows, tile.inner, 0);
        fetch<b_inner_contiguous>(b, tile.b, tile.b_ld, tile.cols, tile.inner, 0);
        for (int64_t begin = 0; begin < tile.inner; begin += depth) {
            __syncthreads();  // the piece before has been multiplied
            for (int i = 0; i < each; ++i) {
                a_[place<a_inner_contiguous>(i)] = a[i];
                b_[place<b_inner_contiguous>(i)] = b[i];
            }
            __syncthreads();
            fetch<a_inner_contiguous>(a, tile.a, tile.a_ld, tile.rows, tile.inner, begin + depth);
            fetch<b_inner_contiguous>(b, tile.b, tile.b_ld, tile.cols, tile.inner, begin + depth);
#pragma unroll
            for (int k = 0; k < depth; ++k) {
                const Vec<float, 4> upper = load_vec<4>(a_ + k * stride + row), lower = load_vec<4>(a_ + k * stride + row + 4), right = load_vec<4>(b_ + k * stride + col);
#pragma unroll
                for (int i = 0; i < 8; ++i)
#pragma unroll
                    for (int j = 0; j < 4; ++j) sums[i][j] = fmaf(i < 4 ? upper[i % 4] : lower[i % 4], right[j], sums[i][j]);
            }
        }
#pragma unroll
        for (int i = 0; i < 8; ++i)
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                if (row + i >= tile.rows || col + j >= tile.cols) continue;
                float* const out = tile.out + (row + i) * tile.out_ld + col + j;
                *out = tile.accumulate ? *out + sums[i][j] : sums[i][j];
            }
    }

private:
    static constexpr int depth = 16, stride = 68, each = 64 * depth / threads;  // each: elements of an operand's piece that a thread carries

    /// Inner index and row (or column) of the i-th element that this thread carries.
    template <bool inner_contiguous>
    __device__ static int inner_of(int i) {
        const int id = static_cast<int>(threadIdx.x) + i * threads;
        return inner_contiguous ? id % depth : id / 64;
    }
    template <bool inner_contiguous>
    __device__ static int along_of(int i) {
        const int id = static_cast<int>(threadIdx.x) + i * threads;
        return inner_contiguous ? id / depth : id % 64;
    }
    template <bool inner_contiguous>
    __device__ static int place(int i) {
        return inner_of<inner_contiguous>(i) * stride + along_of<inner_contiguous>(i);
    }
    template <bool inner_contiguous>
    __device__ static void fetch(float (&to)[each], const float* from, int64_t ld, int width, int64_t inner, int64_t begin) {
#pragma unroll
        for (int i = 0; i < each; ++i) {
            const int along = along_of<inner_contiguous>(i);
            const int64_t k = begin + inner_of<inner_contiguous>(i);
            to[i] = along < width && k < inner ? from[inner_contiguous ? along * ld + k : k * ld + along] : 0.0f;
        }
    }

    float *a_, *b_;  // [depth][stride]
};

}  // namespace flanmoe::cuda

// Gradient of the bias in a block that owns queries and sweeps over keys: sums of d_s by distance, then by bucket. See attention_backward.cu.
//
// A warp's 16 x C tile has 16 + C - 1 distances. A thread first adds its elements (row, column) and (row + 8, column + 8), which leaves 8 rows of C + 8
// columns; each row is written to shared memory shifted by its number, so that a column there is a distance, and each lane adds columns of 8.
#pragma once

#include "attention_tile.cuh"

namespace flanmoe::cuda {

template <int rows, int columns>
class DiagonalSums {
    static constexpr int folded = columns + 8, distances = folded + 7, stride = distances + 10;

public:
    static constexpr int staging_floats = 8 * stride;  ///< of a warp
    static_assert(rows == 16 * attention_warps);

    /// `staging`: of all warps; `sums`: [warps, shape.distances()]. A barrier before the first add().
    __device__ __forceinline__ void begin(float* staging, float* sums, const AttentionShape& s) {
        staging_ = staging + warp() * staging_floats, sums_ = sums + warp() * s.distances();
        for (int n = lane(); n < staging_floats; n += 32) staging_[n] = 0;  // what the shift leaves at the ends of rows stays 0
        for (int n = lane(); n < s.distances(); n += 32) sums_[n] = 0;
        __syncwarp();
    }

    /// d_s of a tile, a barrier between two of them; `first`: relative position of the block's last row and the tile's first column.
    __device__ __forceinline__ void add(const Sums<1, columns / 8>& d_s, int first, const AttentionShape& s) {
        if (first + rows + columns - 2 <= -s.left) far_left_ += total(d_s);
        else if (first >= s.right) far_right_ += total(d_s);
        else add_near(d_s, first + rows - 16 * (warp() + 1), s);
    }

    /// The block's sums by bucket to to[begins.buckets()]. By all threads.
    __device__ __forceinline__ void end(float* sums, const BucketBegins& begins, const AttentionShape& s, float* to) {
        const float far_left = warp_sum(far_left_), far_right = warp_sum(far_right_);
        if (lane() == 0) {
            sums_[0] += far_left;
            sums_[s.left + s.right] += far_right;
        }
        __syncthreads();
        for (int x = static_cast<int>(threadIdx.x); x < s.distances(); x += attention_threads)
            for (int w = 1; w < attention_warps; ++w) sums[x] += sums[w * s.distances() + x];
        __syncthreads();
        for (int b = static_cast<int>(threadIdx.x); b < begins.buckets(); b += attention_threads) {
            const bool right = b >= begins.count;
            const int n = right ? b - begins.count : b;
            const int from = right ? max(1, begins.begin[n]) : begins.begin[n], until = n + 1 < begins.count ? begins.begin[n + 1] : INT_MAX;
            const int last = min(until - 1, right ? s.right : s.left);
            float sum = 0;
            for (int distance = from; distance <= last; ++distance) sum += sums[s.left + (right ? distance : -distance)];
            to[b] = sum;
        }
    }

private:
    __device__ __forceinline__ static float total(const Sums<1, columns / 8>& d_s) {
        float sum = 0;
        for_fragment<1, columns / 8>([&](int, int n, int e) { sum += d_s[0][n][e]; });
        return sum;
    }

    /// `first`: relative position of the warp's last row and the tile's first column.
    __device__ __forceinline__ void add_near(const Sums<1, columns / 8>& d_s, int first, const AttentionShape& s) {
        constexpr int n_tiles = columns / 8;
        float* row = staging_ + fragment_row() * stride + 7 - fragment_row() + fragment_column();
#pragma unroll
        for (int t = 0; t <= n_tiles; ++t)
#pragma unroll
            for (int odd = 0; odd < 2; ++odd) {
                const float upper = t > 0 ? d_s[0][max(t - 1, 0)][odd] : 0.0f, lower = t < n_tiles ? d_s[0][min(t, n_tiles - 1)][2 + odd] : 0.0f;
                row[8 * t + odd] = upper + lower;
            }
        __syncwarp();
        for (int x = lane(); x < distances; x += 32) {
            float sum = 0;
#pragma unroll
            for (int r = 0; r < 8; ++r) sum += staging_[r * stride + x];
            const int relative = first + x;
            if (relative <= -s.left) far_left_ += sum;
            else if (relative >= s.right) far_right_ += sum;
            else sums_[s.left + relative] += sum;
        }
    }

    float *staging_, *sums_;
    float far_left_ = 0, far_right_ = 0;
};

}  // namespace flanmoe::cuda

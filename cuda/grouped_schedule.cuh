// Which tiles of the experts' products a block computes, from the offsets on the device: the host knows no group's size.
//
// The grid is as large as the GPU holds; every block takes tile after tile. Rows: an expert with r rows has r / height tiles, rounded up, for each tile of columns;
// a block finds the expert of tile t by bisection in a table of starts, which it makes in shared memory. All tiles cost about the same, so block b takes the
// tiles b, b + grid, and so on, and neighbours share a matrix and rows. Weights: an expert's tiles all sum over its rows, so they cost as much as it has rows. They
// are handed out by a counter, the longest first, so that a crowded expert holds nobody up. Who computes a tile shows nowhere in its sums.
#pragma once

#include "device.cuh"

namespace flanmoe::cuda {

/// One product out (+)= op(a) op(b) of at most a tile's size; sums over `inner`.
template <class T, class Out>
struct GroupedTile {
    const T *a, *b;
    Out* out;
    int64_t a_ld, b_ld, out_ld, inner;
    int rows, cols;
    bool accumulate;
};

/// A grouped product as the kernels see it.
template <class T, class Out>
struct GroupedWork {
    const T *a, *b;
    Out* out;
    int64_t a_ld, b_ld, out_ld, stride;  ///< stride: from one expert's b (rows) or out (weights) to the next
    const int32_t* offsets;
    int32_t experts;
    int64_t rows, cols, inner;  ///< weights: rows and cols of out; rows: cols of out and inner size
    bool b_transposed, accumulate;
    int32_t* counter;           ///< weights: how many tiles have been taken, 0 at first
};

template <class T, class Out, int tile_rows, int tile_cols>
class RowSchedule {
public:
    using Work = GroupedWork<T, Out>;
    using Tile = GroupedTile<T, Out>;
    static constexpr size_t bytes(int64_t experts) { return shared_bytes<int32_t>(experts + 1); }

    __device__ RowSchedule(const Work& work, Shared& shared) : w(work), starts_(shared.take<int32_t>(w.experts + 1)), next_(blockIdx.x) {
        if (warp() == 0) {
            int32_t before = 0;
            for (int32_t first = 0; first < w.experts; first += 32) {
                const int32_t e = first + lane(), tiles = e < w.experts ? (w.offsets[e + 1] - w.offsets[e] + tile_rows - 1) / tile_rows : 0;
                const int32_t sum = warp_prefix(tiles);
                if (e < w.experts) starts_[e] = before + sum - tiles;
                before += __shfl_sync(full_mask, sum, 31);
            }
            if (lane() == 0) starts_[w.experts] = before;
        }
        __syncthreads();
    }

    __device__ bool next(GroupedTile<T, Out>& tile) {
        const int64_t across = (w.cols + tile_cols - 1) / tile_cols, t = next_;
        if (t >= starts_[w.experts] * across) return false;
        next_ += gridDim.x;
        int32_t e = 0, high = w.experts;  // the last expert whose tiles start at t or before
        while (high - e > 1) {
            const int32_t middle = (e + high) / 2;
            if (starts_[middle] * across <= t) e = middle;
            else high = middle;
        }
        const int64_t down = starts_[e + 1] - starts_[e], local = t - starts_[e] * across;  // neighbours share the columns of the matrix
        const int64_t row = w.offsets[e] + local % down * tile_rows, col = local / down * tile_cols;
        tile = {w.a + row * w.a_ld, w.b + e * w.stride + (w.b_transposed ? col * w.b_ld : col), w.out + row * w.out_ld + col, w.a_ld, w.b_ld, w.out_ld, w.inner,
                static_cast<int>(min(int64_t{tile_rows}, w.offsets[e + 1] - row)), static_cast<int>(min(int64_t{tile_cols}, w.cols - col)), false};
        return true;
    }

private:
    const Work& w;
    int32_t* starts_;  // [E + 1] tiles of rows before each expert
    int64_t next_;
};

template <class T, class Out, int tile_rows, int tile_cols>
class WeightSchedule {
public:
    using Work = GroupedWork<T, Out>;
    using Tile = GroupedTile<T, Out>;
    static constexpr size_t bytes(int64_t experts) { return shared_bytes<int32_t>(experts) + shared_bytes<int32_t>(1); }

    __device__ WeightSchedule(const Work& work, Shared& shared) : w(work), order_(shared.take<int32_t>(w.experts)), ticket_(shared.take<int32_t>(1)) {
        for (int32_t e = static_cast<int32_t>(threadIdx.x); e < w.experts; e += static_cast<int32_t>(blockDim.x)) {
            int32_t place = 0;
            for (int32_t other = 0; other < w.experts; ++other) place += rows_of(other) > rows_of(e) || (rows_of(other) == rows_of(e) && other < e) ? 1 : 0;
            order_[place] = e;
        }
    }

    __device__ bool next(GroupedTile<T, Out>& tile) {
        __syncthreads();  // the ticket before has been read
        if (threadIdx.x == 0) *ticket_ = atomicAdd(w.counter, 1);
        __syncthreads();
        const int64_t t = *ticket_, down = (w.rows + tile_rows - 1) / tile_rows, each = down * ((w.cols + tile_cols - 1) / tile_cols);
        if (t >= each * w.experts) return false;
        const int32_t e = order_[t / each], inner = rows_of(e);
        if (inner == 0 && w.accumulate) return false;  // all further experts have no rows, too
        const int64_t row = t % each % down * tile_rows, col = t % each / down * tile_cols;
        tile = {w.a + w.offsets[e] * w.a_ld + row, w.b + w.offsets[e] * w.b_ld + col, w.out + e * w.stride + row * w.out_ld + col, w.a_ld, w.b_ld, w.out_ld, inner,
                static_cast<int>(min(int64_t{tile_rows}, w.rows - row)), static_cast<int>(min(int64_t{tile_cols}, w.cols - col)), w.accumulate};
        return true;
    }

private:
    __device__ int32_t rows_of(int32_t e) const { return w.offsets[e + 1] - w.offsets[e]; }
    const Work& w;
    int32_t *order_, *ticket_;  // experts by falling number of rows; the tile that the block computes
};

}  // namespace flanmoe::cuda

// A tile of a product of bf16 matrices on tensor cores: 128 x 128, sums in fp32, four warps of 64 x 64.
//
// Copies of 32 inner elements of both operands run three steps ahead of the arithmetic (cp.async, four stages of 16 KB). An operand lies in memory with its inner
// dimension contiguous (lines of 32 inner elements) or not (32 lines of 128 rows or columns) and is copied as it lies; ldmatrix transposes the second form. Lines
// are cut into chunks of 16 bytes, which change places by line so that eight lines of one chunk lie in different banks.
//
// A warp's 64 rows are every second block of 16, its 64 columns likewise: a tile of a small group, of 64 rows say, keeps all warps equally busy and costs half.
// Bytes of shared memory a warp reads for 16 inner elements: 4 KB for 32 mma of 4096 multiply-adds, 64 bytes a clock at the full rate of an A100 and 80 at the
// 62 % of an H100's rate that mma.sync reaches, of 128 that there are.
#pragma once

#include "grouped_schedule.cuh"
#include "grouped_store.cuh"

namespace flanmoe::cuda {

/// How one operand's piece of 32 inner elements lies in shared memory, and who moves what of it.
template <bool inner_contiguous>
struct TensorLayout {
    static constexpr int chunks = inner_contiguous ? 4 : 16;  ///< of a line
    static constexpr int line_step = 128 / chunks;            ///< a thread copies its chunk of every so many lines, which lie 1024 elements apart
    __device__ static int place(int line, int chunk) { return (line * chunks + (chunk ^ (inner_contiguous ? line / 2 % 4 : line % 8))) * 8; }

    /// Where this lane's line for ldmatrix lies: of the 16 x 16 elements of block `first` and of inner elements 0 to 15. The second matrix lies 8 elements
    /// along, or inside if `second_inside`; then follow the other two.
    __device__ static int line_of_lane(int first, bool second_inside) {
        const int matrix = lane() / 8, inner = second_inside ? matrix % 2 : matrix / 2, along = second_inside ? matrix / 2 : matrix % 2;
        if constexpr (inner_contiguous) return place(16 * first + 8 * along + lane() % 8, inner);
        else return place(8 * inner + lane() % 8, 2 * first + along);
    }
    /// The same 2 n blocks further and for inner elements 16 s to 16 s + 15: no bit that is added carries into another.
    __device__ static int further(int line, int n, int s) {
        if constexpr (inner_contiguous) return (line ^ (16 * s)) + 1024 * n;
        else return (line ^ (32 * n)) + 2048 * s;
    }
};

/// a [rows, inner] if its inner dimension is contiguous, else [inner, rows]; b [cols, inner] or [inner, cols]. `aligned`: all rows begin at multiples of 16 bytes,
/// whatever their length; else elements are fetched one by one.
template <class Out, bool a_inner_contiguous, bool b_inner_contiguous, bool aligned>
class TensorTile {
public:
    using T = bf16;
    static constexpr int rows = 128, cols = 128, threads = 128, blocks = 2;  // blocks: that a multiprocessor shall hold
    static constexpr size_t bytes = shared_bytes<bf16>(4 * 2 * 128 * 32);

    __device__ explicit TensorTile(Shared& shared)
        : memory_(shared.take<bf16>(stages * stage_size)), line_a_(LayoutA::line_of_lane(warp() % 2, false)),
          line_b_(operand_size + LayoutB::line_of_lane(warp() / 2, true)) {}

    __device__ void multiply(const GroupedTile<bf16, Out>& tile) const {
        float sums[fragments][pairs][2][4] = {};
        const int steps = static_cast<int>((tile.inner + depth - 1) / depth);
        for (int step = 0; step < stages - 1; ++step) fetch(tile, step, steps);
        const bool full = tile.rows == rows && tile.cols == cols;
        for (int step = 0; step < steps; ++step) {
            copy_async_wait<stages - 2>();
            __syncthreads();
            fetch(tile, step + stages - 1, steps);
            if (full) add<true>(tile, step, sums);
            else add<false>(tile, step, sums);
        }
        copy_async_wait<0>();
        __syncthreads();  // the memory is free for the next tile
        store(tile, sums);
    }

private:
    static constexpr int stages = 4, depth = 32, operand_size = 128 * depth, stage_size = 2 * operand_size;
    static constexpr int fragments = 4, pairs = 4;  // of a warp: blocks of 16 rows, pairs of blocks of 8 columns
    using LayoutA = TensorLayout<a_inner_contiguous>;
    using LayoutB = TensorLayout<b_inner_contiguous>;

    __device__ static int fragment_of(int i) { return 2 * i + warp() % 2; }
    __device__ static int pair_of(int j) { return 2 * j + warp() / 2; }
    __device__ bf16* stage(int step) const { return memory_ + step % stages * stage_size; }

    /// Starts the copies of a step, if there is such a step, and closes their group.
    __device__ void fetch(const GroupedTile<bf16, Out>& tile, int step, int steps) const {
        if (step < steps) {
            fetch_operand<a_inner_contiguous>(stage(step), tile.a, tile.a_ld, tile.rows, tile.inner, step * int64_t{depth});
            fetch_operand<b_inner_contiguous>(stage(step) + operand_size, tile.b, tile.b_ld, tile.cols, tile.inner, step * int64_t{depth});
        }
        copy_async_commit();
    }

    /// Inner elements from `begin` on; zeros beyond the tile's `width` rows or columns and beyond the inner size.
    template <bool inner_contiguous>
    __device__ static void fetch_operand(bf16* to, const bf16* from, int64_t ld, int width, int64_t inner, int64_t begin) {
        using Layout = TensorLayout<inner_contiguous>;
        const int line = static_cast<int>(threadIdx.x) / Layout::chunks, chunk = static_cast<int>(threadIdx.x) % Layout::chunks;
        int along = inner_contiguous ? line : 8 * chunk;
        int64_t k = begin + (inner_contiguous ? 8 * chunk : line);
        const bf16* source = from + (inner_contiguous ? along * ld + k : k * ld + along);
        to += Layout::place(line, chunk);
#pragma unroll(aligned ? 4 : 1)
        for (int i = 0; i < operand_size / 8 / threads; ++i) {
            if constexpr (aligned) {
                const int64_t left = inner_contiguous ? (along < width ? inner - k : 0) : (k < inner ? width - along : 0);
                const int inside = static_cast<int>(max(int64_t{0}, min(left, int64_t{8})));
                copy_async_part(to + 1024 * i, inside ? source : from, inside * static_cast<int>(sizeof(bf16)));
            } else {
                Vec<bf16, 8> values;
                for (int j = 0; j < 8; ++j) {
                    const bool inside = inner_contiguous ? along < width && k + j < inner : along + j < width && k < inner;
                    values[j] = inside ? source[j] : from_float<bf16>(0);
                }
                store_vec(to + 1024 * i, values);
            }
            source += Layout::line_step * ld;
            if constexpr (inner_contiguous) along += Layout::line_step;
            else k += Layout::line_step;
        }
    }

    /// sums += the products of one step. Unless the tile is full, blocks without a row or column of it are left out.
    template <bool full>
    __device__ void add(const GroupedTile<bf16, Out>& tile, int step, float (&sums)[fragments][pairs][2][4]) const {
        const bf16* const from = stage(step);
#pragma unroll
        for (int step16 = 0; step16 < depth / 16; ++step16) {
            uint32_t left[fragments][4], right[pairs][4];
#pragma unroll
            for (int i = 0; i < fragments; ++i)
                if (full || 16 * fragment_of(i) < tile.rows) load<a_inner_contiguous>(left[i], from + LayoutA::further(line_a_, i, step16));
#pragma unroll
            for (int j = 0; j < pairs; ++j) {
                if (!full && 16 * pair_of(j) >= tile.cols) continue;
                load<b_inner_contiguous>(right[j], from + LayoutB::further(line_b_, j, step16));
#pragma unroll
                for (int i = 0; i < fragments; ++i) {
                    if (!full && 16 * fragment_of(i) >= tile.rows) continue;
                    mma_16x8x16(sums[i][j][0], left[i], {right[j][0], right[j][1]});
                    mma_16x8x16(sums[i][j][1], left[i], {right[j][2], right[j][3]});
                }
            }
        }
    }
    template <bool inner_contiguous>
    __device__ static void load(uint32_t (&to)[4], const bf16* line) {
        if constexpr (inner_contiguous) ldmatrix_x4(to, line);
        else ldmatrix_x4_transposed(to, line);
    }

    __device__ static void store(const GroupedTile<bf16, Out>& tile, const float (&sums)[fragments][pairs][2][4]) {
#pragma unroll
        for (int i = 0; i < fragments; ++i)
#pragma unroll
            for (int lower = 0; lower < 2; ++lower) {
                const int row = 16 * fragment_of(i) + 8 * lower + lane() / 4;
                Out* const out = tile.out + row * tile.out_ld;
#pragma unroll
                for (int j = 0; j < pairs; ++j) {
                    const int col = 16 * pair_of(j);
                    const float values[2][2] = {{sums[i][j][0][2 * lower], sums[i][j][0][2 * lower + 1]}, {sums[i][j][1][2 * lower], sums[i][j][1][2 * lower + 1]}};
                    store_sixteen<aligned>(out + col, row < tile.rows ? tile.cols - col : 0, values, tile.accumulate);
                }
            }
    }

    bf16* memory_;         // [stages][a, b][operand_size]
    int line_a_, line_b_;  // of this lane in a stage
};

}  // namespace flanmoe::cuda

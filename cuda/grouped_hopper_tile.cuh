// A tile of a product of bf16 matrices on Hopper's tensor cores: 128 x 256, sums in fp32, two warpgroups of 64 rows each.
//
// Copies of 64 inner elements of both operands (cp.async, 48 KB, four stages) run two steps ahead; products of one step run beside the start of the next, so a
// stage is free two steps later. Copies by the threads, rather than by TMA, put zeros where an expert's rows end: a group begins at any row, and its inner size is any
// where weights are multiplied. A group of at most 64 rows leaves the second warpgroup idle; the first one alone feeds all four tensor cores.
// Bytes of shared memory for 16 inner elements: 20 KB read (each group A and B), 12 KB written, in the 256 clocks that 128 x 256 x 16 multiply-adds take at the full rate: all
// of the 128 bytes a clock that there are. mma.sync reaches 62 % of that rate, this should pass 75 %. Not yet measured on hardware.
#pragma once

#include "grouped_schedule.cuh"
#include "grouped_store.cuh"
#include "wgmma.cuh"

namespace flanmoe::cuda {

/// a [rows, inner] if its inner dimension is contiguous, else [inner, rows]; b [cols, inner] or [inner, cols]. All rows begin at multiples of 16 bytes, whatever
/// their length.
template <class Out, bool a_inner_contiguous, bool b_inner_contiguous, bool aligned>
class HopperTile {
public:
    static_assert(aligned, "copies of 16 bytes");
    using T = bf16;
    static constexpr int rows = 128, cols = 256, threads = 256, blocks = 1;

private:
    static constexpr int stages = 4, ahead = 2, a_size = rows * operand_depth, stage_size = (rows + cols) * operand_depth;

public:
    static constexpr size_t bytes = shared_bytes<bf16>(stages * stage_size);

    __device__ explicit HopperTile(Shared& shared) : memory_(shared.take<bf16>(stages * stage_size)) {}  // the first piece: at a multiple of 1024 bytes

    __device__ void multiply(const GroupedTile<bf16, Out>& tile) const {
        // Said by one lane, so that the compiler knows that no warp is divided, where it would let products wait for each other.
        const int group_row = __shfl_sync(full_mask, warp() / 4 * 64, 0), steps = __shfl_sync(full_mask, static_cast<int>((tile.inner + operand_depth - 1) / operand_depth), 0);
        const bool busy = __shfl_sync(full_mask, static_cast<int>(group_row < tile.rows), 0) != 0;
        float sums[128] = {};
        for (int step = 0; step < ahead; ++step) fetch(tile, step, steps);
        for (int step = 0; step < steps; ++step) {
            copy_async_wait<ahead - 1>();
            show_shared_to_wgmma();
            __syncthreads();  // this step's copies are there, and all products before the last step's are done
            fetch(tile, step + ahead, steps);
            if (!busy) continue;
            const bf16* const from = stage(step);
            wgmma_begin(sums);
#pragma unroll
            for (int k = 0; k < operand_depth; k += 16)
                wgmma_64x256x16(sums, SharedOperand<a_inner_contiguous>(from, group_row, k), SharedOperand<b_inner_contiguous>(from + a_size, 0, k));
            wgmma_commit();
            wgmma_wait<1>(sums);
        }
        copy_async_wait<0>();
        if (busy) wgmma_wait<0>(sums);
        __syncthreads();  // the memory is free for the next tile
        if (busy) store(tile, group_row, sums);
    }

private:
    __device__ bf16* stage(int step) const { return memory_ + step % stages * stage_size; }

    /// Starts the copies of a step, if there is such a step, and closes their group.
    __device__ void fetch(const GroupedTile<bf16, Out>& tile, int step, int steps) const {
        if (step < steps) {
            fetch_operand<a_inner_contiguous, rows>(stage(step), tile.a, tile.a_ld, tile.rows, tile.inner, step * int64_t{operand_depth});
            fetch_operand<b_inner_contiguous, cols>(stage(step) + a_size, tile.b, tile.b_ld, tile.cols, tile.inner, step * int64_t{operand_depth});
        }
        copy_async_commit();
    }

    /// Inner elements from `begin` on of `lines` rows or columns; zeros beyond the tile's `width` of them and beyond the inner size.
    template <bool inner_contiguous, int lines>
    __device__ static void fetch_operand(bf16* to, const bf16* from, int64_t ld, int width, int64_t inner, int64_t begin) {
        constexpr int chunks = (inner_contiguous ? operand_depth : lines) / 8, step = threads / chunks;  // of a line; lines that a pass of all threads copies
        const int chunk = static_cast<int>(threadIdx.x) % chunks;
        int line = static_cast<int>(threadIdx.x) / chunks;
        const bf16* source = inner_contiguous ? from + line * ld + begin + 8 * chunk : from + (begin + line) * ld + 8 * chunk;
#pragma unroll 4
        for (int i = 0; i < lines * operand_depth / 8 / threads; ++i) {
            const int64_t left = inner_contiguous ? (line < width ? inner - begin - 8 * chunk : 0) : (begin + line < inner ? width - 8 * chunk : 0);
            const int inside = static_cast<int>(max(int64_t{0}, min(left, int64_t{8})));
            copy_async_part(to + operand_place<inner_contiguous>(line, chunk), inside ? source : from, inside * static_cast<int>(sizeof(bf16)));
            line += step, source += step * ld;
        }
    }

    __device__ static void store(const GroupedTile<bf16, Out>& tile, int group_row, const float (&sums)[128]) {
#pragma unroll
        for (int lower = 0; lower < 2; ++lower) {
            const int row = group_row + warp() % 4 * 16 + lane() / 4 + 8 * lower;
#pragma unroll
            for (int j = 0; j < 16; ++j) {
                const float values[2][2] = {{sums[8 * j + 2 * lower], sums[8 * j + 2 * lower + 1]}, {sums[8 * j + 4 + 2 * lower], sums[8 * j + 4 + 2 * lower + 1]}};
                store_sixteen<aligned>(tile.out + row * tile.out_ld + 16 * j, row < tile.rows ? tile.cols - 16 * j : 0, values, tile.accumulate);
            }
        }
    }

    bf16* memory_;  // [stages][a, b]
};

}  // namespace flanmoe::cuda

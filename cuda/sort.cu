// Radix sort, least digit first, 8 bits a pass: 15 to 16 bits (32 k to 64 k ids) take two passes of three launches.
//
// A pass: (1) every tile of 2048 keys counts its digits; (2) per digit, the counts of the tiles before each tile are added; (3) every tile finds each key's rank
// among the tile's keys of the same digit and writes key and position to their places. Ranks inside a warp come from a vote (which lanes have my digit),
// across warps and tiles from the counts, so equal digits keep their order, whatever the scheduling. Skewed keys cost nothing: only counting in shared memory
// has conflicts, 2048 to one address at worst (about a microsecond).
//
// Cost: reads and writes 20 bytes a key and pass, 2.6 MB for 64 Ki keys and two passes: the launches (six, about 2 us each) are most of it. Not yet measured on
// hardware. On sm_90a: 56 registers and 8.2 KB of shared memory a block of 256 threads in (3), 18 and 1 KB in (1).
#include "sort.hpp"

#include "device.cuh"
#include "launch.hpp"

#include <bit>

namespace flanmoe::cuda {

namespace {

constexpr int digit_bits = 8, digits = 1 << digit_bits;
constexpr int threads = digits;  // in (1) and (3) thread d also serves digit d
constexpr int warps = threads / 32, keys_per_thread = 8, tile = threads * keys_per_thread;

__device__ int digit_of(int32_t key, int shift) { return (key >> shift) & (digits - 1); }

/// counts[digit][tile] = keys of the tile with that digit.
__global__ void count_digits(const int32_t* keys, int64_t count, int shift, int32_t* counts) {
    Shared shared;
    int32_t* const histogram = shared.take<int32_t>(digits);
    histogram[threadIdx.x] = 0;
    __syncthreads();
    const int64_t first = int64_t{blockIdx.x} * tile;
    for (int64_t i = first + threadIdx.x; i < min(count, first + tile); i += threads) atomicAdd(&histogram[digit_of(keys[i], shift)], 1);
    __syncthreads();
    counts[int64_t{threadIdx.x} * gridDim.x + blockIdx.x] = histogram[threadIdx.x];
}

/// counts[digit][tile] becomes the number of keys with that digit in the tiles before; totals[digit] that in all. A warp a digit.
__global__ void add_tiles(int32_t* counts, int64_t tiles, int32_t* totals) {
    int32_t* const row = counts + int64_t{blockIdx.x} * tiles;
    int32_t before = 0;
    for (int64_t first = 0; first < tiles; first += 32) {
        const int64_t t = first + lane();
        const int32_t value = t < tiles ? row[t] : 0, sum = warp_prefix(value);
        if (t < tiles) row[t] = before + sum - value;
        before += __shfl_sync(full_mask, sum, 31);
    }
    if (lane() == 0) totals[blockIdx.x] = before;
}

struct ScatterArgs {
    const int32_t *keys, *positions;  // positions: null = 0, 1, 2, ...
    int64_t count;
    int shift;
    const int32_t *counts, *totals;
    int32_t *sorted_keys, *sorted_positions;
};

__global__ void scatter_keys(ScatterArgs args) {
    Shared shared;
    int32_t* const next = shared.take<int32_t>(warps * digits);  // [warp][digit]: keys of the digit that the warp has seen; later, where its first one goes
    int32_t* const warp_sums = shared.take<int32_t>(warps);
    for (int w = 0; w < warps; ++w) next[w * digits + threadIdx.x] = 0;
    // Where this tile's first key of digit threadIdx.x goes: behind all smaller digits and that digit's keys in the tiles before.
    const int32_t total = args.totals[threadIdx.x], up_to = warp_prefix(total);
    if (lane() == 31) warp_sums[warp()] = up_to;
    __syncthreads();
    int32_t place = up_to - total + args.counts[int64_t{threadIdx.x} * gridDim.x + blockIdx.x];
    for (int w = 0; w < warp(); ++w) place += warp_sums[w];

    const int64_t first = int64_t{blockIdx.x} * tile + warp() * (32 * keys_per_thread) + lane();
    int32_t* const mine = next + warp() * digits;
    int32_t key[keys_per_thread], rank[keys_per_thread];
#pragma unroll
    for (int i = 0; i < keys_per_thread; ++i) {
        const bool valid = first + i * 32 < args.count;
        key[i] = valid ? args.keys[first + i * 32] : 0;
        const int digit = digit_of(key[i], args.shift);
        const uint32_t same = __match_any_sync(full_mask, valid ? digit : digits), before = same & lanes_below();
        rank[i] = mine[digit] + __popc(before);
        __syncwarp();
        if (valid && before == 0) mine[digit] += __popc(same);
        __syncwarp();
    }
    __syncthreads();
    for (int w = 0; w < warps; ++w) {
        int32_t& here = next[w * digits + threadIdx.x];
        const int32_t seen = here;
        here = place;
        place += seen;
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < keys_per_thread; ++i) {
        const int64_t from = first + i * 32;
        if (from >= args.count) continue;
        const int32_t to = mine[digit_of(key[i], args.shift)] + rank[i];
        args.sorted_keys[to] = key[i];
        args.sorted_positions[to] = args.positions ? args.positions[from] : static_cast<int32_t>(from);
    }
}

}  // namespace

SortedPositions sort_positions(Context& context, const Tensor& keys, int64_t bound) {
    const int64_t count = keys.elements(), tiles = (count + tile - 1) / tile;
    require(count < INT32_MAX && bound <= INT32_MAX, "fewer than 2^31 keys");
    const int bits = std::max(1, static_cast<int>(std::bit_width(static_cast<uint64_t>(std::max<int64_t>(bound, 1) - 1))));
    SortedPositions sorted{context.allocate(DType::i32, {count}), context.allocate(DType::i32, {count})};
    SortedPositions other{context.allocate(DType::i32, {count}), context.allocate(DType::i32, {count})};
    const Tensor counts = context.allocate(DType::i32, {digits, tiles}), totals = context.allocate(DType::i32, {digits});
    const int32_t *from_keys = keys.as<int32_t>(), *from_positions = nullptr;
    const unsigned grid = blocks_for(count, tile);
    for (int shift = 0; shift < bits; shift += digit_bits) {
        launch(context, "sort count", count_digits, grid, threads, shared_bytes<int32_t>(digits), from_keys, count, shift, counts.as<int32_t>());
        launch(context, "sort add", add_tiles, tiles ? digits : 0, 32, 0, counts.as<int32_t>(), tiles, totals.as<int32_t>());
        const ScatterArgs args{from_keys, from_positions, count, shift, counts.as<int32_t>(), totals.as<int32_t>(), sorted.keys.as<int32_t>(),
                               sorted.positions.as<int32_t>()};
        launch(context, "sort scatter", scatter_keys, grid, threads, shared_bytes<int32_t>(warps * digits) + shared_bytes<int32_t>(warps), args);
        from_keys = args.sorted_keys, from_positions = args.sorted_positions;
        std::swap(sorted, other);
    }
    return other;
}

}  // namespace flanmoe::cuda

// Deciding where experts choose: a block for every expert and group takes the `capacity` most probable tokens, ties to the earlier token.
//
// As on the CPU the least probability taken is found by bisection on bit patterns (numbers that are not negative are ordered like them): 30 counts of a column
// of S numbers, which lies contiguous in scratch and stays in the first-level cache. Then one warp walks the column in token order and numbers what is taken,
// in the place of the column.
#pragma once

#include "route_work.cuh"

#include <algorithm>

namespace flanmoe::cuda {

/// How many of n numbers are at least `bound`, the same in all threads. `piece` has an entry for each warp.
__device__ inline int32_t count_at_least(const int32_t* bits, int64_t n, int32_t bound, int32_t* piece) {
    int32_t count = 0;
    for (int64_t i = threadIdx.x; i < n; i += blockDim.x) count += bits[i] >= bound ? 1 : 0;
    return block_sum(count, piece);
}

/// Those of at least `high` are taken, and as many that equal `low` as `equal` says.
struct Cut {
    int32_t low, high;
    int64_t equal;
};
/// The cut that takes `count` of the column's numbers.
__device__ inline Cut find_cut(const int32_t* column, int64_t n, int64_t count, int32_t* piece) {
    Cut cut{0, __float_as_int(1.0f) + 1, 0};  // at_least(low) >= count >= at_least(high): probabilities are not above 1
    int64_t above = 0;
    while (cut.high - cut.low > 1 && above < count) {
        const int32_t middle = cut.low + (cut.high - cut.low) / 2;
        const int64_t matching = count_at_least(column, n, middle, piece);
        if (matching > count) cut.low = middle;
        else cut.high = middle, above = matching;
    }
    cut.equal = count - above;
    return cut;
}

struct Taken {
    int32_t rows, reached;
    double gate;
};
/// Numbers the tokens that expert e takes, in token order, by one warp: the column becomes their ranks.
__device__ inline Taken take(const RouteWork& w, int64_t group, int32_t* column, const Cut& cut, int64_t count) {
    Taken taken{0, 0, 0};
    int64_t equal = 0;
    for (int64_t s = 0; s < w.size; s += 32) {
        const int64_t mine = s + lane();
        const int32_t bits = mine < w.size ? column[mine] : -1;
        const uint32_t ties = __ballot_sync(full_mask, bits == cut.low && bits < cut.high);
        const bool tie_taken = bits == cut.low && equal + __popc(ties & lanes_below()) < cut.equal;
        const uint32_t all = __ballot_sync(full_mask, bits >= cut.high || tie_taken);
        const int32_t rank = taken.rows + __popc(all & lanes_below());
        const bool kept = (all >> lane() & 1) && rank < count;  // more than `count` only with NaN
        if (kept) {
            taken.gate += static_cast<double>(__int_as_float(bits));
            taken.reached += keep_row(w, group, group * w.size + mine) ? 1 : 0;
        }
        if (mine < w.size) column[mine] = kept ? rank : -1;
        equal += __popc(ties);
        taken.rows += __popc(all);
    }
    if (taken.rows > count) taken.rows = static_cast<int32_t>(count);
    taken.gate = warp_sum(taken.gate), taken.reached = warp_sum(taken.reached);
    return taken;
}

/// Grid: [G, E]; blocks of expert_choice_threads(S). Shared memory: an integer for each warp.
__global__ void __launch_bounds__(1024) expert_choice_kernel(const RouteWork w) {
    Shared shared;
    int32_t* piece = shared.take<int32_t>(32);
    const int64_t group = blockIdx.x, e = blockIdx.y, routable = routable_tokens(w, group), capacity = slots_of(w.rule, routable, w.experts);
    const int64_t count = min(capacity, routable);
    int32_t* column = w.ranks + (group * w.experts + e) * w.size;
    const Cut cut = find_cut(column, w.size, count, piece);
    if (warp() != 0) return;
    if (e == 0) sum_group(w, group, routable, capacity);
    const Taken taken = take(w, group, column, cut, count);
    if (lane() != 0) return;
    const int64_t pair = e * w.groups + group;
    w.rows[pair] = w.wanted[pair] = taken.rows;
    for (int s = 0; s < pair_sums; ++s) w.pair_sum[s * w.decide_blocks + pair] = 0;
    w.pair_sum[pair_gate * w.decide_blocks + pair] = taken.gate;
    w.pair_sum[pair_reached * w.decide_blocks + pair] = taken.reached;
}

/// Eight tokens or more a thread, whole warps.
inline unsigned expert_choice_threads(int64_t size) { return static_cast<unsigned>(std::clamp<int64_t>((size + 255) / 256 * 32, 32, 1024)); }

}  // namespace flanmoe::cuda

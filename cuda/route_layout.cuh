// Laying out and emitting: where the rows of every expert, group and token start, the statistics, and then the tables.
//
// Laying out is one block: E G and N / 256 counts become starts in one scan each, whose threads take a run of counts each; a warp adds up each statistic.
// Emitting is a thread for every token, which finds its place among the block's tokens by a scan and enters its rows by ascending expert.
#pragma once

#include "route_work.cuh"

namespace flanmoe::cuda {

constexpr int layout_threads = 1024;

/// Sum of `value` over the threads before this one, and over all of them. `piece` has an entry for each warp.
struct Scanned {
    int32_t before, all;
};
__device__ inline Scanned block_scan(int32_t value, int32_t* piece) {
    const int32_t sum = warp_prefix(value);
    if (lane() == 31) piece[warp()] = sum;
    __syncthreads();
    Scanned scanned{sum - value, 0};
    for (int i = 0; i < static_cast<int>(blockDim.x) / 32; ++i) {
        if (i < warp()) scanned.before += piece[i];
        scanned.all += piece[i];
    }
    __syncthreads();
    return scanned;
}

/// Counts become starts; returns their sum.
__device__ inline int32_t scan_counts(int32_t* counts, int64_t n, int32_t* piece) {
    const int64_t run = (n + blockDim.x - 1) / blockDim.x, begin = min(n, run * threadIdx.x), end = min(n, begin + run);
    int32_t sum = 0;
    for (int64_t i = begin; i < end; ++i) sum += counts[i];
    const Scanned scanned = block_scan(sum, piece);
    int32_t start = scanned.before;
    for (int64_t i = begin; i < end; ++i) {
        const int32_t count = counts[i];
        counts[i] = start;
        start += count;
    }
    __syncthreads();
    return scanned.all;
}

/// Sum of n numbers by one warp, in an order that depends on n alone.
__device__ inline double warp_total(const double* from, int64_t n) {
    double sum = 0;
    for (int64_t i = lane(); i < n; i += 32) sum += from[i];
    return warp_sum(sum);
}

/// Statistic s of the call, by one warp.
__device__ inline double statistic(const RouteWork& w, ops::RouteStatistic s, int32_t rows) {
    using S = ops::RouteStatistic;
    const auto pairs = [&](PairSum sum) { return warp_total(w.pair_sum + sum * w.decide_blocks, w.decide_blocks); };
    const auto whole = [&](GroupSum sum) { return warp_total(w.group_sum + sum * w.groups, w.groups); };
    switch (s) {
        case S::balance: return pairs(pair_balance);
        case S::z: return whole(group_z);
        case S::groups: return whole(group_counted);
        case S::tokens: return whole(group_tokens);
        case S::reached: return pairs(pair_reached);
        case S::rows: return rows;
        case S::slots: return w.rule.dropless ? rows : whole(group_slots);
        case S::gate: return pairs(pair_gate);
        case S::entropy: return whole(group_entropy);
        case S::later_wanted: return pairs(pair_later_wanted);
        case S::later_dropped: return pairs(pair_later_dropped);
        case S::count: break;
    }
    return 0;
}

/// Grid: one block of layout_threads. Shared memory: an integer for each warp.
__global__ void __launch_bounds__(layout_threads) layout_kernel(const RouteWork w) {
    Shared shared;
    int32_t* piece = shared.take<int32_t>(32);
    const int32_t rows = scan_counts(w.rows, w.experts * w.groups, piece);
    scan_counts(w.block_kept, w.groups * w.emit_blocks, piece);
    const int warps = static_cast<int>(blockDim.x) / 32;
    for (int64_t e = warp(); e < w.experts; e += warps) {
        int32_t wanted = 0;
        for (int64_t g = lane(); g < w.groups; g += 32) wanted += w.wanted[e * w.groups + g];
        wanted = warp_sum(wanted);
        if (lane() != 0) continue;
        const int32_t begin = w.rows[e * w.groups], end = e + 1 < w.experts ? w.rows[(e + 1) * w.groups] : rows;
        w.offsets[e] = begin;
        w.load[e] = end - begin;
        w.demand[e] = wanted;
    }
    if (threadIdx.x == 0) w.offsets[w.experts] = w.token_offsets[w.tokens] = rows;
    for (int s = warp(); s < static_cast<int>(ops::RouteStatistic::count); s += warps) {
        const double value = statistic(w, static_cast<ops::RouteStatistic>(s), rows);
        if (lane() == 0) w.statistics[s] = value;
    }
}

/// Enters the row of token n at expert e of the group.
__device__ inline void write_row(const RouteWork& w, int64_t group, int64_t n, int64_t e, int32_t rank, float gate, int32_t place) {
    const int32_t row = w.rows[e * w.groups + group] + rank;
    w.row_token[row] = static_cast<int32_t>(n);
    w.row_gate[row] = gate;
    w.row_id[row] = (static_cast<int64_t>(w.first_token) + n) * w.experts + e;
    w.token_rows[place] = row;
}

/// Grid: [G emit_blocks] blocks of emit_tokens. Shared memory: an integer for each warp.
__global__ void __launch_bounds__(emit_tokens) emit_kernel(const RouteWork w) {
    Shared shared;
    int32_t* piece = shared.take<int32_t>(32);
    const int64_t group = blockIdx.x / w.emit_blocks, s = blockIdx.x % w.emit_blocks * emit_tokens + threadIdx.x, n = group * w.size + s;
    const int32_t kept = s < w.size ? w.token_kept[n] : 0;
    int32_t place = w.block_kept[blockIdx.x] + block_scan(kept, piece).before;
    if (s >= w.size) return;
    w.token_offsets[n] = place;
    if (w.k == 0) {
        for (int64_t e = 0; e < w.experts; ++e) {
            const int32_t rank = w.ranks[(group * w.experts + e) * w.size + s];
            if (rank >= 0) write_row(w, group, n, e, rank, w.probabilities[n * w.experts + e], place++);
        }
        return;
    }
    int64_t written = -1;  // expert and choice of the last row as one number
    for (int32_t i = 0; i < kept; ++i) {
        int64_t next = INT64_MAX;
        for (int r = 0; r < w.k; ++r) {
            const int64_t candidate = static_cast<int64_t>(w.choices[n * w.k + r]) * w.k + r;
            if (w.ranks[n * w.k + r] >= 0 && candidate > written && candidate < next) next = candidate;
        }
        written = next;
        const int64_t at = n * w.k + next % w.k;
        write_row(w, group, n, next / w.k, w.ranks[at], w.gates[at], place++);
    }
}

}  // namespace flanmoe::cuda

// Deciding where tokens choose: a warp for every expert and group walks the group's claims in the order of the rule and grants slots until there are none.
//
// No warp needs another's result: a claim is kept if fewer than `capacity` claims on the same expert come before it, however the others end. All first choices
// come in token order (or in that of priority), then all second ones; 32 claims are compared at a time and a vote gives each its position. A second walk, token
// by token, numbers what is kept. Claims are read by all experts of the group: E k S integers a group from the first-level cache, one instruction for 32.
#pragma once

#include "route_work.cuh"

namespace flanmoe::cuda {

/// Order of the claims of a prioritised group: a token's place is the number of tokens that come before it. Grid: [G emit_blocks] blocks of emit_tokens.
__global__ void __launch_bounds__(emit_tokens) order_kernel(const RouteWork w) {
    Shared shared;
    int32_t* keys = shared.take<int32_t>(emit_tokens);
    const int64_t group = blockIdx.x / w.emit_blocks, first = group * w.size;
    const int64_t own = blockIdx.x % w.emit_blocks * emit_tokens + threadIdx.x;
    const int32_t key = own < w.size ? w.priority[first + own] : -1;
    int32_t place = 0;
    for (int64_t begin = 0; begin < w.size; begin += emit_tokens) {
        const int count = static_cast<int>(min(static_cast<int64_t>(emit_tokens), w.size - begin));
        __syncthreads();
        if (static_cast<int>(threadIdx.x) < count) keys[threadIdx.x] = w.priority[first + begin + threadIdx.x];
        __syncthreads();
        for (int i = 0; i < count; ++i) place += keys[i] > key || (keys[i] == key && begin + i < own) ? 1 : 0;
    }
    if (key >= 0) w.order[first + place] = static_cast<int32_t>(first + own);
}

/// What one expert takes of one group.
struct Decision {
    int32_t wanted = 0, first_wanted = 0;  ///< claims; those that are first choices
    double gate = 0;                       ///< sum of the gates of what is kept
    int32_t reached = 0;                   ///< tokens that no other expert was told it keeps first
};

/// Grants slots: ranks of the kept claims on expert e become 0 or more.
__device__ inline void grant(const RouteWork& w, int64_t group, int32_t e, int64_t routable, int64_t capacity, Decision& decision) {
    const int64_t first = group * w.size, queued = w.order ? routable : w.size;
    for (int r = 0; r < w.k; ++r) {
        for (int64_t q = 0; q < queued; q += 32) {
            const int64_t mine = q + lane(), n = mine < queued ? (w.order ? w.order[first + mine] : first + mine) : -1;
            const bool claims = n >= 0 && w.claims[n * w.k + r] == e;
            const uint32_t all = __ballot_sync(full_mask, claims);
            const int32_t position = decision.wanted + __popc(all & lanes_below());
            if (claims && (capacity < 0 || position < capacity)) w.ranks[n * w.k + r] = position;
            decision.wanted += __popc(all);
        }
        if (r == 0) decision.first_wanted = decision.wanted;
    }
    __syncwarp();
}

/// Numbers the kept claims on expert e by token.
__device__ inline void number(const RouteWork& w, int64_t group, int32_t e, Decision& decision) {
    const int64_t begin = group * w.size * w.k, end = begin + w.size * w.k;
    int32_t kept = 0;
    for (int64_t i = begin; i < end; i += 32) {
        const int64_t at = i + lane();
        const bool mine = at < end && w.claims[at] == e && w.ranks[at] >= 0;
        const uint32_t all = __ballot_sync(full_mask, mine);
        if (mine) {
            w.ranks[at] = kept + __popc(all & lanes_below());
            decision.gate += static_cast<double>(w.gates[at]);
            decision.reached += keep_row(w, group, at / w.k) ? 1 : 0;
        }
        kept += __popc(all);
    }
    decision.gate = warp_sum(decision.gate), decision.reached = warp_sum(decision.reached);
}

/// The expert's part of the group's balance loss.
__device__ inline double balance_part(const RouteWork& w, int64_t group, int64_t e, int64_t routable) {
    double probability = 0, load = 0;
    for (int64_t b = group * w.score_blocks + lane(); b < (group + 1) * w.score_blocks; b += 32) {
        probability += w.block_probability[b * w.experts + e];
        load += w.block_load[b * w.experts + e];
    }
    probability = warp_sum(probability), load = warp_sum(load);
    const double n = static_cast<double>(routable);
    return routable > 0 ? static_cast<double>(w.experts) * load * probability / (n * n) : 0;
}

/// Grid: [G, E / decide_experts rounded up]; a warp an expert. Shared memory: a double for each warp and sum.
__global__ void __launch_bounds__(32 * decide_experts) decide_kernel(const RouteWork w) {
    Shared shared;
    double* parts = shared.take<double>(pair_sums * decide_experts);
    const int64_t group = blockIdx.x, e = static_cast<int64_t>(blockIdx.y) * decide_experts + warp();
    const int64_t routable = routable_tokens(w, group), capacity = slots_of(w.rule, routable, w.experts);
    if (e == 0) sum_group(w, group, routable, capacity);
    double sums[pair_sums] = {};
    if (e < w.experts) {
        Decision decision;
        grant(w, group, static_cast<int32_t>(e), routable, capacity, decision);
        number(w, group, static_cast<int32_t>(e), decision);
        const auto slots = [&](int32_t wanted) { return capacity >= 0 && wanted > capacity ? static_cast<int32_t>(capacity) : wanted; };
        const int32_t kept_later = slots(decision.wanted) - slots(decision.first_wanted), later = decision.wanted - decision.first_wanted;
        sums[pair_balance] = balance_part(w, group, e, routable);
        sums[pair_gate] = decision.gate, sums[pair_reached] = decision.reached;
        sums[pair_later_wanted] = later, sums[pair_later_dropped] = later - kept_later;
        if (lane() == 0) {
            w.rows[e * w.groups + group] = slots(decision.wanted);
            w.wanted[e * w.groups + group] = decision.wanted;
        }
    }
    if (lane() == 0)
        for (int s = 0; s < pair_sums; ++s) parts[s * decide_experts + warp()] = sums[s];
    __syncthreads();
    if (threadIdx.x >= pair_sums) return;
    double sum = 0;
    for (int i = 0; i < decide_experts; ++i) sum += parts[threadIdx.x * decide_experts + i];
    w.pair_sum[threadIdx.x * w.decide_blocks + static_cast<int64_t>(blockIdx.y) * w.groups + group] = sum;
}

}  // namespace flanmoe::cuda

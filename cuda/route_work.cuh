// Routing on the GPU: what the kernels of one call share. The steps are those of the CPU (src/cpu/route/router.hpp), cut so that every step runs over
// the whole device: score (route_score.cuh), decide (route_decide.cuh, route_expert_choice.cuh), lay out and emit (route_layout.cuh).
//
// Between the steps passes one rank for every pair that may become a row: its number among the rows that its expert keeps of its group, in token order, or
// -1. Token choice has a rank for every choice [N, k]; expert choice one for every expert and token [G, E, S].
#pragma once

#include "device.cuh"

#include "ops/route.hpp"

namespace flanmoe::cuda {

constexpr int score_tokens = 64;     ///< tokens of a block of the scoring kernel: the blocks over which the CPU sums, too
constexpr int emit_tokens = 256;     ///< tokens, and threads, of a block of the emitting kernel
constexpr int decide_experts = 8;    ///< experts, and warps, of a block of the deciding kernel of token choice

/// Parts of RouteArgs::statistics that the deciding kernels know: sums over a group's experts, then over groups.
enum PairSum : int { pair_balance, pair_gate, pair_reached, pair_later_wanted, pair_later_dropped, pair_sums };
/// Parts that belong to a group as a whole.
enum GroupSum : int { group_z, group_entropy, group_tokens, group_counted, group_slots, group_sums };

/// One call: arguments, sizes, outputs and scratch, as the kernels see them.
struct RouteWork {
    ops::RouteRule rule;
    int64_t tokens, experts, groups, size;  ///< size = tokens of a group
    int64_t score_blocks, emit_blocks;      ///< of a group
    int64_t decide_blocks;                  ///< of all groups
    int k;                                  ///< choices of a token; 0 for expert choice

    const float* logits;
    int64_t logits_ld;
    const uint8_t* mask;
    const float *bias, *scores, *draws;
    RandomKey key;
    uint64_t first_token;

    float* probabilities;
    int32_t *choices, *offsets, *row_token, *token_offsets, *token_rows;
    float* row_gate;
    int64_t* row_id;
    double *statistics, *load, *demand;

    // Scratch. Counts of pairs and rows are in expert-major order [E, G], the order of the rows.
    double* block_probability;  ///< [G score_blocks, E] sums of probabilities
    int32_t* block_load;        ///< [G score_blocks, E] what the balance loss counts
    double *block_z, *block_entropy;
    int32_t* block_routable;    ///< [G score_blocks] tokens that may be routed
    float* gates;               ///< [N, k]
    int32_t* claims;            ///< [N, k] the choices that pass the second policy, else -1
    int32_t* ranks;             ///< [N, k], or [G, E, S] where it first holds the bits of the probabilities (-1: not to be routed)
    int32_t* priority;          ///< [N] prioritised order: bits of the token's largest probability, -1 if it may not be routed; else null
    int32_t* order;             ///< [G, S] prioritised order: the group's tokens in the order in which they claim slots; else null
    int32_t* token_kept;        ///< [N] rows of the token
    int32_t* block_kept;        ///< [G emit_blocks] rows of the block's tokens, then the first place of them in token_rows
    int32_t* rows;              ///< [E, G] rows that the expert keeps of the group, then its first row of them
    int32_t* wanted;            ///< [E, G] choices that passed the policy
    double* pair_sum;           ///< [pair_sums, decide_blocks]
    double* group_sum;          ///< [group_sums, G]
};

/// ops::capacity_of on the device.
__device__ inline int64_t slots_of(const ops::RouteRule& rule, int64_t routable_tokens, int64_t experts) {
    if (rule.dropless) return -1;
    if (rule.fixed_capacity > 0) return rule.fixed_capacity;
    const int64_t slots = static_cast<int64_t>(rint(rule.capacity_factor * static_cast<double>(routable_tokens) / static_cast<double>(experts)));
    return slots > rule.min_capacity ? slots : rule.min_capacity;
}

/// How many tokens of the group may be routed. For whole warps.
__device__ inline int64_t routable_tokens(const RouteWork& w, int64_t group) {
    int32_t count = 0;
    for (int64_t b = lane(); b < w.score_blocks; b += 32) count += w.block_routable[group * w.score_blocks + b];
    return warp_sum(count);
}

/// Counts a row of token n, which its group's decision keeps; true for the token's first. Additions of integers: their order shows nowhere but in who is told
/// that it was first, and only the number of those is used.
__device__ inline bool keep_row(const RouteWork& w, int64_t group, int64_t n) {
    atomicAdd(w.block_kept + group * w.emit_blocks + (n - group * w.size) / emit_tokens, 1);
    return atomicAdd(w.token_kept + n, 1) == 0;
}

/// What belongs to the group as a whole, by one warp of its deciding blocks.
__device__ inline void sum_group(const RouteWork& w, int64_t group, int64_t routable, int64_t capacity) {
    double z = 0, entropy = 0;
    for (int64_t b = lane(); b < w.score_blocks; b += 32) {
        z += w.block_z[group * w.score_blocks + b];
        entropy += w.block_entropy[group * w.score_blocks + b];
    }
    z = warp_sum(z), entropy = warp_sum(entropy);
    if (lane() != 0) return;
    double* to = w.group_sum + group;
    to[group_z * w.groups] = routable > 0 ? z / static_cast<double>(routable) : 0;
    to[group_entropy * w.groups] = entropy;
    to[group_tokens * w.groups] = static_cast<double>(routable);
    to[group_counted * w.groups] = routable > 0 ? 1 : 0;
    to[group_slots * w.groups] = routable > 0 && capacity >= 0 ? static_cast<double>(w.experts * capacity) : 0;
}

}  // namespace flanmoe::cuda

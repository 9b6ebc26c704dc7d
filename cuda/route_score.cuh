// Scoring: probabilities of every token, its choices, gates and claims, and sums over blocks of 64 tokens.
//
// A warp takes a token: its lanes take the experts. The sum of exponentials is in double, in which it is exact unless the terms span many orders of magnitude,
// so that tokens whose logits are permutations of each other tie exactly, as on the CPU; the exponential is the CPU's, rounding by rounding, so that the two
// decide alike. The r-th choice is the largest number after the (r-1)-th in the order (probability descending, expert ascending), so nothing is marked.
// Bytes of a token: 4 E read and 4 E written (8 E for expert choice), the second pass over the block's probabilities comes from the first-level cache.
#pragma once

#include "route_work.cuh"

namespace flanmoe::cuda {

/// exp(x) for x <= 0 as src/cpu/vector_math.hpp computes it, with the fused multiply-adds that its compiler makes of it. NaN stays NaN.
__device__ inline float route_exp(float x) {
    constexpr float shifter = 0x1.8p23f;
    x = -104.0f > x ? -104.0f : x;
    const float shifted = fmaf(x, 1.44269504f, shifter), whole = shifted - shifter;
    const int32_t n = __float_as_int(shifted) - __float_as_int(shifter);
    const float r = fmaf(-whole, -2.12194440e-4f, fmaf(-whole, 0.693359375f, x));
    const float q = fmaf(fmaf(fmaf(fmaf(0.0013926926614f, r, 0.00836377387441f), r, 0.0416665501103f), r, 0.166665733819f), r, 0.5f);
    const float p = fmaf(q * r, r, r) + 1.0f;
    const int32_t half = n >> 1;
    return p * __int_as_float((half + 127) << 23) * __int_as_float((n - half + 127) << 23);
}

/// Probabilities of one token, by one warp; its z and entropy.
struct TokenSums {
    double z, entropy;
};
__device__ inline TokenSums softmax(const float* x, float* p, int64_t experts) {
    float largest = -INFINITY;
    for (int64_t e = lane(); e < experts; e += 32) largest = x[e] > largest ? x[e] : largest;
    largest = warp_max(largest);
    double sum = 0, weighted = 0;
    for (int64_t e = lane(); e < experts; e += 32) {
        const float below = x[e] - largest, v = route_exp(below);
        p[e] = v;
        sum += static_cast<double>(v);
        weighted += v > 0 ? static_cast<double>(v) * static_cast<double>(below) : 0;
    }
    sum = warp_sum(sum), weighted = warp_sum(weighted);
    const float inverse = static_cast<float>(1 / sum);
    for (int64_t e = lane(); e < experts; e += 32) p[e] *= inverse;
    __syncwarp();
    const double log_sum = log(sum), lse = static_cast<double>(largest) + log_sum;
    return {lse * lse, log_sum - weighted / sum};  // -sum p ln p, ln p = x - largest - log_sum
}

/// A number and where it is, in the order in which choices are made.
struct Candidate {
    float score;
    int32_t expert;
    __device__ bool before(const Candidate& other) const { return score > other.score || (score == other.score && expert < other.expert); }
};

/// The first candidate after `previous`, by one warp; expert 0 if there is none, which only happens with NaN.
__device__ inline Candidate next_choice(const float* p, const float* bias, int64_t experts, const Candidate& previous) {
    Candidate best{-INFINITY, INT32_MAX};
    for (int32_t e = lane(); e < experts; e += 32) {
        const Candidate mine{bias ? p[e] + bias[e] : p[e], e};
        if (previous.before(mine) && mine.before(best)) best = mine;
    }
    for (int step = 16; step > 0; step /= 2) {
        const Candidate other{__shfl_xor_sync(full_mask, best.score, step), __shfl_xor_sync(full_mask, best.expert, step)};
        if (other.before(best)) best = other;
    }
    if (best.expert == INT32_MAX) best.expert = 0;
    return best;
}

/// True if choice r > 0 of token n passes the second policy.
__device__ inline bool passes(const RouteWork& w, int64_t n, int r, float gate) {
    const float threshold = static_cast<float>(w.rule.second_threshold);
    const int64_t later = w.k - 1;
    switch (w.rule.second) {
        case SecondPolicy::all: return true;
        case SecondPolicy::none: return false;
        case SecondPolicy::threshold: return gate > threshold;
        case SecondPolicy::random: break;
    }
    const float draw = w.draws ? w.draws[n * later + r - 1]
                               : uniform(w.key, (w.first_token + static_cast<uint64_t>(n)) * static_cast<uint64_t>(later) + static_cast<uint64_t>(r - 1));
    return draw < gate / threshold;
}

/// Choices, gates and claims of token n, by one warp. `turn` is the number of its first choice where choices go round.
__device__ inline void choose(const RouteWork& w, int64_t n, uint64_t turn, int32_t* loads) {
    const float *p = w.probabilities + n * w.experts, *best = w.scores ? w.scores + n * w.experts : p;
    int32_t* choices = w.choices + n * w.k;
    Candidate choice{INFINITY, -1};
    float sum = 0;
    for (int r = 0; r < w.k; ++r) {
        if (w.rule.kind == RouterKind::balanced) choice.expert = static_cast<int32_t>((turn + static_cast<uint64_t>(r)) % static_cast<uint64_t>(w.experts));
        else choice = next_choice(best, w.bias, w.experts, choice);
        if (lane() == 0) choices[r] = choice.expert;
        sum += p[choice.expert];
    }
    __syncwarp();
    for (int r = lane(); r < w.k; r += 32) {
        const int32_t e = choices[r];
        const float gate = w.rule.normalize ? p[e] / sum : p[e];
        w.gates[n * w.k + r] = gate;
        w.claims[n * w.k + r] = r == 0 || passes(w, n, r, gate) ? e : -1;
        w.ranks[n * w.k + r] = -1;
        if (r == 0 || w.rule.density == Density::any) atomicAdd(loads + e, 1);
        if (r == 0 && w.priority) w.priority[n] = __float_as_int(p[e]) & 0x7fffffff;
    }
}

/// The tables of a token that may not be routed.
__device__ inline void leave_out(const RouteWork& w, int64_t n) {
    for (int64_t e = lane(); e < w.experts; e += 32) w.probabilities[n * w.experts + e] = 0;
    for (int r = lane(); r < w.k; r += 32) {
        w.choices[n * w.k + r] = w.claims[n * w.k + r] = w.ranks[n * w.k + r] = -1;
        w.gates[n * w.k + r] = 0;
    }
    if (lane() == 0 && w.priority) w.priority[n] = -1;
}

/// Sums of the block's probabilities, in token order; for expert choice also their columns.
__device__ inline void sum_experts(const RouteWork& w, int64_t block, int64_t first, int64_t last, const uint32_t* routable, const int32_t* loads) {
    const int64_t group = first / w.size, begin = first - group * w.size;
    for (int64_t e = threadIdx.x; e < w.experts; e += blockDim.x) {
        int32_t* column = w.k == 0 ? w.ranks + (group * w.experts + e) * w.size + begin : nullptr;
        double sum = 0;
        for (int64_t t = 0; t < last - first; ++t) {
            const float p = w.probabilities[(first + t) * w.experts + e];
            sum += static_cast<double>(p);
            if (column) column[t] = routable[t / 32] >> (t % 32) & 1 ? __float_as_int(p) & 0x7fffffff : -1;
        }
        w.block_probability[block * w.experts + e] = sum;
        w.block_load[block * w.experts + e] = loads[e];
    }
}

/// Grid: a block of 256 threads for every 64 tokens of a group. Shared memory: score_shared_bytes.
__global__ void __launch_bounds__(256) score_kernel(const RouteWork w) {
    Shared shared;
    double *z = shared.take<double>(score_tokens), *entropy = shared.take<double>(score_tokens);
    uint32_t* routable = shared.take<uint32_t>(score_tokens / 32);  // a bit for each token
    int32_t *earlier = shared.take<int32_t>(1), *loads = shared.take<int32_t>(w.experts);
    const int64_t block = blockIdx.x, group = block / w.score_blocks, first = group * w.size + block % w.score_blocks * score_tokens;
    const int64_t last = min(first + score_tokens, (group + 1) * w.size);

    for (int64_t e = threadIdx.x; e < w.experts; e += blockDim.x) loads[e] = 0;
    if (threadIdx.x == 0) *earlier = 0;
    if (threadIdx.x < score_tokens) {
        const int64_t n = first + threadIdx.x;
        const uint32_t bits = __ballot_sync(full_mask, n < last && (!w.mask || w.mask[n]));
        if (lane() == 0) routable[warp()] = bits;
        z[threadIdx.x] = entropy[threadIdx.x] = 0;
        if (n < last) w.token_kept[n] = 0;
    }
    __syncthreads();
    if (w.rule.kind == RouterKind::balanced) {  // turns count the routable tokens before
        int32_t count = 0;
        for (int64_t n = group * w.size + threadIdx.x; n < first; n += blockDim.x) count += !w.mask || w.mask[n] ? 1 : 0;
        atomicAdd(earlier, count);
        __syncthreads();
    }
    for (int t = warp(); t < last - first; t += static_cast<int>(blockDim.x) / 32) {
        const int64_t n = first + t;
        if ((routable[t / 32] >> (t % 32) & 1) == 0) {
            leave_out(w, n);
            continue;
        }
        const TokenSums sums = softmax(w.logits + n * w.logits_ld, w.probabilities + n * w.experts, w.experts);
        if (lane() == 0) z[t] = sums.z, entropy[t] = sums.entropy;
        if (w.k == 0) continue;
        const int before = __popc(routable[t / 32] & ((1u << (t % 32)) - 1)) + (t < 32 ? 0 : __popc(routable[0]));
        const uint64_t place = w.first_token + static_cast<uint64_t>(group * w.size + *earlier + before);
        choose(w, n, place * static_cast<uint64_t>(w.k), loads);
    }
    __syncthreads();
    sum_experts(w, block, first, last, routable, loads);
    if (warp() != 0) return;
    const double block_z = warp_sum(z[lane()] + z[lane() + 32]), block_entropy = warp_sum(entropy[lane()] + entropy[lane() + 32]);
    if (lane() != 0) return;
    w.block_z[block] = block_z;
    w.block_entropy[block] = block_entropy;
    w.block_routable[block] = __popc(routable[0]) + __popc(routable[1]);
    const int64_t begin = first - group * w.size;
    if (begin % emit_tokens == 0) w.block_kept[group * w.emit_blocks + begin / emit_tokens] = 0;
}

inline size_t score_shared_bytes(int64_t experts) {
    return 2 * shared_bytes<double>(score_tokens) + shared_bytes<uint32_t>(score_tokens / 32) + shared_bytes<int32_t>(1) + shared_bytes<int32_t>(experts);
}

}  // namespace flanmoe::cuda

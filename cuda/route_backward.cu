// Backward of routing: the formulas of src/cpu/route/route_backward.cpp in two launches.
//
//   factors   a block for every group: how often each expert was chosen, hence what every token's probabilities get from the balance loss
//   tokens    a warp for every token, its lanes take the experts; what reaches the probabilities stays in the output until the softmax's backward
//
// Bytes for N tokens and E experts: 24 N E. Not yet measured on hardware. 48 registers.
#include "ops/route.hpp"

#include "device.cuh"
#include "launch.hpp"

#include <algorithm>

namespace flanmoe::cuda {

namespace {

constexpr int token_warps = 8;  // of a block

struct BackwardWork {
    int64_t tokens, experts, size;
    int64_t first_token;
    int k, counted;  ///< choices of a token (0 for expert choice); those that the balance loss counts
    bool normalize;
    double d_balance, d_z;
    const uint8_t* mask;
    const float *logits, *probabilities, *row_gate, *d_gate;
    int64_t logits_ld, d_logits_ld;
    const int32_t *choices, *token_offsets, *token_rows;
    const int64_t* row_id;
    float *from_balance, *z_factor;  ///< [G, E], [G]
    float* d_logits;

    __device__ bool routable(int64_t n) const { return !mask || mask[n]; }
};

/// Grid: a block for every group. Shared memory: E + 1 integers.
__global__ void factors_kernel(const BackwardWork w) {
    Shared shared;
    int32_t *counts = shared.take<int32_t>(w.experts), *tokens = shared.take<int32_t>(1);
    for (int64_t e = threadIdx.x; e < w.experts; e += blockDim.x) counts[e] = 0;
    if (threadIdx.x == 0) *tokens = 0;
    __syncthreads();
    const int64_t group = blockIdx.x;
    int32_t mine = 0;
    for (int64_t n = group * w.size + threadIdx.x; n < (group + 1) * w.size; n += blockDim.x) {
        if (!w.routable(n)) continue;
        ++mine;
        for (int r = 0; r < w.counted; ++r) atomicAdd(counts + w.choices[n * w.k + r], 1);
    }
    atomicAdd(tokens, mine);
    __syncthreads();
    const double n = *tokens > 0 ? *tokens : 1;
    for (int64_t e = threadIdx.x; e < w.experts; e += blockDim.x)
        w.from_balance[group * w.experts + e] = static_cast<float>(w.d_balance * static_cast<double>(w.experts) * static_cast<double>(counts[e]) / (n * n));
    if (threadIdx.x == 0) w.z_factor[group] = static_cast<float>(w.d_z * 2 / n);
}

/// What reaches the probabilities of token n through its gates, by one warp.
class GateGradient {
public:
    __device__ GateGradient(const BackwardWork& work, int64_t n) : w(work), rows(w.token_rows + w.token_offsets[n]), choices(w.choices + n * w.k), id((w.first_token + n) * w.experts) {
        count = w.token_offsets[n + 1] - w.token_offsets[n];
        if (!normalized()) return;
        for (int r = 0; r < w.k; ++r) sum += w.probabilities[n * w.experts + choices[r]];
        for (int i = 0; i < count; ++i) through_sum += w.d_gate[rows[i]] * w.row_gate[rows[i]];
    }
    __device__ float at(int64_t e) const {
        float direct = 0;
        for (int i = 0; i < count; ++i)
            if (w.row_id[rows[i]] - id == e) direct += w.d_gate[rows[i]];
        if (!normalized()) return direct;
        for (int r = 0; r < w.k; ++r)
            if (choices[r] == e) return (direct - through_sum) / sum;
        return 0;
    }

private:
    __device__ bool normalized() const { return w.k > 0 && w.normalize; }
    const BackwardWork& w;
    const int32_t *rows, *choices;
    int64_t id;  // of the token's row at expert 0
    int count;
    float sum = 0, through_sum = 0;
};

/// Grid: a warp for every token.
__global__ void __launch_bounds__(32 * token_warps) tokens_kernel(const BackwardWork w) {
    const int64_t n = static_cast<int64_t>(blockIdx.x) * token_warps + warp();
    if (n >= w.tokens) return;
    float* out = w.d_logits + n * w.d_logits_ld;
    if (!w.routable(n)) {
        for (int64_t e = lane(); e < w.experts; e += 32) out[e] = 0;
        return;
    }
    const int64_t group = n / w.size;
    const float *x = w.logits + n * w.logits_ld, *p = w.probabilities + n * w.experts;
    const GateGradient gates(w, n);
    float inner = 0, largest_logit = -INFINITY, largest = -INFINITY;
    for (int64_t e = lane(); e < w.experts; e += 32) {
        const float dp = w.from_balance[group * w.experts + e] + gates.at(e);
        out[e] = dp;
        inner += p[e] * dp;
        largest_logit = x[e] > largest_logit ? x[e] : largest_logit;
        largest = p[e] > largest ? p[e] : largest;
    }
    inner = warp_sum(inner), largest_logit = warp_max(largest_logit), largest = warp_max(largest);
    // log sum exp = x - ln p for any expert; the most probable one is the most accurate.
    const float z_factor = w.z_factor[group], from_z = z_factor == 0 ? 0 : z_factor * (largest_logit - logf(largest));
    for (int64_t e = lane(); e < w.experts; e += 32) out[e] = p[e] * ((out[e] - inner) + from_z);  // the large terms cancel first
}

}  // namespace

void route_backward(Context& context, const ops::RouteBackwardArgs& args) {
    Arena::Scope scope(context.arena);
    const ops::RouteArgs& a = args.forward;
    BackwardWork w{};
    w.tokens = a.logits.rows(), w.experts = a.logits.cols(), w.size = w.tokens / a.groups, w.first_token = static_cast<int64_t>(a.first_token);
    w.k = a.rule.kind == RouterKind::expert_choice ? 0 : static_cast<int>(a.rule.k);
    w.counted = a.rule.density == Density::any ? w.k : std::min(w.k, 1);
    w.normalize = a.rule.normalize;
    w.d_balance = args.d_balance, w.d_z = args.d_z;
    w.mask = a.mask ? a.mask.as<uint8_t>() : nullptr;
    w.logits = a.logits.as<float>(), w.logits_ld = a.logits.ld, w.probabilities = a.probabilities.as<float>();
    w.row_gate = a.row_gate.as<float>(), w.d_gate = args.d_gate.as<float>(), w.row_id = a.row_id.as<int64_t>();
    w.choices = w.k ? a.choices.as<int32_t>() : nullptr;
    w.token_offsets = a.token_offsets.as<int32_t>(), w.token_rows = a.token_rows.as<int32_t>();
    w.from_balance = context.allocate(DType::f32, {a.groups, w.experts}).as<float>(), w.z_factor = context.allocate(DType::f32, {a.groups}).as<float>();
    w.d_logits = args.d_logits.as<float>(), w.d_logits_ld = args.d_logits.ld;
    const unsigned factor_threads = static_cast<unsigned>(std::clamp<int64_t>((w.size + 31) / 32 * 32, 32, 1024));
    launch(context, "route backward: factors", factors_kernel, static_cast<unsigned>(a.groups), factor_threads,
           shared_bytes<int32_t>(w.experts) + shared_bytes<int32_t>(1), w);
    launch(context, "route backward: tokens", tokens_kernel, static_cast<unsigned>((w.tokens + token_warps - 1) / token_warps), 32 * token_warps, 0, w);
}

}  // namespace flanmoe::cuda

// How a warp stores 16 columns of eight rows of sums, which its lanes hold as tensor cores leave them: lane l has columns 2 c, 2 c + 1 and 8 + 2 c, 8 + 2 c + 1 of
// row l / 4, c = l % 4.
#pragma once

#include "mma.cuh"

namespace flanmoe::cuda {

/// A row's 16 columns, of which `left` are inside, in bf16: each of its four lanes stores four neighbours, so that the 32 bytes are written at once.
__device__ inline void store_four(bf16* to, int left, const float (&values)[2][2]) {
    const uint32_t first = pack_bf16(values[0][0], values[0][1]), second = pack_bf16(values[1][0], values[1][1]);
    const int source = lane() / 4 * 4 + lane() % 2 * 2;
    uint32_t four[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        const uint32_t from_first = __shfl_sync(full_mask, first, source + i), from_second = __shfl_sync(full_mask, second, source + i);
        four[i] = lane() % 4 < 2 ? from_first : from_second;
    }
    const int at = lane() % 4 * 4;
    if (at + 4 <= left) return store_vec(reinterpret_cast<uint32_t*>(to + at), Vec<uint32_t, 2>{{four[0], four[1]}});
#pragma unroll
    for (int n = 0; n < 3; ++n)
        if (at + n < left) to[at + n].bits = static_cast<uint16_t>(four[n / 2] >> 16 * (n % 2));
}

/// Two neighbours of a row, of which `left` are inside.
template <bool aligned, class Out>
__device__ inline void store_two(Out* to, int left, float first, float second) {
    if (aligned && left > 1) {
        store_vec(to, Vec<Out, 2>{{from_float<Out>(first), from_float<Out>(second)}});
    } else {
        if (left > 0) to[0] = from_float<Out>(first);
        if (left > 1) to[1] = from_float<Out>(second);
    }
}

/// out (+)= values for this lane's row, of whose 16 columns `left` are inside (0: the row is not). `aligned`: rows begin at multiples of 16 bytes. For whole warps.
template <bool aligned, class Out>
__device__ inline void store_sixteen(Out* out, int left, const float (&sums)[2][2], bool accumulate) {
    float values[2][2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const int at = 8 * half + lane() % 4 * 2;
        for (int n = 0; n < 2; ++n) {
            values[half][n] = sums[half][n];
            if (accumulate && at + n < left) values[half][n] += to_float(out[at + n]);
        }
        if constexpr (!aligned || sizeof(Out) == 4) store_two<aligned>(out + at, left - at, values[half][0], values[half][1]);
    }
    if constexpr (aligned && sizeof(Out) == 2) store_four(out, left, values);
}

}  // namespace flanmoe::cuda

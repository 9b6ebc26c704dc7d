// Hopper's tensor cores, which read both operands from shared memory beside the warps that start them (wgmma), with portable twins for the simulator.
//
// A warpgroup is four warps; d of its thread holds, of 64 x 256 sums, row 16 w + g (+ 8 for elements 2 and 3 of four), w = warp of the group, g = lane / 4, and columns
// 8 j + 2 c, + 1 in elements 4 j .. 4 j + 3, c = lane % 4.
// A piece of an operand in shared memory is 64 inner elements deep and begins at a multiple of 1024 bytes. It is made of lines of 128 bytes, whose eight chunks of 16
// bytes change places: chunk c of line l lies at c xor l % 8 (the 128-byte swizzle).
//   inner contiguous: line = row (or column), 64 inner elements
//   else:             blocks of 64 rows (or columns), in each of which a line is an inner element
// Sources: PTX ISA, "Asynchronous warpgroup level matrix multiply-accumulate", matrix descriptors and canonical layouts. Not yet run on hardware.
#pragma once

#include "mma.cuh"

namespace flanmoe::cuda {

constexpr int operand_depth = 64;  ///< inner elements of a piece

/// Element where chunk `chunk` (of eight elements along the contiguous dimension) of line `line` lies: line = row and chunk = inner / 8, or line = inner and
/// chunk = row / 8.
template <bool inner_contiguous>
__device__ inline int operand_place(int line, int chunk) {
    if constexpr (inner_contiguous) return line * 64 + (chunk ^ line % 8) * 8;
    else return chunk / 8 * 64 * operand_depth + line * 64 + (chunk % 8 ^ line % 8) * 8;
}

/// A piece from its row (or column) `along` and inner element `inner` on: `along` a multiple of 64, `inner` of 16.
template <bool inner_contiguous>
struct SharedOperand {
#ifdef FLANMOE_CUDASIM
    const bf16* piece;
    int along, inner;
    float at(int row, int k) const {
        const int place = inner_contiguous ? operand_place<true>(along + row, (inner + k) / 8) + (inner + k) % 8 : operand_place<false>(inner + k, (along + row) / 8) + (along + row) % 8;
        return to_float(piece[place]);
    }
#else
    uint64_t bits;
#endif
    __device__ SharedOperand(const bf16* start, int first, int first_inner) {
#ifdef FLANMOE_CUDASIM
        piece = start, along = first, inner = first_inner;
#else
        // Address, leading and stride offsets in units of 16 bytes; the swizzle of 128 bytes is number 1. Groups of eight lines lie 1024 bytes apart; where the inner
        // dimension is not contiguous, the leading offset is that of the next 64 rows.
        const uint32_t bytes = inner_contiguous ? static_cast<uint32_t>(first * 128 + first_inner * 2) : static_cast<uint32_t>(first / 64 * operand_depth * 128 + first_inner * 128);
        const uint64_t address = (shared_address(start) + bytes) >> 4, leading = inner_contiguous ? 1 : operand_depth * 128 >> 4;
        bits = (address & 0x3fff) | leading << 16 | uint64_t{1024 >> 4} << 32 | uint64_t{1} << 62;
#endif
    }
};

#ifdef FLANMOE_CUDASIM

// ---- portable twins: products are done at once ----

/// Sums run over k from 0 to 15, one product after the other.
template <bool a_inner_contiguous, bool b_inner_contiguous>
__device__ inline void wgmma_64x256x16(float (&d)[128], const SharedOperand<a_inner_contiguous>& a, const SharedOperand<b_inner_contiguous>& b) {
    float left[2][16];
    for (int lower = 0; lower < 2; ++lower)
        for (int k = 0; k < 16; ++k) left[lower][k] = a.at(warp() % 4 * 16 + lane() / 4 + 8 * lower, k);
    for (int j = 0; j < 32; ++j)
        for (int n = 0; n < 2; ++n) {
            float right[16];
            for (int k = 0; k < 16; ++k) right[k] = b.at(8 * j + lane() % 4 * 2 + n, k);
            for (int lower = 0; lower < 2; ++lower) {
                float& sum = d[4 * j + 2 * lower + n];
                for (int k = 0; k < 16; ++k) sum += left[lower][k] * right[k];
            }
        }
}
__device__ inline void wgmma_begin(float (&)[128]) {}
__device__ inline void wgmma_commit() {}
template <int pending>
__device__ inline void wgmma_wait(float (&)[128]) {}
__device__ inline void show_shared_to_wgmma() {}

#else

// ---- hardware ----

// Only sm_90a has these instructions; elsewhere nothing calls them (the host looks at the architecture).
#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/// d += a b^T for the warpgroup, beside it: queued behind what it queued before. The layouts are in the operands' types.
template <bool a_inner_contiguous, bool b_inner_contiguous>
__device__ inline void wgmma_64x256x16(float (&d)[128], const SharedOperand<a_inner_contiguous>& a, const SharedOperand<b_inner_contiguous>& b) {
    asm volatile(
        "{\n.reg .pred add;\nsetp.eq.u32 add, 1, 1;\n"
        "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
        "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
        "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "
        "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "
        "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127}, "
        "%128, %129, add, 1, 1, %130, %131;\n}"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]),
          "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]),
          "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]),
          "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]),
          "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]),
          "+f"(d[40]), "+f"(d[41]), "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]),
          "+f"(d[48]), "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]),
          "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63]),
          "+f"(d[64]), "+f"(d[65]), "+f"(d[66]), "+f"(d[67]), "+f"(d[68]), "+f"(d[69]), "+f"(d[70]), "+f"(d[71]),
          "+f"(d[72]), "+f"(d[73]), "+f"(d[74]), "+f"(d[75]), "+f"(d[76]), "+f"(d[77]), "+f"(d[78]), "+f"(d[79]),
          "+f"(d[80]), "+f"(d[81]), "+f"(d[82]), "+f"(d[83]), "+f"(d[84]), "+f"(d[85]), "+f"(d[86]), "+f"(d[87]),
          "+f"(d[88]), "+f"(d[89]), "+f"(d[90]), "+f"(d[91]), "+f"(d[92]), "+f"(d[93]), "+f"(d[94]), "+f"(d[95]),
          "+f"(d[96]), "+f"(d[97]), "+f"(d[98]), "+f"(d[99]), "+f"(d[100]), "+f"(d[101]), "+f"(d[102]), "+f"(d[103]),
          "+f"(d[104]), "+f"(d[105]), "+f"(d[106]), "+f"(d[107]), "+f"(d[108]), "+f"(d[109]), "+f"(d[110]), "+f"(d[111]),
          "+f"(d[112]), "+f"(d[113]), "+f"(d[114]), "+f"(d[115]), "+f"(d[116]), "+f"(d[117]), "+f"(d[118]), "+f"(d[119]),
          "+f"(d[120]), "+f"(d[121]), "+f"(d[122]), "+f"(d[123]), "+f"(d[124]), "+f"(d[125]), "+f"(d[126]), "+f"(d[127])
        : "l"(a.bits), "l"(b.bits), "n"(a_inner_contiguous ? 0 : 1), "n"(b_inner_contiguous ? 0 : 1)
        : "memory");
}
/// Keeps the compiler from moving sums across this place.
__device__ inline void hold(float (&d)[128]) {
    asm volatile(""
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]),
                   "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]),
                   "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]),
                   "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]),
                   "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]),
                   "+f"(d[40]), "+f"(d[41]), "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]),
                   "+f"(d[48]), "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]),
                   "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63]),
                   "+f"(d[64]), "+f"(d[65]), "+f"(d[66]), "+f"(d[67]), "+f"(d[68]), "+f"(d[69]), "+f"(d[70]), "+f"(d[71]),
                   "+f"(d[72]), "+f"(d[73]), "+f"(d[74]), "+f"(d[75]), "+f"(d[76]), "+f"(d[77]), "+f"(d[78]), "+f"(d[79]),
                   "+f"(d[80]), "+f"(d[81]), "+f"(d[82]), "+f"(d[83]), "+f"(d[84]), "+f"(d[85]), "+f"(d[86]), "+f"(d[87]),
                   "+f"(d[88]), "+f"(d[89]), "+f"(d[90]), "+f"(d[91]), "+f"(d[92]), "+f"(d[93]), "+f"(d[94]), "+f"(d[95]),
                   "+f"(d[96]), "+f"(d[97]), "+f"(d[98]), "+f"(d[99]), "+f"(d[100]), "+f"(d[101]), "+f"(d[102]), "+f"(d[103]),
                   "+f"(d[104]), "+f"(d[105]), "+f"(d[106]), "+f"(d[107]), "+f"(d[108]), "+f"(d[109]), "+f"(d[110]), "+f"(d[111]),
                   "+f"(d[112]), "+f"(d[113]), "+f"(d[114]), "+f"(d[115]), "+f"(d[116]), "+f"(d[117]), "+f"(d[118]), "+f"(d[119]),
                   "+f"(d[120]), "+f"(d[121]), "+f"(d[122]), "+f"(d[123]), "+f"(d[124]), "+f"(d[125]), "+f"(d[126]), "+f"(d[127])
                 :
                 : "memory");
}
/// Before the first product of a batch: the sums as the thread left them are seen.
__device__ inline void wgmma_begin(float (&d)[128]) {
    hold(d);
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
/// Closes a batch of products.
__device__ inline void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
/// Waits until at most `pending` batches are under way; with 0 the sums may be read.
template <int pending>
__device__ inline void wgmma_wait(float (&d)[128]) {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory");
    hold(d);
}
/// What this thread has written or copied to shared memory is seen by products that start behind the next barrier.
__device__ inline void show_shared_to_wgmma() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

#else

template <bool a_inner_contiguous, bool b_inner_contiguous>
__device__ inline void wgmma_64x256x16(float (&)[128], const SharedOperand<a_inner_contiguous>&, const SharedOperand<b_inner_contiguous>&) {
    __trap();
}
__device__ inline void wgmma_begin(float (&)[128]) {}
__device__ inline void wgmma_commit() {}
template <int pending>
__device__ inline void wgmma_wait(float (&)[128]) {}
__device__ inline void show_shared_to_wgmma() {}

#endif

#endif

}  // namespace flanmoe::cuda

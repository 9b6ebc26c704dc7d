// Tensor cores, the loads that feed them, and copies that run beside the arithmetic: thin wrappers of PTX, each with a portable twin for the simulator.
//
// Fragments of m16n8k16 in bf16 with fp32 sums, g = lane / 4, c = lane % 4, two elements a register with the lower index in the low half:
//   A (16 x 16)  a[0]: row g,     columns 2c, 2c+1      a[1]: row g + 8, same columns      a[2], a[3]: the same rows, columns + 8
//   B (16 x 8)   b[0]: rows 2c, 2c+1 of column g        b[1]: rows + 8
//   D (16 x 8)   d[0], d[1]: row g, columns 2c, 2c+1    d[2], d[3]: row g + 8
// Source: PTX ISA, "Matrix fragments for mma.m16n8k16". All functions are called by whole warps, except for the copies.
#pragma once

#include "device.cuh"

#ifdef FLANMOE_CUDASIM
#include <cudasim/async_copies.hpp>
#endif

namespace flanmoe::cuda {

#ifdef FLANMOE_CUDASIM

// ---- portable twins ----

__device__ inline uint32_t pack_bf16(float low, float high) { return uint32_t{bf16(low).bits} | uint32_t{bf16(high).bits} << 16; }
__device__ inline float exp2_fast(float x) { return std::exp2(x); }

/// Sums run over k from 0 to 15, one product after the other.
__device__ inline void mma_16x8x16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    struct Fragments {
        uint32_t a[4], b[2];
        float d[4];
    };
    const Fragments mine{{a[0], a[1], a[2], a[3]}, {b[0], b[1]}, {d[0], d[1], d[2], d[3]}};
    std::array<float, 4> sums;
    cudasim::warp_compute(mine, sums, [](const Fragments* const(&in)[32], std::array<float, 4>* const(&out)[32]) {
        const auto half_word = [](uint32_t word, int high) { return std::bit_cast<float>((high ? word >> 16 : word & 0xffffu) << 16); };
        float left[16][16], right[8][16];  // rows of A, columns of B
        for (int l = 0; l < 32; ++l)
            for (int i = 0; i < 4; ++i)
                for (int high = 0; high < 2; ++high) {
                    const int k = l % 4 * 2 + high;
                    left[l / 4 + i % 2 * 8][k + i / 2 * 8] = half_word(in[l]->a[i], high);
                    if (i < 2) right[l / 4][k + i * 8] = half_word(in[l]->b[i], high);
                }
        for (int l = 0; l < 32; ++l)
            for (int i = 0; i < 4; ++i) {
                float sum = in[l]->d[i];
                for (int k = 0; k < 16; ++k) sum += left[l / 4 + i / 2 * 8][k] * right[l % 4 * 2 + i % 2][k];
                (*out[l])[static_cast<size_t>(i)] = sum;
            }
    });
    for (size_t i = 0; i < 4; ++i) d[i] = sums[i];
}

/// Rows of 16 bytes that lanes 8m to 8m + 7 point to are matrix m.
template <int matrices, bool transposed>
__device__ inline void load_matrices(uint32_t (&d)[matrices], const void* row) {
    struct Row {
        uint16_t element[8];
    };
    Row mine{};
    if (lane() < 8 * matrices) {
        cudasim::check_aligned(row, 16, "a row of ldmatrix");
        std::memcpy(&mine, row, sizeof mine);
    }
    const std::array<Row, 32> rows = cudasim::warp_exchange(mine);
    const size_t g = static_cast<size_t>(lane() / 4), c = static_cast<size_t>(lane() % 4 * 2);
    for (size_t m = 0; m < matrices; ++m) {
        const Row* matrix = rows.data() + 8 * m;
        const uint16_t low = transposed ? matrix[c].element[g] : matrix[g].element[c], high = transposed ? matrix[c + 1].element[g] : matrix[g].element[c + 1];
        d[m] = uint32_t{low} | uint32_t{high} << 16;
    }
}
__device__ inline void ldmatrix_x4(uint32_t (&d)[4], const void* row) { load_matrices<4, false>(d, row); }
__device__ inline void ldmatrix_x4_transposed(uint32_t (&d)[4], const void* row) { load_matrices<4, true>(d, row); }
__device__ inline void ldmatrix_x2(uint32_t (&d)[2], const void* row) { load_matrices<2, false>(d, row); }
__device__ inline void ldmatrix_x2_transposed(uint32_t (&d)[2], const void* row) { load_matrices<2, true>(d, row); }

__device__ inline void copy_async_part(void* shared, const void* global, int bytes) {
    cudasim::check_aligned(shared, 16, "the end of an asynchronous copy");
    if (bytes > 0) cudasim::check_aligned(global, 16, "the start of an asynchronous copy");
    cudasim::async_copy(shared, global, bytes);
}
__device__ inline void copy_async_commit() { cudasim::async_commit(); }
template <int pending>
__device__ inline void copy_async_wait() {
    cudasim::async_wait(pending);
}

#else

// ---- hardware ----

/// Two values, rounded to nearest even, in one register.
__device__ inline uint32_t pack_bf16(float low, float high) {
    uint32_t packed;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
}
/// 2^x to 2 units of the last place; 0 where the result would be subnormal.
__device__ inline float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/// d += a b.
__device__ inline void mma_16x8x16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ inline uint32_t shared_address(const void* pointer) { return static_cast<uint32_t>(__cvta_generic_to_shared(pointer)); }

/// 8 x 8 matrices of 16-bit elements from shared memory, in the layout of A and B fragments (row g, columns 2c and 2c + 1) or, transposed, (rows 2c and
/// 2c + 1, column g). Lane 8m + r points to the 16 bytes of row r of matrix m.
__device__ inline void ldmatrix_x4(uint32_t (&d)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];" : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3]) : "r"(shared_address(row)));
}
__device__ inline void ldmatrix_x4_transposed(uint32_t (&d)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
                 : "r"(shared_address(row)));
}
__device__ inline void ldmatrix_x2(uint32_t (&d)[2], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];" : "=r"(d[0]), "=r"(d[1]) : "r"(shared_address(row)));
}
__device__ inline void ldmatrix_x2_transposed(uint32_t (&d)[2], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];" : "=r"(d[0]), "=r"(d[1]) : "r"(shared_address(row)));
}

/// 16 bytes of shared memory: the first `bytes` (0 to 16) from global memory, beside what the thread does next, then zeros; no more than that is read. Seen by
/// this thread after copy_async_wait, by the block after a barrier behind that.
__device__ inline void copy_async_part(void* shared, const void* global, int bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(__cvta_generic_to_global(global)), "r"(bytes) : "memory");
}
/// Closes a group of copies.
__device__ inline void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/// Waits until at most `pending` of this thread's latest groups are under way.
template <int pending>
__device__ inline void copy_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

#endif

/// All 16 bytes, or zeros if not `valid`.
__device__ inline void copy_async_16(void* shared, const void* global, bool valid) { copy_async_part(shared, global, valid ? 16 : 0); }

}  // namespace flanmoe::cuda

// Small matrix products on packed operands, kept in registers: what attention is made of on the CPU.
//
//   C[m, n] (+)= A[m, k] B[k, n],  all three in scratch memory of the calling thread
//
// The unit of k is what one instruction multiplies: a float, a double, or, where the machine has bf16 units, a pair of bf16 (vdpbf16ps adds both
// products to a float). A is addressed by two strides, so that a transposed A needs no copy; B and C have rows of whole vectors. A block of C, 6 x 4
// vectors with 32 registers, stays in them over all of k; rows are shared out evenly over blocks. Without bf16 units, bf16 is widened to float when
// packed. Packing pads with zeros, so that the kernels know no remainders but rows.
//
// Measured 2026-11-23 on a 2-core AMD Zen 4 class machine (AVX-512 bf16), one core, 24 x 128 x 64: 220 GFLOP/s bf16, 114 f32, 57 f64, that is all
// the multiply-adds its units can issue; 16 x 16 x 32 in bf16: 205.
#pragma once

#include "core/tensor.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <utility>
#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

namespace flanmoe::cpu::packed {

#if defined(__AVX512F__)
constexpr int64_t vector_bytes = 64;
constexpr int block_vectors = 24, panel_vectors = 4;  ///< of a block of C, of its width: a block, a row of B and one of A fit in the registers
#elif defined(__AVX__)
constexpr int64_t vector_bytes = 32;
constexpr int block_vectors = 12, panel_vectors = 2;
#else
constexpr int64_t vector_bytes = 16;
constexpr int block_vectors = 12, panel_vectors = 2;
#endif

#if defined(__AVX512BF16__)
constexpr bool has_bf16_units = true;
#else
constexpr bool has_bf16_units = false;
#endif

/// Two bf16 that lie one after the other along k, the first in the low half.
struct Pair {
    uint32_t bits;
};

/// How values of storage type T are packed.
template <class T>
struct Format {
    using Sum = accumulate_t<T>;
    using Unit = std::conditional_t<std::is_same_v<T, bf16> && has_bf16_units, Pair, Sum>;
    static constexpr int64_t per_unit = std::is_same_v<Unit, Pair> ? 2 : 1;        ///< values of k in a unit
    static constexpr int64_t lanes = vector_bytes / static_cast<int64_t>(sizeof(Sum));  ///< columns of a vector
    static int64_t units(int64_t k) { return (k + per_unit - 1) / per_unit; }
    static int64_t padded(int64_t n) { return (n + lanes - 1) / lanes * lanes; }
};

template <class A>
struct VectorOf {
    typedef A type __attribute__((vector_size(vector_bytes)));
};
template <class A>
using Vector = typename VectorOf<A>::type;

template <class A>
inline Vector<A> load(const void* from) {
    Vector<A> v;
    std::memcpy(&v, from, sizeof v);
    return v;
}
template <class V>
inline void store(void* to, V v) {
    std::memcpy(to, &v, sizeof v);
}

/// sum + a * b over the values of one unit, a the same for all lanes.
template <class A>
inline Vector<A> multiply_add(Vector<A> sum, A a, Vector<A> b) {
    return sum + a * b;
}
/// The same for one number, rounded as the vectors' is: fused where the machine has the instruction, which the compiler then takes for them.
template <class A>
inline A multiply_add_one(A sum, A a, A b) {
#if defined(__FMA__)
    return std::fma(a, b, sum);
#else
    return sum + a * b;
#endif
}
#if defined(__AVX512BF16__)
inline Vector<float> multiply_add(Vector<float> sum, Pair a, Vector<float> b) {
    const __m512i pairs = _mm512_set1_epi32(static_cast<int>(a.bits));
    return reinterpret_cast<Vector<float>>(
        _mm512_dpbf16_ps(reinterpret_cast<__m512>(sum), reinterpret_cast<__m512bh>(pairs), reinterpret_cast<__m512bh>(b)));
}
#endif

template <class T>
struct Product {
    using Unit = typename Format<T>::Unit;
    using Sum = typename Format<T>::Sum;
    int64_t m = 0, n = 0, k = 0;  ///< n a multiple of lanes, k in units
    const Unit* a = nullptr;      ///< element (i, l) at a[i * a_row + l * a_step]
    int64_t a_row = 0, a_step = 1;
    const Unit* b = nullptr;  ///< [k, n] rows ldb units apart
    int64_t ldb = 0;
    Sum* c = nullptr;  ///< [m, n] rows ldc apart
    int64_t ldc = 0;
    bool accumulate = false;
};

/// One block of rows x vectors; first row i, first column j.
template <class T, int rows, int vectors>
void product_block(const Product<T>& p, int64_t i, int64_t j) {
    using Sum = typename Format<T>::Sum;
    constexpr int64_t lanes = Format<T>::lanes;
    Vector<Sum> sum[rows][vectors];
    Sum* c = p.c + i * p.ldc + j;
#pragma GCC unroll 16
    for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) sum[r][v] = p.accumulate ? load<Sum>(c + r * p.ldc + v * lanes) : Vector<Sum>{};
    const auto* a = p.a + i * p.a_row;
    const auto* b = p.b + j;
    for (int64_t l = 0; l < p.k; ++l, a += p.a_step, b += p.ldb) {
        Vector<Sum> row[vectors];
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) row[v] = load<Sum>(b + v * lanes);
#pragma GCC unroll 16
        for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
            for (int v = 0; v < vectors; ++v) sum[r][v] = multiply_add(sum[r][v], a[r * p.a_row], row[v]);
    }
#pragma GCC unroll 16
    for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) store(c + r * p.ldc + v * lanes, sum[r][v]);
}

/// All rows of `vectors` vectors of columns.
template <class T, int vectors>
void product_panel(const Product<T>& p, int64_t j) {
    constexpr int most = std::min(12, block_vectors / vectors);
    using Block = void (*)(const Product<T>&, int64_t, int64_t);
    static constexpr auto blocks = []<int... r>(std::integer_sequence<int, r...>) {
        return std::array<Block, most>{&product_block<T, r + 1, vectors>...};
    }(std::make_integer_sequence<int, most>());
    const int64_t count = (p.m + most - 1) / most;
    for (int64_t block = 0; block < count; ++block) {
        const int64_t begin = p.m * block / count, end = p.m * (block + 1) / count;
        blocks[static_cast<size_t>(end - begin - 1)](p, begin, j);
    }
}

template <class T>
void product(const Product<T>& p) {
    constexpr int64_t lanes = Format<T>::lanes;
    constexpr int64_t panel = panel_vectors * lanes;
    int64_t j = 0;
    for (; j + panel <= p.n; j += panel) product_panel<T, panel_vectors>(p, j);
    const int64_t rest = (p.n - j) / lanes;
    if (rest == 1) product_panel<T, 1>(p, j);
    if constexpr (panel_vectors > 2) {
        if (rest == 2) product_panel<T, 2>(p, j);
        if (rest == 3) product_panel<T, 3>(p, j);
    }
}

}  // namespace flanmoe::cpu::packed

// What kernels call, under CUDA's names. Float atomics are missing on purpose: their sums depend on the order of threads.
#pragma once

#include "cudasim/scheduler.hpp"

#include <array>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>
#include <type_traits>

#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) alignas(n)

constexpr int warpSize = 32;

inline void __syncthreads(cudasim::Site site = cudasim::Site::current()) { cudasim::barrier(cudasim::Barrier::plain, false, "__syncthreads", site); }
inline int __syncthreads_count(int predicate, cudasim::Site site = cudasim::Site::current()) {
    return cudasim::barrier(cudasim::Barrier::count, predicate != 0, "__syncthreads_count", site);
}
inline int __syncthreads_and(int predicate, cudasim::Site site = cudasim::Site::current()) {
    return cudasim::barrier(cudasim::Barrier::all, predicate != 0, "__syncthreads_and", site);
}
inline int __syncthreads_or(int predicate, cudasim::Site site = cudasim::Site::current()) {
    return cudasim::barrier(cudasim::Barrier::any, predicate != 0, "__syncthreads_or", site);
}

namespace cudasim {

/// What every lane of the warp holds; all 32 take part.
template <class T>
std::array<T, 32> warp_exchange(const T& mine, Site site = Site::current()) {
    std::array<T, 32> all;
    constexpr Complete complete = [](unsigned, const void* const(&in)[32], void* const(&out)[32]) {
        std::array<T, 32> values;
        for (int l = 0; l < 32; ++l) values[l] = *static_cast<const T*>(in[l]);
        for (void* o : out) *static_cast<std::array<T, 32>*>(o) = values;
    };
    warp_collective("warp_exchange", 0xffffffffu, &mine, &all, complete, site);
    return all;
}

/// `compute(in, out)` once for the whole warp, in[l] and out[l] being lane l's; all 32 take part. Cheaper than warp_exchange where lanes share work.
template <class In, class Out, class Compute>
void warp_compute(const In& in, Out& out, Compute, Site site = Site::current()) {
    static_assert(std::is_empty_v<Compute>, "a lambda without captures");
    constexpr Complete complete = [](unsigned, const void* const(&in)[32], void* const(&out)[32]) {
        const In* inputs[32];
        Out* outputs[32];
        for (int l = 0; l < 32; ++l) inputs[l] = static_cast<const In*>(in[l]), outputs[l] = static_cast<Out*>(out[l]);
        Compute{}(inputs, outputs);
    };
    warp_collective("warp_compute", 0xffffffffu, &in, &out, complete, site);
}

template <class T>
struct Shuffled {
    T value;
    unsigned source;
};
template <class T>
T shuffle(const char* name, unsigned mask, T value, unsigned source, const Site& site) {
    static_assert(std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8), "shuffles move 4 or 8 bytes");
    const Shuffled<T> in{value, source};
    T result{};
    constexpr Complete complete = [](unsigned mask, const void* const(&in)[32], void* const(&out)[32]) {
        for (unsigned l = 0; l < 32; ++l) {
            if (!(mask >> l & 1)) continue;
            const unsigned from = static_cast<const Shuffled<T>*>(in[l])->source;
            if (!(mask >> from & 1)) fail_thread("lane " + std::to_string(l) + " reads in a shuffle from lane " + std::to_string(from) + ", which the mask does not name");
            *static_cast<T*>(out[l]) = static_cast<const Shuffled<T>*>(in[from])->value;
        }
    };
    warp_collective(name, mask, &in, &result, complete, site);
    return result;
}

/// One result for all lanes, folded from their values in lane order.
template <class In, class Out, class Fold>
Out reduce(const char* name, unsigned mask, In value, Out start, Fold, const Site& site) {
    struct Pair {
        In value;
        Out start;
    };
    const Pair in{value, start};
    Out result{};
    constexpr Complete complete = [](unsigned mask, const void* const(&in)[32], void* const(&out)[32]) {
        Out folded = static_cast<const Pair*>(in[std::countr_zero(mask)])->start;
        for (unsigned l = 0; l < 32; ++l)
            if (mask >> l & 1) folded = Fold{}(folded, static_cast<const Pair*>(in[l])->value, l);
        for (unsigned l = 0; l < 32; ++l)
            if (mask >> l & 1) *static_cast<Out*>(out[l]) = folded;
    };
    warp_collective(name, mask, &in, &result, complete, site);
    return result;
}

template <class T, class Operation>
T atomic(T* address, Operation&& operation) {
    static_assert(std::is_integral_v<T>, "integer atomics only");
    check_aligned(address, sizeof(T), "an atomic");
    give_way();
    const T seen = operation(std::atomic_ref<T>(*address));
    after_atomic(address, static_cast<uint64_t>(seen));
    return seen;
}
template <class T, class Change>
T atomic_change(T* address, Change&& change) {
    return atomic(address, [&](std::atomic_ref<T> ref) {
        T before = ref.load();
        while (!ref.compare_exchange_weak(before, change(before))) {}
        return before;
    });
}

}  // namespace cudasim

inline void __syncwarp(unsigned mask = 0xffffffffu, cudasim::Site site = cudasim::Site::current()) {
    cudasim::warp_collective("__syncwarp", mask, nullptr, nullptr, [](unsigned, const void* const(&)[32], void* const(&)[32]) {}, site);
}
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, cudasim::Site site = cudasim::Site::current()) {
    const unsigned lane = cudasim::lane_index(), w = static_cast<unsigned>(width);
    return cudasim::shuffle("__shfl_sync", mask, value, (lane & ~(w - 1)) | (static_cast<unsigned>(source) & (w - 1)), site);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, cudasim::Site site = cudasim::Site::current()) {
    const unsigned lane = cudasim::lane_index(), source = lane ^ static_cast<unsigned>(lanes), w = static_cast<unsigned>(width);
    return cudasim::shuffle("__shfl_xor_sync", mask, value, source / w > lane / w ? lane : source, site);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, cudasim::Site site = cudasim::Site::current()) {
    const unsigned lane = cudasim::lane_index(), w = static_cast<unsigned>(width);
    return cudasim::shuffle("__shfl_down_sync", mask, value, (lane & (w - 1)) + delta < w ? lane + delta : lane, site);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, cudasim::Site site = cudasim::Site::current()) {
    const unsigned lane = cudasim::lane_index(), w = static_cast<unsigned>(width);
    return cudasim::shuffle("__shfl_up_sync", mask, value, (lane & (w - 1)) >= delta ? lane - delta : lane, site);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, cudasim::Site site = cudasim::Site::current()) {
    return cudasim::reduce("__ballot_sync", mask, predicate != 0, 0u, [](unsigned bits, bool p, unsigned lane) { return bits | unsigned{p} << lane; }, site);
}
inline int __all_sync(unsigned mask, int predicate, cudasim::Site site = cudasim::Site::current()) {
    return cudasim::reduce("__all_sync", mask, predicate != 0, 1, [](int all, bool p, unsigned) { return all & int{p}; }, site);
}
inline int __any_sync(unsigned mask, int predicate, cudasim::Site site = cudasim::Site::current()) {
    return cudasim::reduce("__any_sync", mask, predicate != 0, 0, [](int any, bool p, unsigned) { return any | int{p}; }, site);
}
template <class T>
unsigned __match_any_sync(unsigned mask, T value, cudasim::Site site = cudasim::Site::current()) {
    const T mine = value;
    unsigned same = 0;
    constexpr cudasim::Complete complete = [](unsigned mask, const void* const(&in)[32], void* const(&out)[32]) {
        for (unsigned l = 0; l < 32; ++l)
            for (unsigned other = 0; other < 32 && (mask >> l & 1); ++other)
                if ((mask >> other & 1) && *static_cast<const T*>(in[l]) == *static_cast<const T*>(in[other])) *static_cast<unsigned*>(out[l]) |= 1u << other;
    };
    cudasim::warp_collective("__match_any_sync", mask, &mine, &same, complete, site);
    return same;
}
template <class T>
T __reduce_add_sync(unsigned mask, T value, cudasim::Site site = cudasim::Site::current()) {
    return cudasim::reduce("__reduce_add_sync", mask, value, T{0}, [](T sum, T v, unsigned) { return sum + v; }, site);
}
template <class T>
T __reduce_max_sync(unsigned mask, T value, cudasim::Site site = cudasim::Site::current()) {
    return cudasim::reduce("__reduce_max_sync", mask, value, value, [](T best, T v, unsigned) { return best > v ? best : v; }, site);
}
template <class T>
T __reduce_min_sync(unsigned mask, T value, cudasim::Site site = cudasim::Site::current()) {
    return cudasim::reduce("__reduce_min_sync", mask, value, value, [](T best, T v, unsigned) { return best < v ? best : v; }, site);
}

// Atomics return what was there before.
template <class T>
T atomicAdd(T* address, std::type_identity_t<T> value) { return cudasim::atomic(address, [&](std::atomic_ref<T> ref) { return ref.fetch_add(value); }); }
template <class T>
T atomicSub(T* address, std::type_identity_t<T> value) { return cudasim::atomic(address, [&](std::atomic_ref<T> ref) { return ref.fetch_sub(value); }); }
template <class T>
T atomicOr(T* address, std::type_identity_t<T> value) { return cudasim::atomic(address, [&](std::atomic_ref<T> ref) { return ref.fetch_or(value); }); }
template <class T>
T atomicAnd(T* address, std::type_identity_t<T> value) { return cudasim::atomic(address, [&](std::atomic_ref<T> ref) { return ref.fetch_and(value); }); }
template <class T>
T atomicExch(T* address, std::type_identity_t<T> value) { return cudasim::atomic(address, [&](std::atomic_ref<T> ref) { return ref.exchange(value); }); }
template <class T>
T atomicMax(T* address, std::type_identity_t<T> value) { return cudasim::atomic_change(address, [&](T before) { return before > value ? before : value; }); }
template <class T>
T atomicMin(T* address, std::type_identity_t<T> value) { return cudasim::atomic_change(address, [&](T before) { return before < value ? before : value; }); }
template <class T>
T atomicCAS(T* address, std::type_identity_t<T> compare, std::type_identity_t<T> value) {
    return cudasim::atomic(address, [&](std::atomic_ref<T> ref) {
        T expected = compare;
        ref.compare_exchange_strong(expected, value);
        return expected;
    });
}
/// Counts up to `bound` and starts again at 0: the ticket of the block that arrives last.
inline unsigned atomicInc(unsigned* address, unsigned bound) {
    return cudasim::atomic_change(address, [&](unsigned before) { return before >= bound ? 0u : before + 1; });
}

inline void __threadfence() { std::atomic_thread_fence(std::memory_order_seq_cst); }
inline void __threadfence_block() { std::atomic_thread_fence(std::memory_order_seq_cst); }
inline void __nanosleep(unsigned) { cudasim::after_atomic(nullptr, 0); }
[[noreturn]] inline void __trap() { cudasim::fail_thread("the kernel stopped itself (__trap)"); }

template <class T>
T __ldg(const T* address) { return *address; }
template <class T>
T __ldcs(const T* address) { return *address; }
template <class T>
void __stcs(T* address, std::type_identity_t<T> value) { *address = value; }

// Arithmetic. The approximate functions are the exact ones here: tests must not rely on their errors.
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __log2f(float x) { return std::log2(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float x) { return 1 / x; }
inline float __fsqrt_rn(float x) { return std::sqrt(x); }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { volatile float product = a * b; return product; }  // not to be contracted
inline float rsqrtf(float x) { return 1 / std::sqrt(x); }
inline double rsqrt(double x) { return 1 / std::sqrt(x); }
inline float __saturatef(float x) { return x > 0 ? (x < 1 ? x : 1) : 0; }
inline int __popc(unsigned x) { return std::popcount(x); }
inline int __popcll(unsigned long long x) { return std::popcount(x); }
inline int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
inline int __ffs(int x) { return x ? std::countr_zero(static_cast<unsigned>(x)) + 1 : 0; }
inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>(static_cast<uint64_t>(a) * b >> 32); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
template <class T>
constexpr T min(T a, std::type_identity_t<T> b) { return b < a ? b : a; }
template <class T>
constexpr T max(T a, std::type_identity_t<T> b) { return a < b ? b : a; }

#define CUDASIM_VECTORS(scalar, name, size)                                                     \
    struct alignas(2 * size) name##2 { scalar x, y; };                                          \
    struct name##3 { scalar x, y, z; };                                                         \
    struct alignas(size == 8 ? 16 : 4 * size) name##4 { scalar x, y, z, w; };                   \
    inline name##2 make_##name##2(scalar x, scalar y) { return {x, y}; }                        \
    inline name##4 make_##name##4(scalar x, scalar y, scalar z, scalar w) { return {x, y, z, w}; }
CUDASIM_VECTORS(float, float, 4)
CUDASIM_VECTORS(int, int, 4)
CUDASIM_VECTORS(double, double, 8)
#undef CUDASIM_VECTORS
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

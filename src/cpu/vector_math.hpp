// Mathematical functions that the compiler vectorises, and the conversions and row sums that softmaxes are made of.
//
// The float exponential reduces x = n ln 2 + r, |r| <= ln(2)/2 (ln 2 in two parts, the first short enough that n times it is exact), evaluates
// 1 + r + r^2 q(r) with a Chebyshev fit q of degree 4 (error 8e-9) and multiplies by 2^n: at most 1 unit in the last place over the whole range,
// subnormal results included; -infinity gives 0, NaN stays NaN. No branches, no calls, so a plain loop over it becomes vector code. The double
// forms are the standard library's: they serve the double instantiation of operations, the oracle.
#pragma once

#include "core/tensor.hpp"

#include <bit>
#include <cmath>
#include <cstdint>

namespace flanmoe::cpu {

inline float fast_exp(float x) {
    constexpr float lowest = -104.0f, highest = 89.0f;  // beyond: 0 and infinity
    constexpr float shifter = 0x1.8p23f;                // adding it rounds to an integer, which then is in the low bits
    x = lowest > x ? lowest : x;                        // these forms keep NaN
    x = highest < x ? highest : x;
    const float shifted = x * 1.44269504f + shifter;
    const int32_t n = std::bit_cast<int32_t>(shifted) - std::bit_cast<int32_t>(shifter);
    const float whole = shifted - shifter;
    const float r = (x - whole * 0.693359375f) - whole * -2.12194440e-4f;
    const float q = (((0.0013926926614f * r + 0.00836377387441f) * r + 0.0416665501103f) * r + 0.166665733819f) * r + 0.5f;
    const float p = (q * r) * r + r + 1.0f;
    // 2^n in two factors, each a normal number, for n from -150 to 128.
    const int32_t half = n >> 1;
    return p * std::bit_cast<float>((half + 127) << 23) * std::bit_cast<float>((n - half + 127) << 23);
}
inline double fast_exp(double x) { return std::exp(x); }

/// 1 / (1 + exp(-x)), to a few units in the last place.
template <class T>
inline T fast_sigmoid(T x) {
    return T(1) / (T(1) + fast_exp(-x));
}

/// At most 3 units in the last place: an odd polynomial (Chebyshev fit, error 6e-10) below 0.625, 1 - 2 / (exp(2 |x|) + 1) above.
inline float fast_tanh(float x) {
    const float magnitude = std::abs(x), y = x * x;
    float p = 0.00229274481618f * y - 0.00834394551584f;
    p = ((p * y + 0.021768918651f) * y - 0.0539592595772f) * y + 0.133333035569f;
    const float small = x + x * y * (p * y - 0.333333331721f);
    const float large = std::copysign(1.0f - 2.0f / (fast_exp(2.0f * magnitude) + 1.0f), x);
    return magnitude < 0.625f ? small : large;
}
inline double fast_tanh(double x) { return std::tanh(x); }

/// to[i] = from[i]: widening of stored values to the type sums are in.
template <class T>
inline void load_row(const T* from, accumulate_t<T>* to, int64_t n) {
    for (int64_t i = 0; i < n; ++i) to[i] = static_cast<accumulate_t<T>>(from[i]);
}
/// to[i] = from[i], rounded to the storage type.
template <class T>
inline void store_row(const accumulate_t<T>* from, T* to, int64_t n) {
    for (int64_t i = 0; i < n; ++i) to[i] = static_cast<T>(from[i]);
}

/// to[i] += from[i], in the type sums are in.
template <class T>
inline void add_row(const T* from, accumulate_t<T>* to, int64_t n) {
    for (int64_t i = 0; i < n; ++i) to[i] += static_cast<accumulate_t<T>>(from[i]);
}
/// Row r of a tensor whose elements are of type T.
template <class T>
inline T* row_of(const Tensor& tensor, int64_t r) {
    return static_cast<T*>(tensor.data) + r * tensor.ld;
}

/// Largest element of a row; -infinity for an empty one. NaN is passed over: it shows in the sum of exponentials.
template <class T>
inline T row_max(const T* x, int64_t n) {
    T largest = -INFINITY;
#pragma omp simd reduction(max : largest)
    for (int64_t i = 0; i < n; ++i) largest = x[i] > largest ? x[i] : largest;
    return largest;
}

/// y[i] = exp(x[i] - shift); the sum of them. y may be x. Fixed order of sums for one instruction set.
template <class T>
inline T row_exp_sum(const T* x, T shift, T* y, int64_t n) {
    T sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; ++i) {
        const T e = fast_exp(x[i] - shift);
        y[i] = e;
        sum += e;
    }
    return sum;
}

}  // namespace flanmoe::cpu

// One matrix product on the calling thread or on all threads: the CPU's engine under matmul, grouped_matmul, attention and the output layer.
//
//   C[m, n] = op(A) op(B)  (+ C if accumulate)
//
// float and bf16 go to oneDNN (AVX-512 bf16 or AMX where the machine has them); double to a small blocked kernel of our own, whose results do not depend
// on the number of threads. Called inside a parallel region it stays on its thread; outside it uses all. Safe to call from many threads at once.
// The same call gives the same bits every time (for one number of threads and one instruction set).
#pragma once

#include "core/tensor.hpp"

namespace flanmoe::cpu {

struct Gemm {
    int64_t m = 0, n = 0, k = 0;
    const void* a = nullptr;  ///< [m, k] with leading dimension lda, or [k, m] if transpose_a
    const void* b = nullptr;  ///< [k, n], or [n, k] if transpose_b
    void* c = nullptr;        ///< [m, n]
    int64_t lda = 0, ldb = 0, ldc = 0;
    bool transpose_a = false, transpose_b = false;
    bool accumulate = false;
    DType in = DType::f32;   ///< f32, bf16 or f64
    DType out = DType::f32;  ///< = in; or f32 for bf16 inputs
    bool any_shape = false;  ///< bf16: the shape will hardly come again (rows per expert): use the kernel that needs no preparation per shape
};
void gemm(const Gemm& product);

}  // namespace flanmoe::cpu

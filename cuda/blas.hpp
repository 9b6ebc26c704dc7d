// cuBLASLt, found when first needed: the program starts on machines that have no CUDA libraries.
#pragma once

#include "core/tensor.hpp"

#include <cuda_runtime.h>

#include <memory>

namespace flanmoe::cuda {

/// out = op(a) op(b) (+ out if accumulate, + bias in every row), row-major, op = identity or transpose; m, n, k >= 1. f32 without TF32; bf16 operands are
/// summed in f32, and the bias is added before the one rounding.
struct Product {
    int64_t m, n, k;
    const void *a, *b;
    void* out;
    const void* bias;  ///< [n] of out's type; null = none
    int64_t lda, ldb, ld_out;
    bool transpose_a, transpose_b, accumulate;
    DType in, out_type;
};

class Engine;

class Blas {
public:
    Blas();  ///< fails with Exit::hardware if the library cannot be loaded
    ~Blas();
    /// Queues it. What the library advises for a shape is asked for once.
    void multiply(const Product& product, const Engine& engine);

private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace flanmoe::cuda

// Plans of matrix products: one serves later products of its kind, none an operand that lies less well than it was made for.
#include "cudasim/kernels.hpp"

#include "cuda/blas.hpp"
#include "cuda/engine.hpp"

#include <cublasLt.h>

#include <doctest/doctest.h>

using namespace cudasim::test;

namespace {

// c [2, 3] = a [2, 4] b [4, 3] of ones, `a` beginning so many elements behind a border of 256 bytes.
bool multiplies(flanmoe::cuda::Engine& engine, int64_t offset, bool accumulate) {
    const Memory<float> a(64, 1.0f), b(12, 1.0f), c(6, 10.0f);
    engine.blas().multiply({.m = 2, .n = 3, .k = 4, .a = a + offset, .b = b, .out = c, .lda = 4, .ldb = 3, .ld_out = 3, .accumulate = accumulate}, engine);
    engine.synchronize();
    return c.values() == std::vector<float>(6, accumulate ? 14.0f : 4.0f);
}

}  // namespace

TEST_SUITE("cudasim/blas") {
    TEST_CASE("operands of every alignment, in any order, with and without addition") {
        flanmoe::cuda::Engine engine;
        for (int64_t offset : {0, 1, 2, 4, 0, 3}) {
            CHECK(multiplies(engine, offset, false));
            CHECK(multiplies(engine, offset, true));
        }
    }

    TEST_CASE("products of one kind with different biases, and without") {
        flanmoe::cuda::Engine engine;
        const Memory<float> a(8, 1.0f), b(12, 1.0f), c(6), first(3, 1.0f), second(3, 2.0f);
        for (const auto& [bias, expected] : {std::pair<const float*, float>{first, 5.0f}, {second, 6.0f}, {nullptr, 4.0f}, {first, 5.0f}}) {
            engine.blas().multiply({.m = 2, .n = 3, .k = 4, .a = a, .b = b, .out = c, .bias = bias, .lda = 4, .ldb = 3, .ld_out = 3}, engine);
            engine.synchronize();
            CHECK(c.values() == std::vector<float>(6, expected));
        }
    }

    TEST_CASE("the stand-in refuses an operand that lies less well than its algorithm was chosen for, and shapes that do not fit") {
        const Memory<float> a(64), b(64), c(64);
        cublasLtMatmulDesc_t operation;
        cublasLtMatrixLayout_t square, wide;
        cublasLtMatmulDescCreate(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F);
        cublasLtMatrixLayoutCreate(&square, CUDA_R_32F, 4, 4, 4), cublasLtMatrixLayoutCreate(&wide, CUDA_R_32F, 4, 5, 4);
        const float one = 1, zero = 0;
        const cublasLtMatmulAlgo_t aligned{{16, 16, 16, 16}};
        const auto status = [&](const float* left, cublasLtMatrixLayout_t left_layout) {
            return cublasLtMatmul(nullptr, operation, &one, left, left_layout, b, square, &zero, c, square, c, square, &aligned, nullptr, 0, nullptr);
        };
        CHECK(status(a, square) == CUBLAS_STATUS_SUCCESS);
        CHECK(status(a + 1, square) == CUBLAS_STATUS_NOT_SUPPORTED);
        CHECK(status(a, wide) == CUBLAS_STATUS_INVALID_VALUE);
        cublasLtMatmulDescDestroy(operation), cublasLtMatrixLayoutDestroy(square), cublasLtMatrixLayoutDestroy(wide);
    }
}

// Tensor-core wrappers and warp products (cuda/mma.cuh, cuda/tile_product.cuh) against plain products in double.
#include "../../cuda/launch.hpp"
#include "../../cuda/tile_product.cuh"
#include "ops/check.hpp"

#include <doctest/doctest.h>

using namespace flanmoe;
using namespace flanmoe::cuda;
using namespace flanmoe::test;

namespace {

constexpr int threads = 64, warp_rows = 32;  // two warps of two blocks of 16 rows

/// out = A B^T for 64 rows of A and 32 of B, both [.., size]; then product = (A B^T) C with C [32, size].
template <class T, int width, bool kept>
__global__ void products(const T* a, const T* b, const T* c, int64_t ld, int size, bool aligned, float* out, T* product) {
    constexpr int stride = row_stride<T>(width), staging = staging_floats<T>(2, 4);
    Shared shared;
    T *a_tile = shared.take<T>(64 * stride), *b_tile = shared.take<T>(32 * stride), *c_tile = shared.take<T>(32 * stride);
    float* exchange = shared.take<float>(2 * staging);
    load_tile<T, width, 64, threads>(a_tile, a, ld, 60, size, aligned);
    load_tile<T, width, 32, threads>(b_tile, b, ld, 32, size, aligned);
    load_tile<T, width, 32, threads>(c_tile, c, ld, 32, size, aligned);
    copy_async_commit();
    copy_async_wait<0>();
    __syncthreads();
    RowOperand<T, width, 2, kept> rows;
    rows.set(a_tile + warp() * warp_rows * stride);
    Sums<2, 4> sums;
    clear<2, 4>(sums);
    add_product_transposed<width, 2, 4>(sums, rows, b_tile);
    for_fragment<2, 4>([&](int m, int n, int e) {
        out[(warp() * warp_rows + 16 * m + fragment_row() + e / 2 * 8) * 32 + 8 * n + fragment_column() + e % 2] = sums[m][n][e];
        sums[m][n][e] = to_float(from_float<T>(sums[m][n][e]));
    });
    Sums<2, width / 8> second;
    clear<2, width / 8>(second);
    add_product<width, 2, 4>(second, sums, c_tile, exchange + warp() * staging);
    const float factor[2][2] = {{1, 2}, {1, 2}};
    store_tile<T, width, 2>(product + warp() * warp_rows * ld, ld, 60 - warp() * warp_rows, size, aligned, second, factor, a_tile + warp() * warp_rows * stride);
}

template <class T, int width, bool kept>
void check_products(int64_t size, int64_t padding) {
    CAPTURE(width);
    CAPTURE(size);
    TestContext context;
    if (context.device != Device::cuda) return;
    const DType type = dtype_of<T>;
    const Tensor a = random(context, type, {60, size}, 1, 1, padding), b = random(context, type, {32, size}, 2, 1, padding), c = random(context, type, {32, size}, 3, 1, padding);
    const Tensor out = context.allocate(DType::f32, {64, 32}), product = make(context, type, {60, size}, padding);
    const size_t bytes = shared_bytes<T>(64 * row_stride<T>(width)) + 2 * shared_bytes<T>(32 * row_stride<T>(width)) + shared_bytes<float>(2 * staging_floats<T>(2, 4));
    launch(context, "products", products<T, width, kept>, 1, threads, bytes, a.as<T>(), b.as<T>(), c.as<T>(), a.ld, static_cast<int>(size), padding % 8 == 0, out.as<float>(),
           product.as<T>());
    context.engine->synchronize();
    const Tensor first = context.allocate(DType::f64, {60, 32}), second = context.allocate(DType::f64, {60, size});
    for (int64_t i = 0; i < 60; ++i) {
        for (int64_t j = 0; j < 32; ++j) {
            double sum = 0;
            for (int64_t k = 0; k < size; ++k) sum += get(a, i, k) * get(b, j, k);
            set(first, i, j, sum);
        }
        for (int64_t k = 0; k < size; ++k) {
            double sum = 0;
            for (int64_t j = 0; j < 32; ++j) sum += static_cast<double>(static_cast<float>(static_cast<T>(get(out, i, j)))) * get(c, j, k);
            set(second, i, k, i % 16 < 8 ? sum : 2 * sum);
        }
    }
    compare("product A B^T", out.slice_rows(0, 60), first, DType::f32, Kind::matmul);
    compare("product P B", product, second, type, Kind::matmul);
}

}  // namespace

TEST_SUITE("cudasim/mma") {
    TEST_CASE("warp products agree with plain ones, whole heads and parts, aligned and not") {
        check_products<bf16, 32, true>(32, 8);
        check_products<bf16, 64, false>(64, 8);
        check_products<bf16, 64, true>(40, 16);
        check_products<bf16, 96, false>(83, 3);
        check_products<bf16, 128, true>(128, 1);
        check_products<float, 32, false>(32, 8);
        check_products<float, 64, false>(37, 2);
        check_products<float, 128, false>(128, 8);
    }
}

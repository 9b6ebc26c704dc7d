#include <cublasLt.h>

#include "core/tensor.hpp"
#include "cudasim/runtime_state.hpp"

#include <algorithm>
#include <cstring>
#include <map>
#include <vector>

struct cublasLtContext {};
struct cublasLtMatmulDescOpaque_t {
    cublasOperation_t transpose[2] = {CUBLAS_OP_N, CUBLAS_OP_N};
    cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    const void* bias = nullptr;
};
struct cublasLtMatrixLayoutOpaque_t {
    cudaDataType_t type;
    int64_t rows, cols, ld;
};
struct cublasLtMatmulPreferenceOpaque_t {
    uint32_t alignments[4] = {1, 1, 1, 1};
};

namespace {

using Layout = cublasLtMatrixLayoutOpaque_t;

float get(const void* data, cudaDataType_t type, int64_t i) {
    return type == CUDA_R_32F ? static_cast<const float*>(data)[i] : static_cast<float>(static_cast<const flanmoe::bf16*>(data)[i]);
}

// The transpose of op(matrix), row by row.
std::vector<float> gather(const void* data, const Layout& layout, bool transposed) {
    const int64_t outer = transposed ? layout.rows : layout.cols, inner = transposed ? layout.cols : layout.rows;
    std::vector<float> values(static_cast<size_t>(outer * inner));
    for (int64_t o = 0; o < outer; ++o)
        for (int64_t i = 0; i < inner; ++i) values[static_cast<size_t>(o * inner + i)] = get(data, layout.type, transposed ? o + i * layout.ld : i + o * layout.ld);
    return values;
}

struct Task {
    const void *a, *b, *c, *bias;  // bias: one a row of d, or null
    void* d;
    Layout la, lb, ld;
    bool ta, tb;
    float alpha, beta;
};

void multiply(const Task& t) {
    const int64_t m = t.ld.rows, n = t.ld.cols, k = t.ta ? t.la.rows : t.la.cols;
    const std::vector<float> a = gather(t.a, t.la, t.ta), b = gather(t.b, t.lb, t.tb);  // op(a)^T [k, m], op(b)^T [n, k]
    std::vector<float> sums(static_cast<size_t>(m));
    for (int64_t j = 0; j < n; ++j) {
        std::fill(sums.begin(), sums.end(), 0.0f);
        int64_t p = 0;
        for (; p + 4 <= k; p += 4) {  // four at a time, in the same order: a sum is loaded and stored once for them
            const float *const factor = b.data() + j * k + p, *const column = a.data() + p * m;
            for (int64_t i = 0; i < m; ++i) {
                float sum = sums[static_cast<size_t>(i)];
                for (int64_t q = 0; q < 4; ++q) sum += factor[q] * column[q * m + i];
                sums[static_cast<size_t>(i)] = sum;
            }
        }
        for (; p < k; ++p)
            for (int64_t i = 0; i < m; ++i) sums[static_cast<size_t>(i)] += b[static_cast<size_t>(j * k + p)] * a[static_cast<size_t>(p * m + i)];
        for (int64_t i = 0; i < m; ++i) {
            const int64_t at = i + j * t.ld.ld;
            const float value = t.alpha * sums[static_cast<size_t>(i)] + (t.beta == 0 ? 0 : t.beta * get(t.c, t.ld.type, at)) + (t.bias ? get(t.bias, t.ld.type, i) : 0);
            if (t.ld.type == CUDA_R_32F) {
                static_cast<float*>(t.d)[at] = value;
            } else {
                static_cast<flanmoe::bf16*>(t.d)[at] = flanmoe::bf16(value);
            }
        }
    }
}

bool aligned(const void* data, const Layout& layout, uint32_t alignment) {
    const int64_t size = layout.type == CUDA_R_32F ? 4 : 2;
    return reinterpret_cast<uintptr_t>(data) % alignment == 0 && (layout.cols <= 1 || layout.ld * size % alignment == 0);
}

}  // namespace

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) { return *handle = new cublasLtContext, CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) { return delete handle, CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* operation, cublasComputeType_t compute, cudaDataType_t scale) {
    if (compute != CUBLAS_COMPUTE_32F || scale != CUDA_R_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
    return *operation = new cublasLtMatmulDescOpaque_t, CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t operation, cublasLtMatmulDescAttributes_t attribute, const void* value, size_t bytes) {
    const auto take = [&](auto& member) {
        if (bytes != sizeof member) return CUBLAS_STATUS_INVALID_VALUE;
        std::memcpy(&member, value, bytes);
        return CUBLAS_STATUS_SUCCESS;
    };
    switch (attribute) {
        case CUBLASLT_MATMUL_DESC_EPILOGUE: return take(operation->epilogue);
        case CUBLASLT_MATMUL_DESC_BIAS_POINTER: return take(operation->bias);
        default: return take(operation->transpose[attribute == CUBLASLT_MATMUL_DESC_TRANSB]);
    }
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t operation) { return delete operation, CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType_t type, uint64_t rows, uint64_t cols, int64_t ld) {
    if (rows == 0 || cols == 0 || ld < static_cast<int64_t>(rows)) return CUBLAS_STATUS_INVALID_VALUE;
    return *layout = new Layout{type, static_cast<int64_t>(rows), static_cast<int64_t>(cols), ld}, CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) { return delete layout, CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
    return *preference = new cublasLtMatmulPreferenceOpaque_t, CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t attribute, const void* value, size_t bytes) {
    if (attribute == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES) return bytes == 8 ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
    if (bytes != 4) return CUBLAS_STATUS_INVALID_VALUE;
    std::memcpy(&preference->alignments[attribute - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES], value, bytes);
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) { return delete preference, CUBLAS_STATUS_SUCCESS; }

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t, cublasLtMatrixLayout_t, cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
                                              cublasLtMatrixLayout_t, cublasLtMatmulPreference_t preference, int, cublasLtMatmulHeuristicResult_t results[], int* found) {
    results[0] = {};
    std::copy_n(preference->alignments, 4, results[0].algo.alignments);
    *found = 1;
    return CUBLAS_STATUS_SUCCESS;
}

// Refuses what the library would: shapes that do not fit, and operands less aligned than the algorithm was chosen for.
cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t operation, const void* alpha, const void* a, cublasLtMatrixLayout_t a_layout, const void* b,
                              cublasLtMatrixLayout_t b_layout, const void* beta, const void* c, cublasLtMatrixLayout_t c_layout, void* d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t* algorithm, void*, size_t, cudaStream_t stream) {
    const bool with_bias = operation->epilogue == CUBLASLT_EPILOGUE_BIAS;
    if (with_bias && !operation->bias) return CUBLAS_STATUS_INVALID_VALUE;
    const Task t{a, b, c, with_bias ? operation->bias : nullptr, d, *a_layout, *b_layout, *d_layout, operation->transpose[0] == CUBLAS_OP_T, operation->transpose[1] == CUBLAS_OP_T,
                 *static_cast<const float*>(alpha), *static_cast<const float*>(beta)};
    const int64_t m = t.ta ? t.la.cols : t.la.rows, k = t.ta ? t.la.rows : t.la.cols, k_of_b = t.tb ? t.lb.cols : t.lb.rows, n = t.tb ? t.lb.rows : t.lb.cols;
    if (m != t.ld.rows || n != t.ld.cols || k != k_of_b || c_layout != d_layout || t.la.type != t.lb.type) return CUBLAS_STATUS_INVALID_VALUE;
    const uint32_t* const alignments = algorithm->alignments;
    if (!aligned(a, t.la, alignments[0]) || !aligned(b, t.lb, alignments[1]) || !aligned(d, t.ld, alignments[3])) return CUBLAS_STATUS_NOT_SUPPORTED;
    const std::lock_guard lock(cudasim::mutex());
    if (!cudasim::capturing(stream)) ++cudasim::count().launches;
    cudasim::queue_work(stream, [t] { multiply(t); });
    return CUBLAS_STATUS_SUCCESS;
}

namespace cudasim {

void* library_symbol(const char* name) {
#define CUDASIM_SYMBOL(function) {#function, reinterpret_cast<void*>(&function)}
    static const std::map<std::string, void*> symbols = {
        CUDASIM_SYMBOL(cublasLtCreate), CUDASIM_SYMBOL(cublasLtDestroy), CUDASIM_SYMBOL(cublasLtMatmul), CUDASIM_SYMBOL(cublasLtMatmulAlgoGetHeuristic),
        CUDASIM_SYMBOL(cublasLtMatmulDescCreate), CUDASIM_SYMBOL(cublasLtMatmulDescSetAttribute), CUDASIM_SYMBOL(cublasLtMatmulDescDestroy),
        CUDASIM_SYMBOL(cublasLtMatrixLayoutCreate), CUDASIM_SYMBOL(cublasLtMatrixLayoutDestroy), CUDASIM_SYMBOL(cublasLtMatmulPreferenceCreate),
        CUDASIM_SYMBOL(cublasLtMatmulPreferenceSetAttribute), CUDASIM_SYMBOL(cublasLtMatmulPreferenceDestroy)};
#undef CUDASIM_SYMBOL
    const auto found = symbols.find(name);
    return found == symbols.end() ? nullptr : found->second;
}

}  // namespace cudasim

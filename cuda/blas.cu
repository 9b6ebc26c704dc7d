#include "blas.hpp"

#include "engine.hpp"
#include "library.hpp"

#include <cublasLt.h>

#include <algorithm>
#include <array>
#include <map>

namespace flanmoe::cuda {

namespace {

constexpr size_t workspace_bytes = size_t{32} << 20;  ///< what cuBLAS itself takes by default on Hopper

void* symbol(const char* name) {
#ifdef FLANMOE_CUDASIM
    return cudasim::library_symbol(name);
#else
    static const Library library(fmt::format("libcublasLt.so.{}", CUBLAS_VER_MAJOR));
    return library.symbol(name);
#endif
}

void check_blas(cublasStatus_t status, const char* step, const Engine* engine = nullptr) {
    if (status == CUBLAS_STATUS_SUCCESS) return;
    const std::string what = step + (engine ? engine->where() : "");
    if (status == CUBLAS_STATUS_ALLOC_FAILED) fail(Exit::out_of_memory, "out of GPU memory at {}; reduce the micro-batch or the sequence length", what);
    fail(Exit::internal, "cuBLASLt failed at {} with status {}", what, static_cast<int>(status));
}

/// Greatest power of two up to 64 at which a matrix's rows all begin: as much as the arena promises, so that the same product of another step, at another address,
/// is the same plan.
uint32_t alignment_of(const void* data, int64_t ld, DType type) {
    const uint64_t bits = reinterpret_cast<uintptr_t>(data) | static_cast<uint64_t>(ld * size_of(type)) | 64;
    return static_cast<uint32_t>(bits & (~bits + 1));
}

cudaDataType_t cuda_type(DType type) { return type == DType::bf16 ? CUDA_R_16BF : CUDA_R_32F; }

// The library's functions that we call, under their own names.
struct Functions {
    template <class F>
    static void find(F*& function, const char* name) {
        function = reinterpret_cast<F*>(symbol(name));
    }
    Functions() {
        find(create, "cublasLtCreate"), find(destroy, "cublasLtDestroy"), find(matmul, "cublasLtMatmul");
        find(advise, "cublasLtMatmulAlgoGetHeuristic"), find(create_operation, "cublasLtMatmulDescCreate");
        find(set_operation, "cublasLtMatmulDescSetAttribute"), find(destroy_operation, "cublasLtMatmulDescDestroy");
        find(create_layout, "cublasLtMatrixLayoutCreate"), find(destroy_layout, "cublasLtMatrixLayoutDestroy");
        find(create_preference, "cublasLtMatmulPreferenceCreate"), find(set_preference, "cublasLtMatmulPreferenceSetAttribute");
        find(destroy_preference, "cublasLtMatmulPreferenceDestroy");
    }
    decltype(::cublasLtCreate)* create;
    decltype(::cublasLtDestroy)* destroy;
    decltype(::cublasLtMatmul)* matmul;
    decltype(::cublasLtMatmulAlgoGetHeuristic)* advise;
    decltype(::cublasLtMatmulDescCreate)* create_operation;
    decltype(::cublasLtMatmulDescSetAttribute)* set_operation;
    decltype(::cublasLtMatmulDescDestroy)* destroy_operation;
    decltype(::cublasLtMatrixLayoutCreate)* create_layout;
    decltype(::cublasLtMatrixLayoutDestroy)* destroy_layout;
    decltype(::cublasLtMatmulPreferenceCreate)* create_preference;
    decltype(::cublasLtMatmulPreferenceSetAttribute)* set_preference;
    decltype(::cublasLtMatmulPreferenceDestroy)* destroy_preference;
};

struct Plan {
    cublasLtMatmulDesc_t operation = nullptr;
    cublasLtMatrixLayout_t left = nullptr, right = nullptr, out = nullptr;
    cublasLtMatmulAlgo_t algorithm{};
};

}  // namespace

struct Blas::State {
    Functions library;
    cublasLtHandle_t handle = nullptr;
    void* workspace = nullptr;
    std::map<std::array<int64_t, 11>, Plan> plans;  // by shape, strides, kinds and alignments (0: no bias)

    Plan& plan_for(const Product& p);
    void set_bias(const Plan& plan, const Product& p);
    void choose_algorithm(Plan& plan, const Product& p);
};

// The library is column-major, where our row-major matrices are their own transposes: out^T [n, m] = op(b)^T op(a)^T, so b is its left operand.
Plan& Blas::State::plan_for(const Product& p) {
    const uint32_t align_a = alignment_of(p.a, p.lda, p.in), align_b = alignment_of(p.b, p.ldb, p.in), align_out = alignment_of(p.out, p.ld_out, p.out_type);
    const uint32_t align_bias = p.bias ? alignment_of(p.bias, 0, p.out_type) : 0;
    const int64_t kinds = p.transpose_a | p.transpose_b << 1 | static_cast<int>(p.in) << 2 | static_cast<int>(p.out_type) << 5;
    const std::array<int64_t, 11> key{p.m, p.n, p.k, p.lda, p.ldb, p.ld_out, kinds, align_a, align_b, align_out, align_bias};
    if (const auto known = plans.find(key); known != plans.end()) return known->second;
    Plan plan;  // kept when it is complete
    check_blas(library.create_operation(&plan.operation, CUBLAS_COMPUTE_32F, CUDA_R_32F), "planning a matrix product");
    const cublasOperation_t op_left = p.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N, op_right = p.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    check_blas(library.set_operation(plan.operation, CUBLASLT_MATMUL_DESC_TRANSA, &op_left, sizeof op_left), "planning a matrix product");
    check_blas(library.set_operation(plan.operation, CUBLASLT_MATMUL_DESC_TRANSB, &op_right, sizeof op_right), "planning a matrix product");
    if (p.bias) {  // one for each of our columns, which are the library's rows
        const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
        check_blas(library.set_operation(plan.operation, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue), "planning a matrix product");
        set_bias(plan, p);  // its alignment counts for the choice of the algorithm
    }
    const auto layout = [&](cublasLtMatrixLayout_t& made, DType type, int64_t stored_rows, int64_t stored_cols, int64_t ld) {
        check_blas(library.create_layout(&made, cuda_type(type), static_cast<uint64_t>(stored_cols), static_cast<uint64_t>(stored_rows), ld), "planning a matrix product");
    };
    layout(plan.left, p.in, p.transpose_b ? p.n : p.k, p.transpose_b ? p.k : p.n, p.ldb);
    layout(plan.right, p.in, p.transpose_a ? p.k : p.m, p.transpose_a ? p.m : p.k, p.lda);
    layout(plan.out, p.out_type, p.m, p.n, p.ld_out);
    choose_algorithm(plan, p);
    return plans.emplace(key, plan).first->second;
}

void Blas::State::set_bias(const Plan& plan, const Product& p) {
    check_blas(library.set_operation(plan.operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &p.bias, sizeof p.bias), "planning a matrix product");
}

void Blas::State::choose_algorithm(Plan& plan, const Product& p) {
    cublasLtMatmulPreference_t preference = nullptr;
    check_blas(library.create_preference(&preference), "planning a matrix product");
    const uint64_t workspace_limit = workspace_bytes;
    const uint32_t align_a = alignment_of(p.a, p.lda, p.in), align_b = alignment_of(p.b, p.ldb, p.in), align_out = alignment_of(p.out, p.ld_out, p.out_type);
    const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
        check_blas(library.set_preference(preference, attribute, &value, sizeof value), "planning a matrix product");
    };
    prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace_limit);
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, align_b);
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, align_a);
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, align_out);
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, align_out);
    cublasLtMatmulHeuristicResult_t result{};
    int found = 0;
    const cublasStatus_t status =
        library.advise(handle, plan.operation, plan.left, plan.right, plan.out, plan.out, preference, 1, &result, &found);
    library.destroy_preference(preference);
    if (status != CUBLAS_STATUS_SUCCESS || found == 0)
        fail(Exit::internal, "cuBLASLt has no way to multiply {} x {} by {} x {} of type {} (status {})", p.m, p.k, p.k, p.n, name_of(p.in), static_cast<int>(status));
    plan.algorithm = result.algo;
}

Blas::Blas() : state_(std::make_unique<State>()) {
    check_blas(state_->library.create(&state_->handle), "starting cuBLASLt");
    check(cudaMalloc(&state_->workspace, workspace_bytes), "allocating the workspace of matrix products");
}

Blas::~Blas() {
    for (auto& [key, plan] : state_->plans) {
        if (plan.operation) state_->library.destroy_operation(plan.operation);
        for (const cublasLtMatrixLayout_t layout : {plan.left, plan.right, plan.out})
            if (layout) state_->library.destroy_layout(layout);
    }
    cudaFree(state_->workspace);
    state_->library.destroy(state_->handle);
}

void Blas::multiply(const Product& p, const Engine& engine) {
    const Plan& plan = state_->plan_for(p);
    if (p.bias) state_->set_bias(plan, p);
    const float alpha = 1, beta = p.accumulate ? 1 : 0;
    check_blas(state_->library.matmul(state_->handle, plan.operation, &alpha, p.b, plan.left, p.a, plan.right, &beta, p.out, plan.out, p.out, plan.out,
                                      &plan.algorithm, state_->workspace, workspace_bytes, engine.stream()),
               "a matrix product", &engine);
}

}  // namespace flanmoe::cuda

// Matrix products, see gemm.hpp.
//
// float: oneDNN's sgemm, which needs no preparation. bf16: a oneDNN matmul primitive per shape (0.2 to 0.4 ms to create, then cached in each thread, with
// its memory objects, so that a call costs half a microsecond more than its work), or, where shapes hardly come again and where it is faster (products
// with a transposed left operand that end in float: weight gradients), one primitive for all shapes with sizes and strides given at run time.
// double: panels of both operands are packed, a tile of 6 x 16 sums stays in registers; every element is summed in the order of k.
#include "cpu/gemm.hpp"

#include "core/parallel.hpp"

#include <oneapi/dnnl/dnnl.h>
#include <oneapi/dnnl/dnnl.hpp>

#include <cstring>
#include <unordered_map>

namespace flanmoe::cpu {

namespace {

dnnl::engine& engine() {
    static auto* instance = new dnnl::engine(dnnl::engine::kind::cpu, 0);  // outlives every thread's cache
    return *instance;
}

struct Key {
    int64_t m = 0, n = 0, k = 0, lda = 0, ldb = 0, ldc = 0;
    int threads = 1;
    bool transpose_a = false, transpose_b = false, accumulate = false;
    DType out = DType::f32;
    bool operator==(const Key&) const = default;
};
struct KeyHash {
    size_t operator()(const Key& key) const {
        uint64_t h = static_cast<uint64_t>(key.threads) << 8 | static_cast<uint64_t>(key.out) << 4 | key.transpose_a << 2 | key.transpose_b << 1 | key.accumulate;
        for (int64_t v : {key.m, key.n, key.k, key.lda, key.ldb, key.ldc}) h = (h ^ static_cast<uint64_t>(v)) * 0x9E3779B97F4A7C15u, h ^= h >> 32;
        return h;
    }
};

dnnl::memory::data_type onednn_type(DType type) { return type == DType::bf16 ? dnnl::memory::data_type::bf16 : dnnl::memory::data_type::f32; }

dnnl::memory::desc matrix(int64_t rows, int64_t cols, int64_t ld, bool transposed, DType type) {
    const dnnl::memory::dims strides = transposed ? dnnl::memory::dims{1, ld} : dnnl::memory::dims{ld, 1};
    return {{rows, cols}, onednn_type(type), strides};
}

struct Descriptions {
    dnnl::memory::desc a, b, c;
    explicit Descriptions(const Gemm& g)
        : a(matrix(g.m, g.k, g.lda, g.transpose_a, g.in)), b(matrix(g.k, g.n, g.ldb, g.transpose_b, g.in)), c(matrix(g.m, g.n, g.ldc, false, g.out)) {}
};

// A primitive with the memory objects that its calls re-use (null for the primitives of any shape).
struct Prepared {
    dnnl::matmul primitive;
    dnnl::memory a, b, c, scratch;
};

class Bf16Products {
public:
    void run(const Gemm& g) {
        const bool any_shape = g.any_shape || (g.transpose_a && g.out == DType::f32);
        const int threads = omp_in_parallel() ? 1 : omp_get_max_threads();
        const Key key = any_shape ? Key{0, 0, 0, 0, 0, 0, threads, g.transpose_a, g.transpose_b, g.accumulate, g.out}
                                  : Key{g.m, g.n, g.k, g.lda, g.ldb, g.ldc, threads, g.transpose_a, g.transpose_b, g.accumulate, g.out};
        auto found = cache_.find(key);
        if (found == cache_.end()) found = cache_.emplace(key, prepare(g, any_shape, threads)).first;
        Prepared& p = found->second;
        if (any_shape) {
            const Descriptions d(g);
            p.a = dnnl::memory(d.a, engine(), const_cast<void*>(g.a));
            p.b = dnnl::memory(d.b, engine(), const_cast<void*>(g.b));
            p.c = dnnl::memory(d.c, engine(), g.c);
        } else {
            dnnl_memory_set_data_handle(p.a.get(), const_cast<void*>(g.a));
            dnnl_memory_set_data_handle(p.b.get(), const_cast<void*>(g.b));
            dnnl_memory_set_data_handle(p.c.get(), g.c);
        }
        const auto address = (reinterpret_cast<uintptr_t>(scratch_.data()) + 63) / 64 * 64;
        dnnl_memory_set_data_handle(p.scratch.get(), reinterpret_cast<void*>(address));
        const dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC, p.a.get()}, {DNNL_ARG_WEIGHTS, p.b.get()}, {DNNL_ARG_DST, p.c.get()}, {DNNL_ARG_SCRATCHPAD, p.scratch.get()}};
        const dnnl_status_t status = dnnl_primitive_execute(p.primitive.get(), stream_.get(), 4, args);
        require(status == dnnl_success, "oneDNN to run a matrix product");
    }

private:
    Prepared prepare(const Gemm& g, bool any_shape, int threads) {
        Gemm shape = g;
        if (any_shape) shape.m = shape.n = shape.k = shape.lda = shape.ldb = shape.ldc = DNNL_RUNTIME_DIM_VAL;
        const Descriptions d(shape);
        dnnl::primitive_attr attributes;
        attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);  // so that threads can run one primitive at the same time
        if (g.accumulate) {
            dnnl::post_ops sum;
            sum.append_sum(1.0f);
            attributes.set_post_ops(sum);
        }
        // A primitive is planned for the number of threads that OpenMP would use now; inside a parallel region that is one.
        const int before = omp_get_max_threads();
        omp_set_num_threads(threads);
        Prepared p;
        try {
            const dnnl::matmul::primitive_desc plan({d.a, d.b, d.c}, attributes, engine());
            p.primitive = dnnl::matmul(plan);
            p.scratch = dnnl::memory(plan.scratchpad_desc(), engine(), DNNL_MEMORY_NONE);
        } catch (const dnnl::error& error) {
            omp_set_num_threads(before);
            fail(Exit::hardware, "this processor's matrix products have no bf16 ({}); use --set train.dtype=f32 on machines without AVX-512", error.message);
        }
        omp_set_num_threads(before);
        scratch_.resize(std::max(scratch_.size(), p.scratch.get_desc().get_size() + 64));
        if (!any_shape) {
            p.a = dnnl::memory(d.a, engine(), DNNL_MEMORY_NONE);
            p.b = dnnl::memory(d.b, engine(), DNNL_MEMORY_NONE);
            p.c = dnnl::memory(d.c, engine(), DNNL_MEMORY_NONE);
        }
        return p;
    }

    std::unordered_map<Key, Prepared, KeyHash> cache_;
    std::vector<char> scratch_;  // large enough for every primitive of the cache
    dnnl::stream stream_{engine()};
};

void float_product(const Gemm& g) {
    const dnnl_status_t status = dnnl_sgemm(g.transpose_a ? 'T' : 'N', g.transpose_b ? 'T' : 'N', g.m, g.n, g.k, 1.0f, static_cast<const float*>(g.a), g.lda,
                                            static_cast<const float*>(g.b), g.ldb, g.accumulate ? 1.0f : 0.0f, static_cast<float*>(g.c), g.ldc);
    require(status == dnnl_success, "oneDNN to run a matrix product");
}

// Double: tile of sums, depth of a panel, columns packed at a time.
constexpr int64_t tile_rows = 6, tile_cols = 16, panel_depth = 256, panel_cols = 256;

// sums[i][j] = sum over p of a[p][i] * b[p][j] of packed panels.
void tile_product(int64_t depth, const double* __restrict a, const double* __restrict b, double* __restrict sums) {
    double s[tile_rows][tile_cols] = {};
    for (int64_t p = 0; p < depth; ++p)
        for (int64_t i = 0; i < tile_rows; ++i)
#pragma omp simd
            for (int64_t j = 0; j < tile_cols; ++j) s[i][j] += a[p * tile_rows + i] * b[p * tile_cols + j];
    std::memcpy(sums, s, sizeof(s));
}

// Packs [depth, count] with the given strides into panels of `width` columns, [count / width][depth][width]; columns beyond count are zero.
void pack(const double* from, int64_t depth_stride, int64_t stride, int64_t depth, int64_t count, int64_t width, double* to) {
    for (int64_t first = 0; first < count; first += width)
        for (int64_t p = 0; p < depth; ++p)
            for (int64_t j = 0; j < width; ++j) *to++ = first + j < count ? from[p * depth_stride + (first + j) * stride] : 0.0;
}

// Rows [begin, end) of a product in double.
void double_rows(const Gemm& g, int64_t begin, int64_t end) {
    thread_local std::vector<double> a_panel(tile_rows * panel_depth), b_panels(panel_depth * panel_cols);
    const auto* a = static_cast<const double*>(g.a);
    const auto* b = static_cast<const double*>(g.b);
    auto* c = static_cast<double*>(g.c);
    const int64_t a_row = g.transpose_a ? 1 : g.lda, a_depth = g.transpose_a ? g.lda : 1;
    const int64_t b_depth = g.transpose_b ? 1 : g.ldb, b_col = g.transpose_b ? g.ldb : 1;
    double sums[tile_rows * tile_cols];
    for (int64_t jc = 0; jc < g.n; jc += panel_cols) {
        const int64_t cols = std::min(panel_cols, g.n - jc);
        for (int64_t pc = 0; pc < g.k; pc += panel_depth) {
            const int64_t depth = std::min(panel_depth, g.k - pc);
            const bool add = g.accumulate || pc > 0;
            pack(b + pc * b_depth + jc * b_col, b_depth, b_col, depth, cols, tile_cols, b_panels.data());
            for (int64_t i = begin; i < end; i += tile_rows) {
                const int64_t rows = std::min(tile_rows, end - i);
                pack(a + i * a_row + pc * a_depth, a_depth, a_row, depth, rows, tile_rows, a_panel.data());
                for (int64_t j = 0; j < cols; j += tile_cols) {
                    tile_product(depth, a_panel.data(), b_panels.data() + j * depth, sums);
                    for (int64_t r = 0; r < rows; ++r) {
                        double* row = c + (i + r) * g.ldc + jc + j;
                        for (int64_t q = 0; q < std::min(tile_cols, cols - j); ++q) row[q] = (add ? row[q] : 0.0) + sums[r * tile_cols + q];
                    }
                }
            }
        }
    }
}

void set_to_zero(const Gemm& g) {
    for (int64_t r = 0; r < g.m; ++r) std::memset(static_cast<char*>(g.c) + r * g.ldc * size_of(g.out), 0, static_cast<size_t>(g.n * size_of(g.out)));
}

}  // namespace

void gemm(const Gemm& g) {
    if (g.m == 0 || g.n == 0) return;
    if (g.k == 0) {
        if (!g.accumulate) set_to_zero(g);
        return;
    }
    if (g.in == DType::f64) {
        parallel_for((g.m + tile_rows - 1) / tile_rows, 1 + 200000 / (tile_rows * g.n * g.k),
                     [&](int64_t begin, int64_t end) { double_rows(g, begin * tile_rows, std::min(end * tile_rows, g.m)); });
    } else if (g.in == DType::bf16) {
        thread_local Bf16Products products;
        products.run(g);
    } else {
        float_product(g);
    }
}

}  // namespace flanmoe::cpu

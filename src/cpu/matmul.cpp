// Matrix products on the CPU: dense ones are one gemm; grouped ones are cut into pieces of equal work, one a thread.
//
// A grouped product is a line of rows; each thread takes one contiguous run of it, and a run is cut where the expert changes: single-thread products
// that need no balance among experts. The weight product is a line too: expert e covers rows_e * m units on it, and a cut inside an expert divides the rows of
// its result. So nothing depends on scheduling, and no sum is divided among threads.
#include "ops/matmul.hpp"

#include "core/parallel.hpp"
#include "cpu/gemm.hpp"
#include "cpu/vector_math.hpp"
#include "ops/run.hpp"

#include <cstring>

namespace flanmoe::cpu {

namespace {

char* at(const Tensor& tensor, int64_t element) { return static_cast<char*>(tensor.data) + element * size_of(tensor.dtype); }

// Smallest number of multiplications worth a thread.
constexpr int64_t smallest_piece = int64_t{1} << 18;

void add_bias(const Tensor& out, const Tensor& bias) {
    constexpr int64_t elements_per_thread = 8192;
    const int64_t cols = out.cols();
    ops::with_type(out.dtype, [&]<class T>() {
        using A = accumulate_t<T>;
        parallel_for(out.rows(), std::max<int64_t>(1, elements_per_thread / cols), [&](int64_t begin, int64_t end) {
            const T* add = bias.as<T>();
            for (int64_t r = begin; r < end; ++r) {
                T* row = row_of<T>(out, r);
#pragma GCC ivdep
                for (int64_t c = 0; c < cols; ++c) row[c] = static_cast<T>(static_cast<A>(row[c]) + static_cast<A>(add[c]));
            }
        });
    });
}

}  // namespace

void matmul(Context&, const ops::MatmulArgs& args) {
    gemm({.m = args.out.rows(),
          .n = args.out.cols(),
          .k = args.transpose_a ? args.a.rows() : args.a.cols(),
          .a = args.a.data,
          .b = args.b.data,
          .c = args.out.data,
          .lda = args.a.ld,
          .ldb = args.b.ld,
          .ldc = args.out.ld,
          .transpose_a = args.transpose_a,
          .transpose_b = args.transpose_b,
          .accumulate = args.accumulate,
          .in = args.a.dtype,
          .out = args.out.dtype});
    if (args.bias.data) add_bias(args.out, args.bias);
}

void grouped_matmul(Context& context, const ops::GroupedMatmulArgs& args) {
    const int32_t* offsets = args.offsets.as<int32_t>();
    const int64_t experts = args.offsets.elements() - 1, n = args.out.cols(), k = args.a.cols(), start = offsets[0], rows = offsets[experts] - start;
    require(start + rows <= args.a.rows(), "offsets within the rows");
    context.flops += 2.0 * static_cast<double>(rows) * static_cast<double>(n * k);
    parallel_for(rows, std::max<int64_t>(8, smallest_piece / std::max<int64_t>(n * k, 1)), [&](int64_t begin, int64_t end) {
        for (int64_t e = 0; e < experts; ++e) {
            const int64_t first = std::max<int64_t>(start + begin, offsets[e]), last = std::min<int64_t>(start + end, offsets[e + 1]);
            if (first >= last) continue;
            gemm({.m = last - first,
                  .n = n,
                  .k = k,
                  .a = at(args.a, first * args.a.ld),
                  .b = at(args.b, e * args.b_stride),
                  .c = at(args.out, first * args.out.ld),
                  .lda = args.a.ld,
                  .ldb = args.b.ld,
                  .ldc = args.out.ld,
                  .transpose_b = args.transpose_b,
                  .in = args.a.dtype,
                  .out = args.out.dtype,
                  .any_shape = true});
        }
    });
}

void grouped_matmul_weight(Context& context, const ops::GroupedMatmulWeightArgs& args) {
    const int32_t* offsets = args.offsets.as<int32_t>();
    const int64_t experts = args.offsets.elements() - 1, m = args.out.rows(), n = args.out.cols(), rows = offsets[experts] - offsets[0];
    require(offsets[experts] <= args.a.rows(), "offsets within the rows");
    context.flops += 2.0 * static_cast<double>(rows) * static_cast<double>(m * n);
    const auto product = [&](int64_t e, int64_t first, int64_t last) {
        gemm({.m = last - first,
              .n = n,
              .k = offsets[e + 1] - offsets[e],
              .a = at(args.a, offsets[e] * args.a.ld + first),
              .b = at(args.b, offsets[e] * args.b.ld),
              .c = at(args.out, e * args.out_stride + first * args.out.ld),
              .lda = args.a.ld,
              .ldb = args.b.ld,
              .ldc = args.out.ld,
              .transpose_a = true,
              .accumulate = args.accumulate,
              .in = args.a.dtype,
              .out = args.out.dtype,
              .any_shape = true});
    };
    // Experts without rows are not on the line.
    if (!args.accumulate)
        parallel_for(experts, 1, [&](int64_t begin, int64_t end) {
            for (int64_t e = begin; e < end; ++e)
                if (offsets[e] == offsets[e + 1]) product(e, 0, m);
        });
    constexpr int64_t step = 16;  // rows of a result are cut at its multiples
    parallel_for(rows * m, smallest_piece / std::max<int64_t>(n, 1) + 1, [&](int64_t begin, int64_t end) {
        for (int64_t e = 0; e < experts; ++e) {
            const int64_t count = offsets[e + 1] - offsets[e], start = (offsets[e] - offsets[0]) * m;
            if (count == 0) continue;
            // The cut at unit p lies before row `row_of(p)` of this expert's result, for both threads that share it.
            const auto row_of = [&](int64_t p) { return p >= start + count * m ? m : p <= start ? 0 : std::min(m, (p - start) / count / step * step); };
            const int64_t first = row_of(begin), last = row_of(end);
            if (first < last) product(e, first, last);
        }
    });
}

}  // namespace flanmoe::cpu

// Multiplicative bias of experts: every expert's rows in pieces of columns, so that the vector and its gradient stay in the first-level cache and every sum
// runs over the rows in their order, whatever the number of threads.
#include "ops/expert_scale.hpp"

#include "core/parallel.hpp"
#include "cpu/vector_math.hpp"
#include "ops/run.hpp"

#include <algorithm>

namespace flanmoe::cpu {

namespace {

constexpr int64_t piece = 256;

/// Calls body(expert, first row, last row, first column, columns) for all pieces of all experts that have rows.
template <class Body>
void for_pieces(const Tensor& offsets, int64_t rows, int64_t cols, Body&& body) {
    const int32_t* bounds = offsets.as<int32_t>();
    const int64_t experts = offsets.elements() - 1, pieces = (cols + piece - 1) / piece;
    require(bounds[0] >= 0 && bounds[experts] <= rows, "expert offsets within the rows");
    parallel_for(experts * pieces, 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            const int64_t e = i / pieces, column = i % pieces * piece;
            if (bounds[e] < bounds[e + 1]) body(e, bounds[e], bounds[e + 1], column, std::min(piece, cols - column));
        }
    });
}

template <class T>
void forward(const ops::ExpertScaleArgs& args) {
    using A = accumulate_t<T>;
    for_pieces(args.offsets, args.in.rows(), args.in.cols(), [&](int64_t e, int64_t first, int64_t last, int64_t column, int64_t n) {
        alignas(64) A scale[piece], x[piece];
        load_row(args.scale.as<T>() + e * args.scale_stride + column, scale, n);
        for (int64_t r = first; r < last; ++r) {
            load_row(row_of<const T>(args.in, r) + column, x, n);
            for (int64_t i = 0; i < n; ++i) x[i] *= scale[i];
            store_row(x, row_of<T>(args.out, r) + column, n);
        }
    });
}

template <class T>
void backward(const ops::ExpertScaleBackwardArgs& args) {
    using A = accumulate_t<T>;
    for_pieces(args.offsets, args.in.rows(), args.in.cols(), [&](int64_t e, int64_t first, int64_t last, int64_t column, int64_t n) {
        alignas(64) A scale[piece], x[piece], d[piece], sum[piece] = {};
        load_row(args.scale.as<T>() + e * args.scale_stride + column, scale, n);
        for (int64_t r = first; r < last; ++r) {
            load_row(row_of<const T>(args.in, r) + column, x, n);
            load_row(row_of<const T>(args.d_out, r) + column, d, n);
            for (int64_t i = 0; i < n; ++i) {
                sum[i] += d[i] * x[i];
                d[i] *= scale[i];
            }
            store_row(d, row_of<T>(args.d_in, r) + column, n);
        }
        A* d_scale = args.d_scale.as<A>() + e * args.scale_stride + column;
        for (int64_t i = 0; i < n; ++i) d_scale[i] += sum[i];
    });
}

}  // namespace

void expert_scale(Context&, const ops::ExpertScaleArgs& args) {
    ops::with_type(args.in.dtype, [&]<class T>() { forward<T>(args); });
}

void expert_scale_backward(Context&, const ops::ExpertScaleBackwardArgs& args) {
    ops::with_type(args.in.dtype, [&]<class T>() { backward<T>(args); });
}

}  // namespace flanmoe::cpu

// Moving rows between token order and expert order: a warp for every row that is written, its lanes take pieces of eight elements.
//
// Rows that are read may come from anywhere, but each is read whole, so all of it runs at the speed of memory. A token's rows are summed in the order of the
// table by the warp that owns the token; a dot product by the lanes that hold the row, then by the fixed tree of warp_sum. How many rows are in use is read on the
// device; warps beyond end at once.
//
// Bytes for R rows of D bf16 elements (N tokens): gather 4 R D, its backward and combine 2 R D + 2 N D, combine_backward 6 R D. At 64 Ki rows of 768: gather
// 201 MB, 0.07 ms at 2.7 TB/s; combine_backward 0.11 ms. Not yet measured on hardware. At
// most 44 registers, no shared memory.
#include "ops/dispatch.hpp"

#include "launch.hpp"
#include "row_piece.cuh"

namespace flanmoe::cuda {

namespace {

/// What the kernels read of the tables.
struct Tables {
    const int32_t *rows_used, *row_token, *token_offsets, *token_rows;
};
Tables tables_of(const ops::RowTables& tables) {
    return {tables.offsets.as<int32_t>() + tables.offsets.elements() - 1, tables.row_token.as<int32_t>(), tables.token_offsets.as<int32_t>(), tables.token_rows.as<int32_t>()};
}

template <class T, bool aligned>
__global__ void __launch_bounds__(32 * row_warps) gather_kernel(Tables tables, Rows<T> in, Rows<T> out, int64_t width) {
    constexpr int n = aligned ? 16 / static_cast<int>(sizeof(T)) : 1;
    const int64_t r = own_row();
    if (r >= *tables.rows_used) return;
    const T* from = in.row(tables.row_token[r]);
    T* to = out.row(r);
#pragma unroll 4
    for (int64_t c = lane() * n; c < width; c += 32 * n) {
        if (c + n <= width) store_vec(to + c, load_vec<n>(from + c));
        else
            for (int64_t i = c; i < width; ++i) to[i] = from[i];
    }
}

/// out[t] = sum over the rows r of token t of gate[r] * in[r]; without gates, of in[r].
template <class T, bool aligned>
__global__ void __launch_bounds__(32 * row_warps) sum_kernel(Tables tables, Rows<T> in, const float* gate, Rows<T> out, int64_t tokens, int64_t width) {
    const int64_t t = own_row();
    if (t >= tokens) return;
    const int32_t begin = tables.token_offsets[t], end = tables.token_offsets[t + 1];
    T* to = out.row(t);
    for (int64_t c = lane() * row_piece; c < width; c += 32 * row_piece) {
        const int count = piece_length(width, c);
        float sum[row_piece] = {};
        for (int32_t i = begin; i < end; ++i) {
            const int32_t r = tables.token_rows[i];
            const float weight = gate ? gate[r] : 1.0f;
            float piece[row_piece];
            load_piece<aligned>(in.row(r) + c, count, piece);
            for (int j = 0; j < row_piece; ++j) sum[j] += weight * piece[j];
        }
        store_piece<aligned>(to + c, count, sum);
    }
}

template <class T, bool aligned>
__global__ void __launch_bounds__(32 * row_warps) combine_backward_kernel(Tables tables, Rows<T> in, const float* gate, Rows<T> d_out, Rows<T> d_in, float* d_gate, int64_t width) {
    const int64_t r = own_row();
    if (r >= *tables.rows_used) return;
    const float dot = weigh_row<aligned>(in.row(r), d_out.row(tables.row_token[r]), gate[r], d_in.row(r), width);
    if (lane() == 0) d_gate[r] = dot;
}

/// Calls body.operator()<T, aligned>() with the element type and whether all rows are aligned to 16 bytes.
template <class Body>
void with_rows(DType type, std::initializer_list<Tensor> rows, Body&& body) {
    bool aligned = true;
    for (const Tensor& tensor : rows) aligned &= has_aligned_rows(tensor);
    with_storage(type, [&]<class T>() { aligned ? body.template operator()<T, true>() : body.template operator()<T, false>(); });
}

void sum_rows(Context& context, const char* name, const ops::RowTables& tables, const Tensor& in, const float* gate, const Tensor& out) {
    with_rows(out.dtype, {in, out}, [&]<class T, bool aligned>() {
        launch(context, name, sum_kernel<T, aligned>, blocks_for(out.rows(), row_warps), 32 * row_warps, 0, tables_of(tables), rows_of<T>(in), gate, rows_of<T>(out), out.rows(), out.cols());
    });
}

}  // namespace

void gather_rows(Context& context, const ops::GatherRowsArgs& args) {
    with_rows(args.in.dtype, {args.in, args.out}, [&]<class T, bool aligned>() {
        launch(context, "gather rows", gather_kernel<T, aligned>, blocks_for(args.tables.row_token.elements(), row_warps), 32 * row_warps, 0, tables_of(args.tables), rows_of<T>(args.in),
               rows_of<T>(args.out), args.in.cols());
    });
}

void gather_rows_backward(Context& context, const ops::GatherRowsBackwardArgs& args) {
    sum_rows(context, "gather rows backward", args.tables, args.d_out, nullptr, args.d_in);
}

void combine(Context& context, const ops::CombineArgs& args) { sum_rows(context, "combine", args.tables, args.in, args.gate.as<float>(), args.out); }

void combine_backward(Context& context, const ops::CombineBackwardArgs& args) {
    with_rows(args.d_out.dtype, {args.in, args.d_out, args.d_in}, [&]<class T, bool aligned>() {
        launch(context, "combine backward", combine_backward_kernel<T, aligned>, blocks_for(args.tables.row_token.elements(), row_warps), 32 * row_warps, 0, tables_of(args.tables),
               rows_of<T>(args.in), static_cast<const float*>(args.gate.as<float>()), rows_of<T>(args.d_out), rows_of<T>(args.d_in), args.d_gate.as<float>(), args.d_out.cols());
    });
}

}  // namespace flanmoe::cuda

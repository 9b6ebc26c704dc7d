// Moving rows between token order and expert order on the CPU. Every output row belongs to one thread and is summed in the order of the tables, so the
// bits do not depend on the number of threads. All of it is bound by memory.
#include "ops/dispatch.hpp"

#include "core/parallel.hpp"
#include "ops/run.hpp"

#include <cstring>

namespace flanmoe::cpu {

namespace {

constexpr int64_t piece = 256;  // columns summed at a time: stays in the first-level cache

/// Rows worth a thread: about 64 KB.
int64_t grain_of(const Tensor& rows) { return std::max<int64_t>(1, (int64_t{64} << 10) / std::max<int64_t>(1, rows.cols() * size_of(rows.dtype))); }

int64_t rows_used(const ops::RowTables& tables) { return tables.offsets.as<int32_t>()[tables.offsets.elements() - 1]; }

/// out[n] = sum over the rows r of token n of weight(r) * in[r].
template <class T, class Weight>
void sum_rows(const ops::RowTables& tables, const Tensor& in, const Tensor& out, Weight&& weight) {
    using A = accumulate_t<T>;
    const int32_t *begins = tables.token_offsets.as<int32_t>(), *token_rows = tables.token_rows.as<int32_t>();
    const int64_t width = out.cols();
    parallel_for(out.rows(), grain_of(out), [&](int64_t begin, int64_t end) {
        A sum[piece];
        for (int64_t n = begin; n < end; ++n) {
            T* to = out.as<T>() + n * out.ld;
            for (int64_t c = 0; c < width; c += piece) {
                const int64_t count = std::min(piece, width - c);
                std::fill_n(sum, count, A{0});
                for (int32_t i = begins[n]; i < begins[n + 1]; ++i) {
                    const T* from = in.as<T>() + token_rows[i] * in.ld + c;
                    const A w = weight(token_rows[i]);
                    for (int64_t j = 0; j < count; ++j) sum[j] += w * static_cast<A>(from[j]);
                }
                for (int64_t j = 0; j < count; ++j) to[c + j] = static_cast<T>(sum[j]);
            }
        }
    });
}

/// d_in = gate * d_out, and the dot product in . d_out. `in` and `d_in` may be the same row.
template <class T, class A>
A scale_and_dot(const T* in, const T* d_out, A gate, T* d_in, int64_t width) {
    constexpr int lanes = 16;
    A sum[lanes] = {};
    int64_t c = 0;
    for (; c + lanes <= width; c += lanes) {
        A g[lanes];
        for (int j = 0; j < lanes; ++j) g[j] = static_cast<A>(d_out[c + j]);
        for (int j = 0; j < lanes; ++j) sum[j] += static_cast<A>(in[c + j]) * g[j];
        for (int j = 0; j < lanes; ++j) d_in[c + j] = static_cast<T>(gate * g[j]);
    }
    for (; c < width; ++c) {
        const A g = static_cast<A>(d_out[c]);
        sum[0] += static_cast<A>(in[c]) * g;
        d_in[c] = static_cast<T>(gate * g);
    }
    for (int step = lanes / 2; step > 0; step /= 2)
        for (int j = 0; j < step; ++j) sum[j] += sum[j + step];
    return sum[0];
}

}  // namespace

void gather_rows(Context&, const ops::GatherRowsArgs& args) {
    const int32_t* row_token = args.tables.row_token.as<int32_t>();
    const int64_t size = size_of(args.in.dtype), width = args.in.cols() * size;
    const char* in = static_cast<const char*>(args.in.data);
    char* out = static_cast<char*>(args.out.data);
    parallel_for(rows_used(args.tables), grain_of(args.out), [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r) std::memcpy(out + r * args.out.ld * size, in + row_token[r] * args.in.ld * size, static_cast<size_t>(width));
    });
}

void gather_rows_backward(Context&, const ops::GatherRowsBackwardArgs& args) {
    ops::with_type(args.d_in.dtype, [&]<class T>() { sum_rows<T>(args.tables, args.d_out, args.d_in, [](int32_t) { return accumulate_t<T>{1}; }); });
}

void combine(Context&, const ops::CombineArgs& args) {
    ops::with_type(args.out.dtype, [&]<class T>() {
        const accumulate_t<T>* gate = args.gate.as<accumulate_t<T>>();
        sum_rows<T>(args.tables, args.in, args.out, [=](int32_t row) { return gate[row]; });
    });
}

void combine_backward(Context&, const ops::CombineBackwardArgs& args) {
    ops::with_type(args.d_out.dtype, [&]<class T>() {
        using A = accumulate_t<T>;
        const int32_t* row_token = args.tables.row_token.as<int32_t>();
        const A* gate = args.gate.as<A>();
        A* d_gate = args.d_gate.as<A>();
        parallel_for(rows_used(args.tables), grain_of(args.d_in), [&](int64_t begin, int64_t end) {
            for (int64_t r = begin; r < end; ++r)
                d_gate[r] = scale_and_dot<T>(args.in.as<T>() + r * args.in.ld, args.d_out.as<T>() + row_token[r] * args.d_out.ld, gate[r],
                                             args.d_in.as<T>() + r * args.d_in.ld, args.d_out.cols());
        });
    });
}

}  // namespace flanmoe::cpu

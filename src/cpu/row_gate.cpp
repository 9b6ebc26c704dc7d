// Gated rows on the CPU: one pass over the rows; memory-bound.
#include "ops/row_gate.hpp"

#include "core/parallel.hpp"
#include "cpu/vector_math.hpp"
#include "ops/run.hpp"

namespace flanmoe::cpu {

namespace {

constexpr int64_t elements_per_thread = 8192;  // least work worth waking a thread for

template <class T>
void forward_rows(const ops::RowGateArgs& args, int64_t begin, int64_t end) {
    using A = accumulate_t<T>;
    const int64_t cols = args.in.cols();
    for (int64_t r = begin; r < end; ++r) {
        const A s = fast_sigmoid(args.logit.as<A>()[r]);
        const T* in = row_of<T>(args.in, r);
        T* out = row_of<T>(args.out, r);
#pragma GCC ivdep
        for (int64_t c = 0; c < cols; ++c) out[c] = static_cast<T>(static_cast<A>(out[c]) + s * static_cast<A>(in[c]));
    }
}

template <class T>
void backward_rows(const ops::RowGateBackwardArgs& args, int64_t begin, int64_t end) {
    using A = accumulate_t<T>;
    const int64_t cols = args.in.cols();
    for (int64_t r = begin; r < end; ++r) {
        const A s = fast_sigmoid(args.logit.as<A>()[r]);
        const T *in = row_of<T>(args.in, r), *d_out = row_of<T>(args.d_out, r);
        T* d_in = row_of<T>(args.d_in, r);
        A product = 0;
#pragma omp simd reduction(+ : product)
        for (int64_t c = 0; c < cols; ++c) product += static_cast<A>(in[c]) * static_cast<A>(d_out[c]);
#pragma GCC ivdep
        for (int64_t c = 0; c < cols; ++c) d_in[c] = static_cast<T>(s * static_cast<A>(d_out[c]));
        args.d_logit.as<T>()[r] = static_cast<T>(s * (1 - s) * product);
    }
}

int64_t grain(const Tensor& rows) { return std::max<int64_t>(1, elements_per_thread / rows.cols()); }

}  // namespace

void row_gate(Context&, const ops::RowGateArgs& args) {
    ops::with_type(args.in.dtype, [&]<class T>() {
        parallel_for(args.in.rows(), grain(args.in), [&](int64_t begin, int64_t end) { forward_rows<T>(args, begin, end); });
    });
}

void row_gate_backward(Context&, const ops::RowGateBackwardArgs& args) {
    ops::with_type(args.in.dtype, [&]<class T>() {
        parallel_for(args.in.rows(), grain(args.in), [&](int64_t begin, int64_t end) { backward_rows<T>(args, begin, end); });
    });
}

}  // namespace flanmoe::cpu

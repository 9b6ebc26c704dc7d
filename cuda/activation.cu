// Activations: a thread for eight elements of a row at a time; the halves of a gated input are read at the same place. Rows beyond the used ones end at once.
//
// Both sigmoid forms, silu and the tanh form of gelu (0.5 (1 + tanh u) = sigmoid(2u)), need one exponential of a number that is not positive, so nothing
// overflows. The erf form takes the tail Phi(-|z|), in which no digits cancel. Eight dropped or kept elements share a Philox block.
//
// Bytes an element of bf16: plain 4 forward and 6 backward, gated 6 and 10. At 64 Ki x 2048, gated: 0.30 and 0.50 ms at 2.7 TB/s; the arithmetic, some 40
// instructions an element with dropout, hides behind it. Not yet measured on hardware. At most 72 registers,
// no shared memory; 16 bytes of stack where dropout meets odd widths.
#include "ops/activation.hpp"

#include "launch.hpp"
#include "row_piece.cuh"

namespace flanmoe::cuda {

namespace {

constexpr int threads = 256;

struct Point {
    float value, slope;
};

/// sigmoid(x) and its derivative, which is exp(-|x|) / (1 + exp(-|x|))^2 for either sign.
__device__ inline Point sigmoid(float x) {
    const float e = expf(-fabsf(x)), s = 1 / (1 + e), es = e * s;
    return {x < 0 ? es : s, es * s};
}

struct Relu {
    __device__ static Point at(float z) { return {z < 0 ? 0.0f : z, z > 0 ? 1.0f : 0.0f}; }  // NaN passes
};
struct GeluTanh {
    __device__ static Point at(float z) {
        constexpr float k = 1.5957691216f, cubic = 0.044715f;  // twice sqrt(2/pi)
        const Point s = sigmoid(k * (z + cubic * z * z * z));
        return {z * s.value, s.value + z * s.slope * k * (1 + 3 * cubic * z * z)};
    }
};
struct GeluErf {
    __device__ static Point at(float z) {
        const float tail = 0.5f * erfcf(fabsf(z) * 0.70710678f), density = 0.398942280f * expf(-0.5f * z * z), distribution = z < 0 ? tail : 1 - tail;
        return {z * distribution, distribution + z * density};
    }
};
struct Silu {
    __device__ static Point at(float z) {
        const Point s = sigmoid(z);
        return {z * s.value, s.value + z * s.slope};
    }
};

/// The tensors as the kernels see them; `to` is out or d_in.
template <class T>
struct Work {
    const T *in, *d_out;
    T* to;
    int64_t in_ld, d_out_ld, to_ld, rows, cols;
    const int64_t* row_ids;
    const int32_t* rows_used;
    Dropout dropout;
    int64_t dropout_cols;
    int across;  ///< threads that share a row: a power of two
};

/// Calls body(row, column, elements left, dropout index) for the thread's pieces of a row.
template <class T, class Body>
__device__ inline void for_pieces(const Work<T>& w, Body&& body) {
    const int64_t row = static_cast<int64_t>(blockIdx.x) * (threads / w.across) + static_cast<int>(threadIdx.x) / w.across;
    if (row >= (w.rows_used ? *w.rows_used : w.rows)) return;
    const int64_t first = (w.row_ids ? w.row_ids[row] : row) * w.dropout_cols;
    for (int64_t c = static_cast<int>(threadIdx.x) % w.across * row_piece; c < w.cols; c += w.across * row_piece)
        body(row, c, piece_length(w.cols, c), static_cast<uint64_t>(first + c));
}

template <class T, class F, bool gated, bool aligned>
__global__ void __launch_bounds__(threads) forward_kernel(const Work<T> w) {
    for_pieces(w, [&](int64_t row, int64_t c, int count, uint64_t index) {
        const T* in = w.in + row * w.in_ld + c;
        float z[row_piece], other[row_piece];
        load_piece<aligned>(in, count, z);
        if constexpr (gated) load_piece<aligned>(in + w.cols, count, other);
        for (int j = 0; j < row_piece; ++j) {
            z[j] = F::at(z[j]).value;
            if constexpr (gated) z[j] *= other[j];
        }
        multiply_dropout<row_piece>(w.dropout, index, z);
        store_piece<aligned>(w.to + row * w.to_ld + c, count, z);
    });
}

/// d_in may be the memory of in: every thread reads both halves of a piece before it writes them.
template <class T, class F, bool gated, bool aligned>
__global__ void __launch_bounds__(threads) backward_kernel(const Work<T> w) {
    for_pieces(w, [&](int64_t row, int64_t c, int count, uint64_t index) {
        const T* in = w.in + row * w.in_ld + c;
        T* to = w.to + row * w.to_ld + c;
        float z[row_piece], other[row_piece], d[row_piece];
        load_piece<aligned>(in, count, z);
        if constexpr (gated) load_piece<aligned>(in + w.cols, count, other);
        load_piece<aligned>(w.d_out + row * w.d_out_ld + c, count, d);
        multiply_dropout<row_piece>(w.dropout, index, d);
        for (int j = 0; j < row_piece; ++j) {
            const Point f = F::at(z[j]);
            if constexpr (gated) {
                z[j] = d[j] * other[j] * f.slope;
                other[j] = d[j] * f.value;
            } else {
                z[j] = d[j] * f.slope;
            }
        }
        store_piece<aligned>(to, count, z);
        if constexpr (gated) store_piece<aligned>(to + w.cols, count, other);
    });
}

int across_of(int64_t pieces) {
    int across = 1;
    while (across < threads && across < pieces) across *= 2;
    return across;
}

/// Calls body.operator()<F, gated>() with the function of the arguments.
template <class Body>
void with_function(Activation kind, bool gated, Body&& body) {
    const auto call = [&]<class F>() { gated ? body.template operator()<F, true>() : body.template operator()<F, false>(); };
    switch (kind) {
        case Activation::relu: return call.template operator()<Relu>();
        case Activation::gelu_tanh: return call.template operator()<GeluTanh>();
        case Activation::gelu_erf: return call.template operator()<GeluErf>();
        case Activation::silu: return call.template operator()<Silu>();
    }
}

/// `out` is out or d_out, whose shape the work has; `to` is what is written.
template <class T, class Args>
Work<T> work_of(const Args& args, const Tensor& out, const Tensor& to) {
    Work<T> w{};
    w.in = args.in.template as<T>(), w.in_ld = args.in.ld, w.d_out = out.template as<T>(), w.d_out_ld = out.ld, w.to = to.template as<T>(), w.to_ld = to.ld;
    w.rows = out.rows(), w.cols = out.cols();
    w.row_ids = args.row_ids ? args.row_ids.template as<int64_t>() : nullptr, w.rows_used = args.rows_used ? args.rows_used.template as<int32_t>() : nullptr;
    w.dropout = args.dropout, w.dropout_cols = args.dropout_cols ? args.dropout_cols : w.cols;
    w.across = across_of((w.cols + row_piece - 1) / row_piece);
    return w;
}
template <class T>
unsigned blocks_of(const Work<T>& w) {
    return blocks_for(w.rows, threads / w.across);
}

template <class T, bool aligned>
void forward(Context& context, const ops::ActivationArgs& args) {
    const Work<T> w = work_of<T>(args, args.out, args.out);
    with_function(args.kind, args.gated, [&]<class F, bool gated>() { launch(context, "activation", forward_kernel<T, F, gated, aligned>, blocks_of(w), threads, 0, w); });
}
template <class T, bool aligned>
void backward(Context& context, const ops::ActivationBackwardArgs& args) {
    const Work<T> w = work_of<T>(args, args.d_out, args.d_in);
    with_function(args.kind, args.gated, [&]<class F, bool gated>() { launch(context, "activation backward", backward_kernel<T, F, gated, aligned>, blocks_of(w), threads, 0, w); });
}

/// Both halves of every row begin at multiples of 16 bytes.
bool halves_aligned(const Tensor& in, bool gated) { return has_aligned_rows(in) && (!gated || in.cols() / 2 * size_of(in.dtype) % 16 == 0); }

template <class T>
void forward(Context& context, const ops::ActivationArgs& args) {
    if (halves_aligned(args.in, args.gated) && has_aligned_rows(args.out)) forward<T, true>(context, args);
    else forward<T, false>(context, args);
}
template <class T>
void backward(Context& context, const ops::ActivationBackwardArgs& args) {
    if (halves_aligned(args.in, args.gated) && halves_aligned(args.d_in, args.gated) && has_aligned_rows(args.d_out)) backward<T, true>(context, args);
    else backward<T, false>(context, args);
}

}  // namespace

void activation(Context& context, const ops::ActivationArgs& args) { args.out.dtype == DType::bf16 ? forward<bf16>(context, args) : forward<float>(context, args); }

void activation_backward(Context& context, const ops::ActivationBackwardArgs& args) {
    args.d_out.dtype == DType::bf16 ? backward<bf16>(context, args) : backward<float>(context, args);
}

}  // namespace flanmoe::cuda

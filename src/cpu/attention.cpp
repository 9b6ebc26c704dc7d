// Attention forward on the CPU: one task per batch row and head, softmax accumulated over tiles of keys.
//
// For each tile of keys (packed once a task), for each strip of queries: scores = q k^T in the first-level cache, bias, visibility, then the running
// maximum m and sum l of each row (the output gathered so far is rescaled when m grows), probabilities times dropout, output += p v. A tile that no
// query of a strip sees is skipped, and columns to the right of the diagonal are not computed.
//
// Measured 2026-11-23 on a 2-core AMD Zen 4 class machine (AVX-512 bf16), CPU time of one core, GFLOP/s of the two products that the definition names
// (the kernels' own rate there: 220 in bf16, 114 in f32), for 8 rows x 6 heads of size 64:
//   encoder 512 x 512, bias             bf16 21.7 ms, 148 GFLOP/s; with dropout 25.8 ms, 125    f32 37 ms, 86; with dropout 41 ms, 78
//   decoder 114 x 114, bias, causal     bf16 0.93 ms; with dropout 1.2 ms                       f32 1.7 ms; with dropout 2.0 ms
//   one step of decoding, 512 keys      7 us a row and head in cache (13 ns a key); memory-bound from there on
// 64 rows x 4 heads of 16 x 16 x 32: 0.9 us a row and head with dropout.
#include "cpu/attention_tile.hpp"
#include "ops/run.hpp"

namespace flanmoe::cpu {

namespace {

using namespace packed;

template <class T>
class Forward {
    using F = Format<T>;
    using Sum = typename F::Sum;
    using Unit = typename F::Unit;

public:
    Forward(Context& context, const ops::AttentionArgs& args)
        : context_(context), args_(args), g_(args), units_(F::units(g_.size)), width_(F::padded(g_.size)), bias_(context, args) {}

    void run() {
        run_tasks(context_, g_.batch * g_.heads, scratch_bytes(),
                  [&](int64_t index, Scratch scratch) { task(index / g_.heads, index % g_.heads, scratch); });
    }

private:
    struct State {
        Unit *queries, *keys, *values, *probabilities, *staging;
        Sum *scores, *out, *largest, *sum;
        uint16_t* bits;
        T* gathered;
    };

    template <class Take>
    void pieces(Take&& take) const {
        take(&State::queries, g_.queries * units_);
        take(&State::keys, units_ * key_tile);
        take(&State::values, F::units(key_tile) * width_);
        take(&State::probabilities, strip_rows * F::units(key_tile));
        take(&State::staging, F::lanes * F::padded(units_));
        take(&State::scores, strip_rows * key_tile);
        take(&State::out, g_.queries * width_);
        take(&State::largest, g_.queries);
        take(&State::sum, g_.queries);
        take(&State::bits, StripDropout::bits_needed);
        take(&State::gathered, args_.key_rows ? key_tile * g_.size : 0);
    }
    int64_t scratch_bytes() const {
        int64_t bytes = 0;
        pieces([&]<class U>(U * State::*, int64_t count) { bytes += Scratch::bytes<U>(count); });
        return bytes;
    }

    void task(int64_t row, int64_t head, Scratch scratch) const {
        State s;
        pieces([&]<class U>(U * State::*piece, int64_t count) { s.*piece = scratch.take<U>(count); });
        const T* q = head_rows<const T>(args_.q, row, head, g_.size);
        for (int64_t i = 0; i < g_.queries; ++i) pack_row(q + i * args_.q.ld, g_.size, s.queries + i * units_);
        std::fill_n(s.out, g_.queries * width_, Sum{0});
        std::fill_n(s.largest, g_.queries, -static_cast<Sum>(INFINITY));
        std::fill_n(s.sum, g_.queries, Sum{0});
        const Visibility visibility(args_, row);
        for (int64_t j0 = 0; j0 < visibility.limit(g_.queries - 1); j0 += key_tile) tile(s, visibility, row, head, j0);
        finish(s, row, head);
    }

    struct HeadRows {
        const T* first;
        int64_t ld;
    };
    /// Keys or values [j0, j1) of a row and head, brought together if they lie in several rows; until the next call.
    HeadRows rows_of_tile(const State& s, const Tensor& tensor, int64_t row, int64_t head, int64_t j0, int64_t j1) const {
        if (!args_.key_rows) return {head_rows<const T>(tensor, row, head, g_.size) + j0 * tensor.ld, tensor.ld};
        const int32_t* const rows = args_.key_rows.as<int32_t>() + row * g_.keys;
        for (int64_t j = j0; j < j1; ++j) std::copy_n(head_rows<const T>(tensor, rows[j], head, g_.size) + j * tensor.ld, g_.size, s.gathered + (j - j0) * g_.size);
        return {s.gathered, g_.size};
    }

    void tile(State& s, const Visibility& visibility, int64_t row, int64_t head, int64_t j0) const {
        const int64_t j1 = std::min(visibility.limit(g_.queries - 1), j0 + key_tile), tile_width = F::padded(j1 - j0), kv_head = head / g_.group;
        StripDropout dropout(args_.dropout, s.bits);
        bool tile_is_packed = false;
        for (int64_t i0 = 0; i0 < g_.queries; i0 += strip_rows) {
            const int64_t rows = std::min(strip_rows, g_.queries - i0), visible = std::min(j1, visibility.limit(i0 + rows - 1)) - j0;
            if (visible <= 0) continue;
            const Sight sight = visibility.segments(i0, i0 + rows, j0, j0 + visible);
            if (sight == Sight::none) continue;
            if (!tile_is_packed) {
                const HeadRows k = rows_of_tile(s, args_.k, row, kv_head, j0, j1);
                pack_cols_as_k(k.first, k.ld, j1 - j0, g_.size, tile_width, s.keys, s.staging);
                const HeadRows v = rows_of_tile(s, args_.v, row, kv_head, j0, j1);
                pack_rows_as_k(v.first, v.ld, j1 - j0, g_.size, tile_width, s.values);
                tile_is_packed = true;
            }
            const int64_t n = F::padded(visible);
            product<T>({rows, n, units_, s.queries + i0 * units_, units_, 1, s.keys, tile_width, s.scores, key_tile, false});
            if (dropout.active()) dropout.draw(g_, row * g_.dropout_heads + head, i0, rows, j0, n);
            for (int64_t r = 0; r < rows; ++r) softmax_row(s, visibility, dropout, head, i0, r, j0, n, sight == Sight::some);
            product<T>({rows, width_, F::units(n), s.probabilities, F::units(key_tile), 1, s.values, width_, s.out + i0 * width_, width_, true});
        }
    }

    /// Scores of row r of the strip to packed probabilities relative to the row's largest score so far.
    void softmax_row(State& s, const Visibility& visibility, const StripDropout& dropout, int64_t head, int64_t i0, int64_t r, int64_t j0, int64_t n,
                     bool hide) const {
        const int64_t i = i0 + r;
        Sum* scores = s.scores + r * key_tile;
        const Sum before = s.largest[i];
        Sum largest = finish_scores(scores, n, static_cast<Sum>(args_.scale), bias_.values ? bias_.row(head, i) + j0 : no_bias<Sum>);
        if (hide || visibility.cuts(i, j0, n)) {
            visibility.hide(i, j0, n, hide, scores);
            largest = row_max(scores, n);
        }
        largest = std::max(before, largest);
        Unit* probabilities = s.probabilities + r * F::units(key_tile);
        if (largest == -static_cast<Sum>(INFINITY)) {  // sees nothing up to here, or nothing but NaN, which must show
            for (int64_t j = 0; j < n; ++j) s.sum[i] += std::isnan(scores[j]) ? scores[j] : Sum{0};
            std::fill_n(probabilities, F::units(n), Unit{});
            return;
        }
        if (largest != before) {
            const Sum rescale = fast_exp(before - largest);
            s.largest[i] = largest;
            s.sum[i] *= rescale;
            for (int64_t c = 0; c < width_; ++c) s.out[i * width_ + c] *= rescale;
        }
        if (dropout.active()) s.sum[i] += exponentials(scores, largest, n, probabilities, dropout.factors<Sum>(r));
        else s.sum[i] += exponentials(scores, largest, n, probabilities, [](int64_t) { return Vector<Sum>{} + Sum{1}; });
    }

    /// Packs exp(score - largest) times the factors; returns the sum without factors.
    template <class Factor>
    static Sum exponentials(const Sum* scores, Sum largest, int64_t n, Unit* to, Factor&& factor) {
        Vector<Sum> sum{};
        for (int64_t j = 0; j < n; j += F::lanes) {
            const Vector<Sum> e = exp_lanes(load<Sum>(scores + j) - largest);
            sum += e;
            pack_vector<T>(e * factor(j), to + j / F::per_unit);
        }
        return sum_lanes<Sum>(sum);
    }

    void finish(const State& s, int64_t row, int64_t head) const {
        T* out = head_rows<T>(args_.out, row, head, g_.size);
        for (int64_t i = 0; i < g_.queries; ++i) {
            const Sum inverse = s.sum[i] == 0 ? Sum{0} : 1 / s.sum[i];
            for (int64_t c = 0; c < g_.size; ++c) out[i * args_.out.ld + c] = static_cast<T>(s.out[i * width_ + c] * inverse);
        }
        if (!args_.log_sum) return;
        Sum* log_sum = args_.log_sum.template as<Sum>() + (row * g_.heads + head) * g_.queries;
        for (int64_t i = 0; i < g_.queries; ++i) log_sum[i] = s.largest[i] + std::log(s.sum[i]);  // -infinity if nothing was seen
    }

    Context& context_;
    const ops::AttentionArgs& args_;
    Geometry g_;
    int64_t units_, width_;  // of a head's row, packed along k and along columns
    DistanceBias<Sum> bias_;
};

}  // namespace

void attention(Context& context, const ops::AttentionArgs& args) {
    Arena::Scope scope(context.arena);
    ops::with_type(args.q.dtype, [&]<class T>() { Forward<T>(context, args).run(); });
}

}  // namespace flanmoe::cpu

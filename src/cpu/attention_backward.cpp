// Attention backward on the CPU: probabilities recomputed tile by tile from log_sum; nothing of size S x S.
//
//   p = exp(score - log_sum), f the dropout factor, delta_i = d_out_i . out_i
//   d_v = (p f)^T d_out,  d_s = p (f (d_out v^T) - delta),  d_q = scale d_s k,  d_k = scale d_s^T q,  d_bias[distance] = sum of d_s along a diagonal
//
// One task per batch row and key head (its query heads one after the other), so that every sum has one owner and a fixed order. Loops: tile of keys,
// block of queries, strip of queries. A strip's scores and d_out v^T stay in the first-level cache; what leaves it are d_s and p f, packed for the
// three products over the block. The bias gradient is gathered by distance, then by bucket into one row of partial sums per batch row and head.
//
// Measured as in attention.cpp, GFLOP/s of four products (five are computed):
//   encoder 512 x 512, bias             bf16 53 ms, 122 GFLOP/s; with dropout 57 ms, 113        f32 90 ms, 72; with dropout 95 ms, 68
//   decoder 114 x 114, bias, causal     bf16 3.4 ms; with dropout 3.5 ms                        f32 4.2 ms; with dropout 4.5 ms
// 64 rows x 4 heads of 16 x 16 x 32: 2.0 us a row and head with dropout.
#include "cpu/attention_tile.hpp"
#include "ops/run.hpp"

namespace flanmoe::cpu {

namespace {

using namespace packed;

// Queries whose d_s is multiplied at once; fewer where products reach over the diagonal.
constexpr int64_t query_block = 10 * strip_rows, causal_block = 4 * strip_rows;

template <class T>
class Backward {
    using F = Format<T>;
    using Sum = typename F::Sum;
    using Unit = typename F::Unit;
    static constexpr int64_t strip_ld = margin + key_tile + margin;

public:
    Backward(Context& context, const ops::AttentionBackwardArgs& args)
        : context_(context), args_(args), f_(args.forward), g_(f_), units_(F::units(g_.size)), width_(F::padded(g_.size)),
          block_(f_.causal ? causal_block : query_block), bias_(context, f_),
          partial_(args.d_bias_table ? context.zeros(dtype_of<Sum>, {g_.batch * g_.heads, f_.buckets.count}) : Tensor{}) {}

    void run() {
        run_tasks(context_, g_.batch * g_.kv_heads, scratch_bytes(),
                  [&](int64_t index, Scratch scratch) { task(index / g_.kv_heads, index % g_.kv_heads, scratch); });
        if (args_.d_bias_table) add_bias_gradient();
    }

private:
    struct State {
        Unit *query_rows, *query_k, *d_out_rows, *d_out_k;  // of one head: [queries, units_] and [units(queries), width_]
        Unit *key_cols, *value_cols, *key_k, *staging;      // of one tile: [units_, tile] twice and [units(tile), width_]
        Unit *d_score_rows, *d_score_k, *probability_k;     // of one block: [block, units(tile)] and [units(block), tile] twice
        Sum *delta, *log_sum, *d_query, *d_key, *d_value, *d_distance;
        Sum *scores, *d_probabilities;  // of one strip, with margins
        uint16_t* bits;
    };

    template <class Take>
    void pieces(Take&& take) const {
        const int64_t keys = F::padded(g_.keys), block = block_;
        take(&State::query_rows, g_.queries * units_);
        take(&State::query_k, F::units(g_.queries) * width_);
        take(&State::d_out_rows, g_.queries * units_);
        take(&State::d_out_k, F::units(g_.queries) * width_);
        take(&State::key_cols, units_ * key_tile);
        take(&State::value_cols, units_ * key_tile);
        take(&State::key_k, F::units(key_tile) * width_);
        take(&State::staging, F::lanes * F::padded(units_));
        take(&State::d_score_rows, block * F::units(key_tile));
        take(&State::d_score_k, F::units(block) * key_tile);
        take(&State::probability_k, F::units(block) * key_tile);
        take(&State::delta, g_.queries);
        take(&State::log_sum, g_.queries);
        take(&State::d_query, g_.queries * width_);
        take(&State::d_key, keys * width_);
        take(&State::d_value, keys * width_);
        take(&State::d_distance, bias_.stride);
        take(&State::scores, strip_rows * strip_ld);
        take(&State::d_probabilities, strip_rows * strip_ld);
        take(&State::bits, StripDropout::bits_needed);
    }
    int64_t scratch_bytes() const {
        int64_t bytes = 0;
        pieces([&]<class U>(U * State::*, int64_t count) { bytes += Scratch::bytes<U>(count); });
        return bytes;
    }

    void task(int64_t row, int64_t kv_head, Scratch scratch) const {
        State s;
        pieces([&]<class U>(U * State::*piece, int64_t count) { s.*piece = scratch.take<U>(count); });
        std::fill_n(s.d_key, F::padded(g_.keys) * width_, Sum{0});
        std::fill_n(s.d_value, F::padded(g_.keys) * width_, Sum{0});
        for (int64_t r = 0; r < strip_rows; ++r) std::fill_n(s.scores + r * strip_ld, margin, Sum{0});  // the right ones: add_diagonals
        const Visibility visibility(f_, row);
        for (int64_t head = kv_head * g_.group; head < (kv_head + 1) * g_.group; ++head) {
            begin_head(s, row, head);
            for (int64_t j0 = 0; j0 < visibility.limit(g_.queries - 1); j0 += key_tile) tile(s, visibility, row, head, j0);
            write(s.d_query, g_.queries, static_cast<Sum>(f_.scale), head_rows<T>(args_.d_q, row, head, g_.size), args_.d_q.ld);
            if (partial_) {
                Sum* sums = partial_.template as<Sum>() + (row * g_.heads + head) * f_.buckets.count;
                for (int64_t d = 0; d < bias_.distances; ++d) sums[bias_.bucket[d]] += s.d_distance[d];
            }
        }
        write(s.d_key, g_.keys, static_cast<Sum>(f_.scale), head_rows<T>(args_.d_k, row, kv_head, g_.size), args_.d_k.ld);
        write(s.d_value, g_.keys, Sum{1}, head_rows<T>(args_.d_v, row, kv_head, g_.size), args_.d_v.ld);
    }

    static constexpr int64_t chains = 8;  // sums that hide one another's latency

    /// delta of some rows, summed one element after the other as product() sums d_out v^T: where a query sees one key alone, out is that key's value to the
    /// bit, the two cancel, and the gradient of its score is the zero that it must be.
    void dot_rows(const T* d_out, const T* out, int64_t rows, Sum* delta) const {
        Sum sum[chains] = {};
        const T *a[chains], *b[chains];
        for (int64_t r = 0; r < chains; ++r) a[r] = d_out + std::min(r, rows - 1) * args_.d_out.ld, b[r] = out + std::min(r, rows - 1) * f_.out.ld;
        for (int64_t c = 0; c < g_.size; ++c)
#pragma GCC unroll 8
            for (int64_t r = 0; r < chains; ++r) sum[r] = packed::multiply_add_one(sum[r], static_cast<Sum>(a[r][c]), static_cast<Sum>(b[r][c]));
        std::copy_n(sum, rows, delta);
    }

    void begin_head(State& s, int64_t row, int64_t head) const {
        const T* q = head_rows<const T>(f_.q, row, head, g_.size);
        const T* out = head_rows<const T>(f_.out, row, head, g_.size);
        const T* d_out = head_rows<const T>(args_.d_out, row, head, g_.size);
        const Sum* log_sum = f_.log_sum.template as<Sum>() + (row * g_.heads + head) * g_.queries;
        for (int64_t i = 0; i < g_.queries; ++i) {
            pack_row(q + i * f_.q.ld, g_.size, s.query_rows + i * units_);
            pack_row(d_out + i * args_.d_out.ld, g_.size, s.d_out_rows + i * units_);
            // A query that sees nothing has scores of -infinity alone; any finite number makes its probabilities zero.
            s.log_sum[i] = log_sum[i] == -static_cast<Sum>(INFINITY) ? Sum{0} : log_sum[i];
        }
        for (int64_t i = 0; i < g_.queries; i += chains) dot_rows(d_out + i * args_.d_out.ld, out + i * f_.out.ld, std::min(chains, g_.queries - i), s.delta + i);
        pack_rows_as_k(q, f_.q.ld, g_.queries, g_.size, g_.queries, s.query_k);
        pack_rows_as_k(d_out, args_.d_out.ld, g_.queries, g_.size, g_.queries, s.d_out_k);
        std::fill_n(s.d_query, g_.queries * width_, Sum{0});
        if (partial_) std::fill_n(s.d_distance, bias_.stride, Sum{0});
    }

    void tile(State& s, const Visibility& visibility, int64_t row, int64_t head, int64_t j0) const {
        const int64_t j1 = std::min(visibility.limit(g_.queries - 1), j0 + key_tile), tile_width = F::padded(j1 - j0), kv_head = head / g_.group;
        bool tile_is_packed = false;
        for (int64_t b0 = 0; b0 < g_.queries; b0 += block_) {
            const int64_t b1 = std::min(g_.queries, b0 + block_), n = F::padded(std::max<int64_t>(0, std::min(j1, visibility.limit(b1 - 1)) - j0));
            int64_t first = b1, last = b0;  // queries of the block that take part
            for (int64_t i0 = b0; i0 < b1; i0 += strip_rows) {
                const int64_t rows = std::min(strip_rows, b1 - i0), visible = std::min(j1, visibility.limit(i0 + rows - 1)) - j0;
                const Sight sight = visible <= 0 ? Sight::none : visibility.segments(i0, i0 + rows, j0, j0 + visible);
                if (sight == Sight::none) {
                    if (last > b0) pack_strip(s, i0 - b0, rows, 0, n);
                    continue;
                }
                if (!tile_is_packed) {
                    const T* k = head_rows<const T>(f_.k, row, kv_head, g_.size) + j0 * f_.k.ld;
                    const T* v = head_rows<const T>(f_.v, row, kv_head, g_.size) + j0 * f_.v.ld;
                    pack_cols_as_k(k, f_.k.ld, j1 - j0, g_.size, tile_width, s.key_cols, s.staging);
                    pack_cols_as_k(v, f_.v.ld, j1 - j0, g_.size, tile_width, s.value_cols, s.staging);
                    pack_rows_as_k(k, f_.k.ld, j1 - j0, g_.size, tile_width, s.key_k);
                    tile_is_packed = true;
                }
                first = std::min(first, i0), last = i0 + rows;
                const int64_t strip_n = F::padded(visible);
                strip(s, visibility, row, head, i0, rows, j0, strip_n, tile_width, sight == Sight::some);
                pack_strip(s, i0 - b0, rows, strip_n, n);
            }
            if (first < last) products(s, b0, first, last, j0, n);
        }
    }

    /// Leaves d_s in s.scores and p f in s.d_probabilities, and adds d_s to the distances.
    void strip(State& s, const Visibility& visibility, int64_t row, int64_t head, int64_t i0, int64_t rows, int64_t j0, int64_t n, int64_t tile_width,
               bool hide) const {
        product<T>({rows, n, units_, s.query_rows + i0 * units_, units_, 1, s.key_cols, tile_width, s.scores + margin, strip_ld, false});
        product<T>({rows, n, units_, s.d_out_rows + i0 * units_, units_, 1, s.value_cols, tile_width, s.d_probabilities + margin, strip_ld, false});
        StripDropout dropout(f_.dropout, s.bits);
        if (dropout.active()) dropout.draw(g_, row * g_.dropout_heads + head, i0, rows, j0, n);
        for (int64_t r = 0; r < rows; ++r) {
            const int64_t i = i0 + r;
            Sum *scores = s.scores + r * strip_ld + margin, *d_p = s.d_probabilities + r * strip_ld + margin;
            Sum scale = static_cast<Sum>(f_.scale);
            const Sum* bias = bias_.values ? bias_.row(head, i) + j0 : no_bias<Sum>;
            if (hide || visibility.cuts(i, j0, n)) {
                finish_scores(scores, n, scale, bias);
                visibility.hide(i, j0, n, hide, scores);
                scale = 1, bias = no_bias<Sum>;
            }
            if (dropout.active()) differentiate(scores, d_p, n, scale, bias, s.log_sum[i], s.delta[i], dropout.factors<Sum>(r));
            else differentiate(scores, d_p, n, scale, bias, s.log_sum[i], s.delta[i], [](int64_t) { return Vector<Sum>{} + Sum{1}; });
        }
        if (partial_) add_diagonals(s, i0, rows, j0, n);
    }

    /// Replaces scores by d_s and d_out v^T by p f.
    template <class Factor>
    static void differentiate(Sum* scores, Sum* d_p, int64_t n, Sum scale, const Sum* bias, Sum log_sum, Sum delta, Factor&& factor) {
        for (int64_t j = 0; j < n; j += F::lanes) {
            const Vector<Sum> p = exp_lanes(load<Sum>(scores + j) * scale + load<Sum>(bias + j) - log_sum), f = factor(j);
            store(scores + j, p * (f * load<Sum>(d_p + j) - delta));
            store(d_p + j, p * f);
        }
    }

    /// d_distance[queries - 1 - i + j] += d_s(i, j). The margins hold zeros, so that every distance adds the same number of rows.
    void add_diagonals(State& s, int64_t i0, int64_t rows, int64_t j0, int64_t n) const {
        for (int64_t r = 0; r < rows; ++r) std::fill_n(s.scores + r * strip_ld + margin + n, std::min(margin, strip_ld - margin - n), Sum{0});
        Sum* distances = s.d_distance + g_.queries - 1 - (i0 + rows - 1) + j0;  // of the last row and first column
        for (int64_t x = 0; x < n + rows - 1; x += F::lanes) {
            Vector<Sum> sum{};
            for (int64_t r = 0; r < rows; ++r) sum += load<Sum>(s.scores + r * strip_ld + margin + x - (rows - 1 - r));
            store(distances + x, load<Sum>(distances + x) + sum);
        }
    }

    /// Packs d_s and p f of a strip that begins `at` rows into its block; zeros from column `from` to n.
    void pack_strip(State& s, int64_t at, int64_t rows, int64_t from, int64_t n) const {
        static constexpr Sum zeros[key_tile] = {};
        for (int64_t r = 0; r < rows; r += F::per_unit) {
            const Sum *d_s = s.scores + r * strip_ld + margin, *p = s.d_probabilities + r * strip_ld + margin;
            const bool has_next = r + 1 < rows;
            const Sum *next_d_s = has_next ? d_s + strip_ld : zeros, *next_p = has_next ? p + strip_ld : zeros;
            Unit* k_d_s = s.d_score_k + (at + r) / F::per_unit * key_tile;
            Unit* k_p = s.probability_k + (at + r) / F::per_unit * key_tile;
            Unit* row = s.d_score_rows + (at + r) * F::units(key_tile);
            for (int64_t j = 0; j < n; j += F::lanes) {
                const bool computed = j < from;
                const auto value = [&](const Sum* of) { return computed ? load<Sum>(of + j) : Vector<Sum>{}; };
                if constexpr (F::per_unit == 2) {
                    const Vector<Sum> first = value(d_s), second = value(next_d_s);
                    pack_vector<T>(first, row + j / 2);
                    if (has_next) pack_vector<T>(second, row + F::units(key_tile) + j / 2);
                    pack_vector_pair<T>(first, second, k_d_s + j);
                    pack_vector_pair<T>(value(p), value(next_p), k_p + j);
                } else {  // the rows of d_score_k serve as rows too
                    store(k_d_s + j, value(d_s));
                    store(k_p + j, value(p));
                }
            }
        }
    }

    /// The three products of queries [first, last) of the block at b0 with n keys from j0.
    void products(State& s, int64_t b0, int64_t first, int64_t last, int64_t j0, int64_t n) const {
        const int64_t count = last - first, k = F::units(count), skip = (first - b0) / F::per_unit * key_tile, from = first / F::per_unit * width_;
        product<T>({n, width_, k, s.probability_k + skip, 1, key_tile, s.d_out_k + from, width_, s.d_value + j0 * width_, width_, true});
        product<T>({n, width_, k, s.d_score_k + skip, 1, key_tile, s.query_k + from, width_, s.d_key + j0 * width_, width_, true});
        const Unit* d_score = F::per_unit == 2 ? s.d_score_rows + (first - b0) * F::units(key_tile) : s.d_score_k + skip;
        product<T>({count, width_, F::units(n), d_score, F::units(key_tile), 1, s.key_k, width_, s.d_query + first * width_, width_, true});
    }

    void write(const Sum* from, int64_t rows, Sum scale, T* to, int64_t ld) const {
        for (int64_t r = 0; r < rows; ++r)
            for (int64_t c = 0; c < g_.size; ++c) to[r * ld + c] = static_cast<T>(from[r * width_ + c] * scale);
    }

    void add_bias_gradient() const {
        const Sum* partial = partial_.template as<Sum>();
        for (int64_t bucket = 0; bucket < f_.buckets.count; ++bucket) {
            Sum* to = args_.d_bias_table.template as<Sum>() + bucket * args_.d_bias_table.ld;
            for (int64_t head = 0; head < g_.heads; ++head) {
                Sum sum = 0;
                for (int64_t row = 0; row < g_.batch; ++row) sum += partial[(row * g_.heads + head) * f_.buckets.count + bucket];
                to[head] += sum;
            }
        }
    }

    Context& context_;
    const ops::AttentionBackwardArgs& args_;
    const ops::AttentionArgs& f_;
    Geometry g_;
    int64_t units_, width_;  // of a head's row, packed along k and along columns
    int64_t block_;
    DistanceBias<Sum> bias_;
    Tensor partial_;  // [batch * heads, buckets]
};

}  // namespace

void attention_backward(Context& context, const ops::AttentionBackwardArgs& args) {
    Arena::Scope scope(context.arena);
    ops::with_type(args.forward.q.dtype, [&]<class T>() { Backward<T>(context, args).run(); });
}

}  // namespace flanmoe::cpu

// What the forward and the backward of attention share: geometry, packing, which keys a query sees, the bias by distance, rows of probabilities.
//
// A task, one head of one batch row, walks over tiles of `key_tile` keys; inside, over strips of `strip_rows` queries, whose scores stay in the
// first-level cache. The T5 bias depends on j - i alone, so a head's bias is one array over distances and the bias of a row is a slice of it.
#pragma once

#include "core/context.hpp"
#include "core/parallel.hpp"
#include "cpu/attention_product.hpp"
#include "cpu/philox.hpp"
#include "cpu/vector_math.hpp"
#include "ops/attention.hpp"

#include <atomic>
#include <cmath>

namespace flanmoe::cpu::packed {

constexpr int64_t key_tile = 256;
constexpr int64_t strip_rows = 12;  ///< even, so that pairs of rows do not straddle strips
constexpr int64_t margin = 32;      ///< zeros on both sides of a strip's rows, at least strip_rows and a vector

// ---- packing --------------------------------------------------------------------------------------------------------------------------

/// to[i] = unit i of the row.
template <class T>
inline void pack_row(const T* row, int64_t n, typename Format<T>::Unit* to) {
    if constexpr (Format<T>::per_unit == 2) {
        if (n & 1) to[n / 2] = {0};
        std::memcpy(to, row, static_cast<size_t>(n) * sizeof(T));
    } else {
        load_row(row, to, n);
    }
}

/// A vector of sums, rounded, as consecutive values of k.
template <class T>
inline void pack_vector(Vector<typename Format<T>::Sum> sums, typename Format<T>::Unit* to) {
    if constexpr (Format<T>::per_unit == 2) {
#if defined(__AVX512BF16__)
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(reinterpret_cast<__m512>(sums))));
#endif
    } else {
        store(to, sums);
    }
}

/// Two vectors of sums, rounded, as the values k and k + 1 of a vector of columns.
template <class T>
inline void pack_vector_pair(Vector<typename Format<T>::Sum> sums, Vector<typename Format<T>::Sum> next, typename Format<T>::Unit* to) {
    static_assert(Format<T>::per_unit == 2);
#if defined(__AVX512BF16__)
    const auto widen = [](Vector<float> v) {  // masked forms with full masks: the plain ones of g++ 12 warn about their own undefined vectors
        return _mm512_maskz_cvtepu16_epi32(0xffff, reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(reinterpret_cast<__m512>(v))));
    };
    _mm512_storeu_si512(to, _mm512_or_si512(widen(sums), _mm512_maskz_slli_epi32(0xffff, widen(next), 16)));
#else
    (void)sums, (void)next, (void)to;
#endif
}

/// B operand whose k runs over rows: to[units(rows)][padded(cols)], zeros in the padding.
template <class T>
void pack_rows_as_k(const T* from, int64_t ld, int64_t rows, int64_t cols, int64_t padded_rows, typename Format<T>::Unit* to) {
    using F = Format<T>;
    const int64_t width = F::padded(cols);
    for (int64_t r = 0; r < padded_rows; r += F::per_unit, to += width) {
        if constexpr (F::per_unit == 2) {
            const auto* low = reinterpret_cast<const uint16_t*>(from + r * ld);
            const auto* high = reinterpret_cast<const uint16_t*>(from + (r + 1) * ld);
            if (r + 1 < rows) {
                for (int64_t c = 0; c < cols; ++c) to[c].bits = uint32_t{low[c]} | uint32_t{high[c]} << 16;
            } else {
                for (int64_t c = 0; c < cols; ++c) to[c].bits = r < rows ? low[c] : 0u;
            }
        } else {
            if (r < rows) load_row(from + r * ld, to, cols);
            else std::fill_n(to, cols, typename F::Unit{});
        }
        std::fill(to + cols, to + width, typename F::Unit{});
    }
}

/// A square of lanes x lanes units, transposed in registers: log2(lanes) rounds that each swap off-diagonal blocks.
template <class A, int distance, int lanes>
inline void transpose_rounds(Vector<A> (&v)[lanes]) {
    using Index = std::conditional_t<sizeof(A) == 4, int32_t, int64_t>;
    Vector<Index> first, second;
    for (int i = 0; i < lanes; ++i) {
        first[i] = (i & distance) ? lanes + i - distance : i;
        second[i] = (i & distance) ? lanes + i : i + distance;
    }
#pragma GCC unroll 16
    for (int r = 0; r < lanes; ++r) {
        if (r & distance) continue;
        const Vector<A> a = v[r], b = v[r + distance];
        v[r] = __builtin_shuffle(a, b, first);
        v[r + distance] = __builtin_shuffle(a, b, second);
    }
    if constexpr (distance * 2 < lanes) transpose_rounds<A, distance * 2, lanes>(v);
}

/// B operand whose k runs over columns: to[units(cols)][padded_rows], zeros for rows beyond `rows`. `staging` holds lanes rows of padded(units).
template <class T>
void pack_cols_as_k(const T* from, int64_t ld, int64_t rows, int64_t cols, int64_t padded_rows, typename Format<T>::Unit* to,
                    typename Format<T>::Unit* staging) {
    using F = Format<T>;
    using Sum = typename F::Sum;
    constexpr int lanes = static_cast<int>(F::lanes);
    const int64_t units = F::units(cols), stage = F::padded(units);
    for (int64_t r0 = 0; r0 < padded_rows; r0 += lanes) {
        for (int64_t r = 0; r < lanes; ++r) {
            if (r0 + r < rows) pack_row(from + (r0 + r) * ld, cols, staging + r * stage);
            else std::fill_n(staging + r * stage, units, typename F::Unit{});
        }
        for (int64_t u0 = 0; u0 < units; u0 += lanes) {
            Vector<Sum> square[lanes];
#pragma GCC unroll 16
            for (int r = 0; r < lanes; ++r) square[r] = load<Sum>(staging + r * stage + u0);
            transpose_rounds<Sum, 1, lanes>(square);
            if (units - u0 >= lanes) {
#pragma GCC unroll 16
                for (int u = 0; u < lanes; ++u) store(to + (u0 + u) * padded_rows + r0, square[u]);
            } else {
                for (int u = 0; u < units - u0; ++u) store(to + (u0 + u) * padded_rows + r0, square[u]);
            }
        }
    }
}

// ---- geometry -------------------------------------------------------------------------------------------------------------------------

struct Geometry {
    int64_t batch, heads, kv_heads, group, queries, keys, size;  ///< group: query heads of one key head; size: of a head
    int64_t dropout_heads;

    explicit Geometry(const ops::AttentionArgs& args)
        : batch(args.q.shape[0]), heads(args.heads), kv_heads(args.kv_heads), group(args.heads / args.kv_heads), queries(args.q.shape[1]),
          keys(args.k.shape[1]), size(args.q.cols() / args.heads),
          dropout_heads(args.dropout_heads ? args.dropout_heads : args.heads) {}
};

/// Rows of one head of one batch row inside a tensor [B, S, heads * K].
template <class T>
inline T* head_rows(const Tensor& tensor, int64_t row, int64_t head, int64_t size) {
    return static_cast<T*>(tensor.data) + row * tensor.shape[1] * tensor.ld + head * size;
}

/// Pieces of the calling thread's scratch memory.
class Scratch {
public:
    explicit Scratch(void* memory) : next_(static_cast<char*>(memory)) {}
    template <class U>
    U* take(int64_t count) {
        U* piece = reinterpret_cast<U*>(next_);
        next_ += bytes<U>(count);
        return piece;
    }
    template <class U>
    static int64_t bytes(int64_t count) {
        return (count * static_cast<int64_t>(sizeof(U)) + 63) / 64 * 64;
    }

private:
    char* next_;
};

/// Runs task(index, scratch) for all indices, each on one thread, whichever is free: tasks may be of very different lengths (packed or padded rows).
template <class Task>
void run_tasks(Context& context, int64_t count, int64_t scratch_bytes, Task&& task) {
    const int64_t threads = std::min<int64_t>(count, omp_in_parallel() ? 1 : omp_get_max_threads());
    Arena::Scope scope(context.arena);
    char* memory = static_cast<char*>(context.arena.allocate_bytes(threads * scratch_bytes));
    std::atomic<int64_t> next{0};
    parallel_for(threads, 1, [&](int64_t begin, int64_t end) {
        for (int64_t thread = begin; thread < end; ++thread)
            for (int64_t index = next++; index < count; index = next++) task(index, Scratch(memory + thread * scratch_bytes));
    });
}

// ---- which keys a query sees ----------------------------------------------------------------------------------------------------------

enum class Sight { none, some, all };

/// One batch row's rule of visibility.
class Visibility {
public:
    Visibility(const ops::AttentionArgs& args, int64_t row)
        : causal_(args.causal), offset_(args.query_offset), keys_(args.k.shape[1]),
          window_(args.window > 0 ? args.window : INT64_MAX / 2), prefix_end_(args.prefix_ends ? args.prefix_ends.as<int32_t>() + row * args.q.shape[1] : nullptr),
          query_(args.query_segments ? args.query_segments.as<int32_t>() + row * args.q.shape[1] : nullptr),
          key_(args.key_segments ? args.key_segments.as<int32_t>() + row * args.k.shape[1] : nullptr) {}

    /// Keys from 0 that query i sees by position; never less for a later query.
    int64_t limit(int64_t i) const {
        if (!causal_) return keys_;
        const int64_t seen = i + offset_ + 1;
        return std::clamp<int64_t>(prefix_end_ ? std::max<int64_t>(prefix_end_[i], seen) : seen, 0, keys_);
    }
    /// Keys before this one lie outside of query i's window.
    int64_t first(int64_t i) const { return causal_ ? std::max<int64_t>(0, i + offset_ + 1 - window_) : 0; }
    /// Whether positions hide any of the keys [j0, j0 + n) from query i.
    bool cuts(int64_t i, int64_t j0, int64_t n) const { return limit(i) < j0 + n || first(i) > j0; }

    /// What the segments let queries [i0, i1) see of keys [j0, j1).
    Sight segments(int64_t i0, int64_t i1, int64_t j0, int64_t j1) const {
        if (!key_) return Sight::all;
        const Range keys = range(key_, j0, j1), queries = query_ ? range(query_, i0, i1) : Range{1, 1, false};
        const bool any_key = keys.low <= keys.high, any_query = queries.low <= queries.high;
        if (!any_key) return Sight::none;
        const bool meet = any_query && queries.low <= keys.high && keys.low <= queries.high;
        if (!meet && !queries.padding) return Sight::none;
        const bool same = keys.low == keys.high && (!any_query || (queries.low == queries.high && queries.low == keys.low));
        return same && !keys.padding ? Sight::all : Sight::some;
    }

    /// Scores of query i with keys [j0, j0 + n) that it does not see become -infinity; `by_segment` = false: all segments are seen.
    template <class Sum>
    void hide(int64_t i, int64_t j0, int64_t n, bool by_segment, Sum* scores) const {
        const int64_t visible = std::clamp<int64_t>(limit(i) - j0, 0, n), outside = std::clamp<int64_t>(first(i) - j0, 0, visible);
        std::fill(scores + visible, scores + n, -static_cast<Sum>(INFINITY));
        std::fill(scores, scores + outside, -static_cast<Sum>(INFINITY));
        if (by_segment) hide_segments(i, j0, visible, scores);
    }

private:
    template <class Sum>
    void hide_segments(int64_t i, int64_t j0, int64_t n, Sum* scores) const {
        const int32_t segment = query_ ? query_[i] : 1;
        const int32_t* key = key_ + j0;
        if (segment == 0) {
            for (int64_t j = 0; j < n; ++j) scores[j] = key[j] != 0 ? scores[j] : -INFINITY;
        } else {
            for (int64_t j = 0; j < n; ++j) scores[j] = key[j] == segment ? scores[j] : -INFINITY;
        }
    }

    struct Range {
        int32_t low, high;  ///< of the segments that are not padding; low > high if there are none
        bool padding;
    };
    static Range range(const int32_t* segments, int64_t begin, int64_t end) {
        int32_t low = INT32_MAX, high = 0;
        bool padding = false;
        for (int64_t i = begin; i < end; ++i) {
            const int32_t s = segments[i];
            padding |= s == 0;
            low = std::min(low, s == 0 ? INT32_MAX : s);
            high = std::max(high, s);
        }
        return {low, high, padding};
    }

    bool causal_;
    int64_t offset_, keys_, window_;
    const int32_t *prefix_end_, *query_, *key_;
};

// ---- bias -----------------------------------------------------------------------------------------------------------------------------

/// The bias table spread over distances: element queries - 1 - i + j of a head's array is the bias of query i and key j. Empty without a table.
template <class Sum>
struct DistanceBias {
    int64_t queries = 0, distances = 0, stride = 0;
    Sum* values = nullptr;      ///< [heads, stride], zeros behind the distances
    int32_t* bucket = nullptr;  ///< [distances]

    DistanceBias(Context& context, const ops::AttentionArgs& args);
    const Sum* row(int64_t head, int64_t i) const { return values + head * stride + queries - 1 - i; }
};

template <class Sum>
DistanceBias<Sum>::DistanceBias(Context& context, const ops::AttentionArgs& args) {
    if (!args.bias_table) return;
    const Geometry g(args);
    queries = g.queries, distances = g.queries + g.keys - 1;
    stride = distances + key_tile;
    bucket = static_cast<int32_t*>(context.arena.allocate_bytes(distances * 4));
    values = static_cast<Sum*>(context.arena.allocate_bytes(g.heads * stride * static_cast<int64_t>(sizeof(Sum))));
    const ops::BucketTable buckets(args.buckets);
    for (int64_t d = 0; d < distances; ++d) bucket[d] = static_cast<int32_t>(buckets.of(d - (g.queries - 1) - args.query_offset));
    const auto spread = [&]<class T>(const T* table, int64_t ld) {
        for (int64_t h = 0; h < g.heads; ++h) {
            Sum* head = values + h * stride;
            for (int64_t d = 0; d < distances; ++d) head[d] = static_cast<Sum>(table[bucket[d] * ld + h]);
            std::fill(head + distances, head + stride, Sum{0});
        }
    };
    if (args.bias_table.dtype == DType::bf16) spread(args.bias_table.as<bf16>(), args.bias_table.ld);
    else spread(args.bias_table.as<Sum>(), args.bias_table.ld);
}

// ---- rows of scores and probabilities ---------------------------------------------------------------------------------------------------

/// exp() of every lane, for arguments up to about 0: fast_exp() with one factor 2^n, since what would be subnormal may as well be 0.
inline Vector<float> exp_lanes(Vector<float> x) {
    constexpr float shifter = 0x1.8p23f, lowest = -87.0f;
    const auto vanishes = x < lowest;
    x = vanishes ? Vector<float>{} + lowest : x;
    const Vector<float> shifted = x * 1.44269504f + shifter, whole = shifted - shifter;
    const Vector<float> r = (x - whole * 0.693359375f) - whole * -2.12194440e-4f;
    const Vector<float> q = (((0.0013926926614f * r + 0.00836377387441f) * r + 0.0416665501103f) * r + 0.166665733819f) * r + 0.5f;
    const Vector<float> p = (q * r) * r + r + 1.0f;
    // The low bits of `shifted` are n; adding them to the exponent multiplies by 2^n.
    const auto scaled = reinterpret_cast<Vector<int32_t>>(p) + (reinterpret_cast<Vector<int32_t>>(shifted) << 23);
    return vanishes ? Vector<float>{} : reinterpret_cast<Vector<float>>(scaled);
}
inline Vector<double> exp_lanes(Vector<double> x) {
    for (size_t i = 0; i < sizeof x / sizeof x[0]; ++i) x[i] = std::exp(x[i]);
    return x;
}

template <class Sum>
constexpr int64_t lanes_of = vector_bytes / static_cast<int64_t>(sizeof(Sum));

/// combine() of all lanes, by halves.
template <class Sum, int64_t width = lanes_of<Sum> / 2, class Combine>
inline Sum reduce_lanes(Vector<Sum> v, Combine&& combine) {
    Vector<std::conditional_t<sizeof(Sum) == 4, int32_t, int64_t>> other;
    for (int64_t i = 0; i < lanes_of<Sum>; ++i) other[i] = i ^ width;
    v = combine(v, __builtin_shuffle(v, other));
    if constexpr (width > 1) return reduce_lanes<Sum, width / 2>(v, combine);
    else return v[0];
}
template <class Sum>
inline Sum sum_lanes(Vector<Sum> v) {
    return reduce_lanes<Sum>(v, [](Vector<Sum> a, Vector<Sum> b) { return a + b; });
}

/// Bias of a row without one.
template <class Sum>
inline constexpr Sum no_bias[key_tile] = {};

/// Turns products q k^T of a row into scores, scale * product + bias, n whole vectors. Returns the largest (NaN passed over).
template <class Sum>
inline Sum finish_scores(Sum* scores, int64_t n, Sum scale, const Sum* bias) {
    const auto larger = [](Vector<Sum> a, Vector<Sum> b) { return a > b ? a : b; };
    Vector<Sum> largest = Vector<Sum>{} - static_cast<Sum>(INFINITY);
    for (int64_t j = 0; j < n; j += lanes_of<Sum>) {
        const Vector<Sum> score = load<Sum>(scores + j) * scale + load<Sum>(bias + j);
        largest = larger(score, largest);
        store(scores + j, score);
    }
    return reduce_lanes<Sum>(largest, larger);
}

/// Random bits of the probabilities of a strip: rows of 16-bit numbers.
class StripDropout {
public:
    static constexpr int64_t bits_needed = strip_rows * key_tile + key_tile;

    StripDropout(const Dropout& dropout, uint16_t* bits) : dropout_(dropout), bits_(bits) {}
    bool active() const { return dropout_.active(); }
    /// Rows [i, i + rows) of the [queries, keys] matrix number `matrix`, columns [j0, j0 + n). Rows that fit in a tile are drawn in one run;
    /// a mask that all queries share, once.
    void draw(const Geometry& g, int64_t matrix, int64_t i, int64_t rows, int64_t j0, int64_t n) {
        const uint64_t first = dropout_.draw(static_cast<uint64_t>((matrix * g.queries + i) * g.keys + j0));
        if (dropout_.features != 0) {
            stride_ = 0;
            fill_random_bits16(dropout_.key, first, n, bits_);
        } else if (g.keys <= key_tile) {
            stride_ = g.keys;
            fill_random_bits16(dropout_.key, first, rows * g.keys, bits_);
        } else {
            stride_ = key_tile;
            for (int64_t r = 0; r < rows; ++r) fill_random_bits16(dropout_.key, first + static_cast<uint64_t>(r * g.keys), n, bits_ + r * stride_);
        }
    }
    /// A function of the column: the factors of row r for a vector of columns.
    template <class Sum>
    auto factors(int64_t r) const {
        return [bits = bits_ + r * stride_, dropped = dropout_.threshold, kept = static_cast<Sum>(dropout_.scale)](int64_t j) {
            using Wide = Vector<std::conditional_t<sizeof(Sum) == 4, int32_t, int64_t>>;
            typedef uint16_t Narrow __attribute__((vector_size(lanes_of<Sum> * 2)));
            Narrow narrow;
            std::memcpy(&narrow, bits + j, sizeof narrow);
            return __builtin_convertvector(narrow, Wide) < static_cast<int32_t>(dropped) ? Vector<Sum>{} : Vector<Sum>{} + kept;
        };
    }

private:
    Dropout dropout_;
    uint16_t* bits_;
    int64_t stride_ = 0;
};

}  // namespace flanmoe::cpu::packed

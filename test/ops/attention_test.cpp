// Attention against a literal double implementation, every mode; gradients; and the promises of attention.hpp.
#include "ops/attention.hpp"

#include "ops/check.hpp"
#include "ops/run.hpp"

#include <doctest/doctest.h>

#include <cmath>

using namespace flanmoe;
using namespace flanmoe::test;

namespace {

enum class Segments { none, padded_keys, packed, scattered };

struct Case {
    int64_t batch, heads, kv_heads, queries, keys, size;
    bool bias = false, causal = false;
    Segments segments = Segments::none;
    int64_t prefix = 0, offset = 0;  // prefix of row 0; one less for each further row; with packed segments, half of each segment
    float dropout = 0;
    double scale = 1;
    int64_t window = 0;
    bool broadcast = false;  // one dropout mask for all queries
    bool aligned = false;    // rows begin at multiples of 16 bytes
};

const Case cases[] = {
    {1, 1, 1, 1, 1, 1},
    {2, 2, 2, 3, 3, 8, true},
    {2, 2, 2, 17, 17, 16, true, true},
    {1, 2, 2, 127, 127, 32, true},
    {1, 2, 1, 127, 127, 64, true, true, Segments::none, 0, 0, 0.25f},
    {2, 3, 3, 1, 300, 64, true, true, Segments::none, 0, 299},               // one step of decoding over a long cache
    {2, 4, 2, 3, 17, 24, true, true, Segments::none, 0, 5},                  // a few steps; keys to come are not seen
    {2, 2, 2, 40, 300, 32, false, false, Segments::padded_keys, 0, 0, 0.1f},  // cross-attention over padded rows
    {2, 2, 2, 130, 127, 17, false, false, Segments::packed},                 // packed cross-attention, odd head size
    {3, 2, 2, 127, 127, 16, true, true, Segments::packed, 0, 0, 0.1f},
    {2, 6, 2, 300, 300, 16, true, false, Segments::packed, 0, 0, 0.1f},      // several tiles, grouped heads
    {2, 2, 2, 150, 150, 16, true, true, Segments::none, 140, 0, 0.1f},       // prefix longer than a tile
    {3, 2, 1, 17, 17, 7, true, true, Segments::padded_keys, 9, 0, 0.1f, 0.5},
    {1, 3, 3, 260, 5, 33, true, false, Segments::none, 0, 0, 0.5f, 0.125},
    {2, 2, 2, 127, 127, 16, true, false, Segments::scattered, 0, 0, 0.1f},
    {2, 2, 1, 150, 150, 16, true, true, Segments::packed, 1, 0, 0.1f},               // a prefix in every packed segment
    {2, 2, 2, 300, 300, 16, true, true, Segments::none, 0, 0, 0.1f, 0.25, 20},       // a window; whole tiles outside of it
    {2, 4, 2, 17, 17, 8, false, true, Segments::padded_keys, 0, 0, 0, 1, 1},         // a window of the query's own position
    {2, 2, 2, 3, 300, 16, true, true, Segments::none, 0, 290, 0, 1, 7},
    {3, 2, 2, 17, 17, 16, true, true, Segments::packed, 0, 0, 0.25f, 1, 0, true},
    {2, 6, 2, 130, 300, 16, false, false, Segments::packed, 0, 0, 0.1f, 1, 0, true},
    {1, 2, 2, 129, 129, 64, true, false, Segments::none, 0, 0, 0.1f, 1, 0, false, true},  // one row more than tiles of 64 and 128 hold
    {1, 1, 1, 300, 300, 8, true, true, Segments::none, 0, 0, 0, 1, 0, false, true},       // tiles whose distances share the last bucket
    {2, 4, 2, 65, 65, 128, true, true, Segments::packed, 0, 0, 0.1f, 0.125, 0, false, true},
    {1, 2, 1, 64, 200, 96, false, false, Segments::padded_keys, 0, 0, 0.1f, 0.125, 0, false, true},
    {1, 2, 1, 4, 520, 40, true, false, Segments::padded_keys, 0, 0, 0.1f, 1, 0, false, true},  // few queries over many keys
};

/// Everything one case needs, in one type. q, k and v are slices of one fused tensor if they have the same length.
struct Operands {
    ops::AttentionArgs forward;
    ops::AttentionBackwardArgs backward;
    Tensor fused, d_fused;

    Operands(Context& context, const Case& c, DType dtype) {
        const int64_t width = c.heads * c.size, kv_width = c.kv_heads * c.size;
        ops::AttentionArgs& f = forward;
        ops::AttentionBackwardArgs& b = backward;
        const auto padding = [&](int64_t odd) { return c.aligned ? 8 : odd; };
        if (c.queries == c.keys) {
            fused = make(context, dtype, {c.batch, c.queries, width + 2 * kv_width}, padding(3)), d_fused = make(context, dtype, fused.shape, padding(3));
            const auto slice = [&](const Tensor& from, Tensor& q, Tensor& k, Tensor& v) {
                q = from.columns(0, width), k = from.columns(width, kv_width), v = from.columns(width + kv_width, kv_width);
            };
            slice(fused, f.q, f.k, f.v), slice(d_fused, b.d_q, b.d_k, b.d_v);
        } else {
            f.q = make(context, dtype, {c.batch, c.queries, width}, padding(5)), b.d_q = make(context, dtype, f.q.shape, padding(1));
            f.k = make(context, dtype, {c.batch, c.keys, kv_width}, padding(4)), b.d_k = make(context, dtype, f.k.shape);
            f.v = make(context, dtype, {c.batch, c.keys, kv_width}), b.d_v = make(context, dtype, f.v.shape, padding(2));
        }
        fill(f.q, 1), fill(f.k, 2), fill(f.v, 3);
        f.heads = c.heads, f.kv_heads = c.kv_heads, f.scale = c.scale, f.causal = c.causal, f.query_offset = c.offset;
        f.buckets.bidirectional = !c.causal;
        if (c.bias) f.bias_table = random(context, dtype, {f.buckets.count, c.heads}, 4, 2);
        if (c.segments != Segments::none) f.key_segments = segments(context, c, c.keys);
        if (c.segments == Segments::packed) {
            f.query_segments = segments(context, c, c.queries);
            set(f.query_segments, 0, 0, 77);  // sees nothing
        }
        if (c.segments == Segments::scattered) {  // in row 1, stretches that see nothing between others that do
            f.query_segments = make(context, DType::i32, {c.batch, c.queries});
            for (int64_t row = 0; row < c.batch; ++row)
                for (int64_t i = 0; i < c.queries; ++i) set(f.query_segments, row, i, row == 1 && i / 24 % 2 == 1 ? 2 : 1);
        }
        if (c.prefix) {
            f.prefix_ends = make(context, DType::i32, {c.batch, c.queries});
            for (int64_t row = 0; row < c.batch; ++row)
                for (int64_t i = 0; i < c.queries; ++i) set(f.prefix_ends, row, i, static_cast<double>(prefix_end(c, f, row, i)));
        }
        f.window = c.window;
        f.dropout = Dropout::with(c.dropout, {5, 6, 7, Purpose::attention_dropout}, 1000003);
        if (c.broadcast) {
            f.dropout.length = static_cast<uint64_t>(c.queries), f.dropout.features = static_cast<uint64_t>(c.keys);
            f.dropout.first = 7 * f.dropout.length * f.dropout.features;
        }
        f.out = make(context, dtype, f.q.shape, padding(7)), f.log_sum = make(context, accumulate_type(dtype), {c.batch, c.heads, c.queries});
        b.d_out = random(context, dtype, f.q.shape, 8, 1, padding(2));
        if (c.bias) b.d_bias_table = context.zeros(accumulate_type(dtype), f.bias_table.shape);
    }

    /// Rows of segments 1, 2, 3, of about a third each, then padding; row 1 is padding only from its first quarter on; with padded keys, one segment.
    static Tensor segments(Context& context, const Case& c, int64_t length) {
        Tensor t = make(context, DType::i32, {c.batch, length});
        for (int64_t row = 0; row < c.batch; ++row) {
            const int64_t real = row == 1 ? (length + 3) / 4 : length - length / 8;
            const int64_t count = c.segments == Segments::packed ? 3 : 1;
            for (int64_t i = 0; i < length; ++i) set(t, row, i, static_cast<double>(i >= real ? 0 : 1 + count * i / length));
        }
        return t;
    }

    static int64_t prefix_end(const Case& c, const ops::AttentionArgs& f, int64_t row, int64_t i) {
        if (c.segments != Segments::packed) return i < c.prefix - row ? c.prefix - row : 0;
        const double segment = get(f.key_segments, row, i);
        if (segment == 0) return 0;
        int64_t begin = i, end = i;
        while (begin > 0 && get(f.key_segments, row, begin - 1) == segment) --begin;
        while (end < c.keys && get(f.key_segments, row, end) == segment) ++end;
        return i < (begin + end) / 2 ? (begin + end) / 2 : 0;
    }

    void run(Context& context) {
        ops::attention(context, forward);
        backward.forward = forward;
        ops::attention_backward(context, backward);
    }
};

bool visible(const ops::AttentionArgs& a, int64_t row, int64_t i, int64_t j) {
    if (a.key_segments) {
        const double key = get(a.key_segments, row, j), query = a.query_segments ? get(a.query_segments, row, i) : 1;
        if (key == 0 || (query != key && query != 0)) return false;
    }
    if (!a.causal) return true;
    const int64_t position = i + a.query_offset;
    if (a.window && j <= position - a.window) return false;
    return j <= position || (a.prefix_ends && static_cast<double>(j) < get(a.prefix_ends, row, i));
}

/// Relative position to bucket, as the header's formula says, with a logarithm.
int64_t literal_bucket(bool bidirectional, int64_t relative) {
    const int64_t count = bidirectional ? 16 : 32, exact = count / 2;
    const int64_t base = bidirectional && relative > 0 ? 16 : 0, n = bidirectional ? std::abs(relative) : std::max<int64_t>(0, -relative);
    if (n < exact) return base + n;
    const double e = static_cast<double>(exact);
    const int64_t b = exact + static_cast<int64_t>(std::log(static_cast<double>(n) / e) / std::log(128 / e) * (static_cast<double>(count) - e));
    return base + std::min(b, count - 1);
}

/// out and log_sum by the definition.
void literal(const Case& c, const ops::AttentionArgs& a, const Tensor& out, const Tensor& log_sum) {
    std::vector<double> p(static_cast<size_t>(c.keys));
    for (int64_t row = 0; row < c.batch; ++row)
        for (int64_t h = 0; h < c.heads; ++h)
            for (int64_t i = 0; i < c.queries; ++i) {
                const int64_t kv = h / (c.heads / c.kv_heads);
                double sum = 0;
                for (int64_t j = 0; j < c.keys; ++j) {
                    double score = 0;
                    for (int64_t e = 0; e < c.size; ++e)
                        score += get(a.q, row * c.queries + i, h * c.size + e) * get(a.k, row * c.keys + j, kv * c.size + e);
                    score *= c.scale;
                    if (c.bias) score += get(a.bias_table, literal_bucket(!c.causal, j - i - c.offset), h);
                    sum += p[static_cast<size_t>(j)] = visible(a, row, i, j) ? std::exp(score) : 0;
                }
                const int64_t query = (row * c.heads + h) * c.queries + i;
                set(log_sum, 0, query, std::log(sum));
                for (int64_t e = 0; e < c.size; ++e) {
                    double value = 0;
                    for (int64_t j = 0; j < c.keys; ++j) {
                        const double factor = a.dropout.factor(static_cast<uint64_t>(query * c.keys + j));
                        value += p[static_cast<size_t>(j)] * factor * get(a.v, row * c.keys + j, kv * c.size + e);
                    }
                    set(out, row * c.queries + i, h * c.size + e, sum > 0 ? value / sum : 0);
                }
            }
}

}  // namespace

TEST_SUITE("ops/attention") {
    TEST_CASE("buckets begin where T5's begin") {
        ops::BucketRule rule;
        const auto check = [&](int64_t sign, int64_t offset, const std::vector<int64_t>& first, int64_t exact) {
            for (int64_t n = 0; n < 4096; ++n) {
                int64_t expected = std::min(n, exact - 1);
                for (size_t b = 0; b < first.size(); ++b)
                    if (n >= first[b]) expected = exact + static_cast<int64_t>(b);
                REQUIRE(ops::bucket_of(rule, sign * n) == expected + (n > 0 ? offset : 0));
            }
        };
        check(-1, 0, {8, 12, 16, 23, 32, 46, 64, 91}, 8);
        check(1, 16, {8, 12, 16, 23, 32, 46, 64, 91}, 8);
        rule.bidirectional = false;
        check(-1, 0, {16, 19, 21, 24, 27, 31, 35, 40, 46, 52, 59, 67, 77, 87, 99, 113}, 16);
        for (int64_t right = 0; right < 300; ++right) REQUIRE(ops::bucket_of(rule, right) == 0);
    }

    TEST_CASE("double agrees with the definition") {
        for (size_t n = 0; n < std::size(cases); ++n) {
            CAPTURE(n);
            TestContext context;
            Operands o(context, cases[n], DType::f64);
            ops::attention(context, o.forward);
            const Tensor out = context.allocate(DType::f64, o.forward.q.shape), log_sum = context.allocate(DType::f64, o.forward.log_sum.shape);
            literal(cases[n], o.forward, out, log_sum);
            compare("attention out", o.forward.out, out, DType::f64, Kind::chain);
            for (int64_t i = 0; i < log_sum.elements(); ++i) {
                const double expected = get(log_sum, 0, i), got = get(o.forward.log_sum.view({log_sum.elements()}), 0, i);
                REQUIRE((expected == got || std::abs(expected - got) < 1e-12 * std::abs(expected) + 1e-13));
            }
            CHECK(padding_untouched(o.forward.out));
        }
    }

    TEST_CASE("f32 and bf16 agree with double, forward and backward") {
        for (size_t n = 0; n < std::size(cases); ++n)
            for (const DType dtype : {DType::f32, DType::bf16}) {
                CAPTURE(n);
                TestContext context;
                Operands exact(context, cases[n], DType::f64), o(context, cases[n], dtype);
                ops::attention(context, exact.forward);
                o.run(context);
                compare("attention out", o.forward.out, exact.forward.out, dtype, Kind::chain);
                // The backward is given out as it was stored, rounded; what that rounding does to the gradients is not an error of the backward.
                exact.forward.out = convert(context, o.forward.out, DType::f64);
                exact.backward.forward = exact.forward;
                ops::attention_backward(context, exact.backward);
                const auto gradient = [&](const char* what, const Tensor& got, const Tensor& expected) {
                    compare(what, convert(context, got, dtype), expected, dtype, Kind::chain);  // a copy: a slice has neighbours, not padding
                };
                gradient("attention d_q", o.backward.d_q, exact.backward.d_q);
                gradient("attention d_k", o.backward.d_k, exact.backward.d_k);
                gradient("attention d_v", o.backward.d_v, exact.backward.d_v);
                if (cases[n].bias) compare("attention d_bias_table", o.backward.d_bias_table, exact.backward.d_bias_table, dtype, Kind::chain);
                CHECK(padding_untouched(o.forward.out));
                for (const Tensor& t : {o.d_fused ? o.d_fused : o.backward.d_q, o.d_fused ? o.d_fused : o.backward.d_v}) CHECK(padding_untouched(t));
            }
    }

    TEST_CASE("gradients are the derivatives") {
        for (size_t n = 0; n < std::size(cases); ++n) {
            CAPTURE(n);
            TestContext context;
            Operands o(context, cases[n], DType::f64);
            o.run(context);
            const auto loss = [&] {
                ops::attention(context, o.forward);
                return dot(o.forward.out, o.backward.d_out);
            };
            const Checked q{o.forward.q, o.backward.d_q}, k{o.forward.k, o.backward.d_k}, v{o.forward.v, o.backward.d_v};
            if (cases[n].keys == 1) {
                gradient_check("attention", loss, {v});
            } else if (cases[n].bias) {
                gradient_check("attention", loss, {q, k, v, {o.forward.bias_table, o.backward.d_bias_table}});
            } else {
                gradient_check("attention", loss, {q, k, v});
            }
        }
    }

    TEST_CASE("a bias gradient adds, other gradients overwrite") {
        TestContext context;
        Operands o(context, cases[2], DType::f64);
        o.run(context);
        const Tensor d_q = convert(context, o.backward.d_q, DType::f64), once = convert(context, o.backward.d_bias_table, DType::f64);
        o.run(context);
        CHECK(same_bits(o.backward.d_q, d_q));
        for (int64_t b = 0; b < once.rows(); ++b) CHECK(get(o.backward.d_bias_table, b, 1) == 2 * get(once, b, 1));
    }

    TEST_CASE("a bias table of the accumulation type serves bf16 too") {
        TestContext context;
        Operands o(context, cases[2], DType::bf16);
        o.run(context);
        const Tensor out = convert(context, o.forward.out, DType::bf16), d_q = convert(context, o.backward.d_q, DType::bf16);
        o.forward.bias_table = convert(context, o.forward.bias_table, DType::f32);
        o.run(context);
        CHECK(same_bits(o.forward.out, out));
        CHECK(same_bits(o.backward.d_q, d_q));
    }

    TEST_CASE("heads that ranks share: each half gives its part of the whole, dropout included") {
        for (const Case& c : cases) {
            if (c.heads % 2 != 0 || c.kv_heads % 2 != 0 || c.dropout == 0) continue;
            CAPTURE(c.queries);
            CAPTURE(c.keys);
            TestContext context;
            Operands whole(context, c, DType::f32);
            whole.run(context);
            for (const int64_t half : {0, 1}) {
                Operands own(context, c, DType::f32);
                const int64_t width = whole.forward.q.cols() / 2, keys_width = whole.forward.k.cols() / 2, heads = whole.forward.heads / 2;
                const auto part = [&](const Tensor& t, int64_t columns) { return t ? t.columns(half * columns, columns) : t; };
                ops::AttentionArgs& f = own.forward;
                f.dropout.first += static_cast<uint64_t>(half * heads * f.q.shape[1] * f.k.shape[1]);
                f.dropout_heads = f.heads;
                f.heads = heads, f.kv_heads /= 2;
                f.q = part(f.q, width), f.k = part(f.k, keys_width), f.v = part(f.v, keys_width), f.out = part(f.out, width), f.bias_table = part(f.bias_table, heads);
                f.log_sum = make(context, DType::f32, {f.q.shape[0], heads, f.q.shape[1]});
                ops::AttentionBackwardArgs& b = own.backward;
                b.d_out = part(b.d_out, width), b.d_q = part(b.d_q, width), b.d_k = part(b.d_k, keys_width), b.d_v = part(b.d_v, keys_width), b.d_bias_table = part(b.d_bias_table, heads);
                own.run(context);
                const auto same = [&](const Tensor& got, const Tensor& all) {
                    if (got) compare("attention of half the heads", convert(context, got, DType::f32), convert(context, part(all, got.cols()), DType::f64), DType::f32, Kind::chain);
                };
                same(f.out, whole.forward.out), same(b.d_q, whole.backward.d_q), same(b.d_k, whole.backward.d_k), same(b.d_v, whole.backward.d_v);
                same(b.d_bias_table, whole.backward.d_bias_table);
            }
        }
    }

    TEST_CASE("decoding step by step over a cache equals the causal forward") {
        for (const DType dtype : float_types) {
            TestContext context;
            const Case full{2, 3, 3, 150, 150, 16, true, true};
            Operands whole(context, full, dtype);
            ops::attention(context, whole.forward);
            // A cache of the full capacity whose keys to come are still NaN.
            const Tensor keys = make(context, dtype, {2, 150, 48}), values = make(context, dtype, {2, 150, 48});
            for (int64_t step = 0; step < 150; ++step) {
                Tensor q = make(context, dtype, {2, 1, 48}), out = make(context, dtype, {2, 1, 48}), expected = make(context, DType::f64, {2, 1, 48});
                for (int64_t row = 0; row < 2; ++row)
                    for (int64_t e = 0; e < 48; ++e) {
                        set(keys, row * 150 + step, e, get(whole.forward.k, row * 150 + step, e));
                        set(values, row * 150 + step, e, get(whole.forward.v, row * 150 + step, e));
                        set(q, row, e, get(whole.forward.q, row * 150 + step, e));
                        set(expected, row, e, get(whole.forward.out, row * 150 + step, e));
                    }
                ops::AttentionArgs one = whole.forward;
                one.q = q, one.k = keys, one.v = values, one.out = out, one.log_sum = {}, one.query_offset = step;
                ops::attention(context, one);
                // Probabilities are rounded to bf16 where a kernel multiplies them on matrix units, and not where it takes one query at a time.
                compare("attention decoding", out, expected, dtype, dtype == DType::bf16 ? Kind::chain : Kind::reduction);
            }
        }
    }

    TEST_CASE("keys of other rows, by a table, are those that a row of its own would hold") {
        const Case few[] = {{5, 4, 2, 1, 300, 16, true, true, Segments::none, 0, 270}, {6, 2, 2, 1, 17, 7, true, true, Segments::padded_keys, 0, 16, 0, 1, 9},
                            {3, 2, 1, 4, 600, 64, false, true, Segments::none, 0, 590, 0, 0.125, 0, false, true}, {4, 1, 1, 3, 40, 33, true, false, Segments::padded_keys, 0, 0, 0.1f}};
        for (const Case& c : few)
            for (const DType dtype : float_types) {
                CAPTURE(c.keys);
                TestContext context;
                Operands own(context, c, dtype), spread(context, c, dtype);
                const Tensor rows = make(context, DType::i32, {c.batch, c.keys});
                fill_integers(rows, 11, c.batch);
                // What lies at [rows[b, j], j] may serve several rows, so the rows of `own` are filled from there.
                for (int64_t b = 0; b < c.batch; ++b)
                    for (int64_t j = 0; j < c.keys; ++j)
                        for (int64_t e = 0; e < own.forward.k.cols(); ++e) {
                            const int64_t from = static_cast<int64_t>(get(rows, b, j)) * c.keys + j;
                            set(own.forward.k, b * c.keys + j, e, get(spread.forward.k, from, e)), set(own.forward.v, b * c.keys + j, e, get(spread.forward.v, from, e));
                        }
                spread.forward.key_rows = rows;
                ops::attention(context, own.forward), ops::attention(context, spread.forward);
                CHECK(same_bits(own.forward.out, spread.forward.out));
                CHECK(same_bits(own.forward.log_sum, spread.forward.log_sum));
            }
        TestContext context;
        Operands many(context, {2, 1, 1, 5, 9, 8}, DType::f32);
        many.forward.key_rows = make(context, DType::i32, {2, 9});
        fill_integers(many.forward.key_rows, 1, 2);
        CHECK_THROWS_AS(ops::attention(context, many.forward), Error);
    }

    TEST_CASE("packed segments equal separate rows") {
        for (const bool causal : {false, true}) {
            TestContext context;
            Operands packed(context, {1, 2, 2, 200, 200, 16, true, causal, Segments::packed}, DType::f64);
            const int64_t begin[] = {0, 60, 90, 200}, ld = packed.fused.ld;
            for (int64_t i = 0; i < 200; ++i)
                for (const Tensor& t : {packed.forward.query_segments, packed.forward.key_segments}) set(t, 0, i, i < 60 ? 1 : i < 90 ? 2 : 3);
            packed.run(context);
            for (int part = 0; part < 3; ++part) {
                const int64_t first = begin[part], length = begin[part + 1] - first;
                Operands alone(context, {1, 2, 2, length, length, 16, true, causal}, DType::f64);
                for (int64_t i = 0; i < length; ++i) {
                    for (int64_t e = 0; e < 96; ++e) set(alone.fused, i, e, static_cast<double*>(packed.fused.data)[(first + i) * ld + e]);
                    for (int64_t e = 0; e < 32; ++e) set(alone.backward.d_out, i, e, get(packed.backward.d_out, first + i, e));
                }
                alone.run(context);
                compare("attention packed", packed.forward.out.slice_rows(first, length), alone.forward.out, DType::f64, Kind::chain);
                compare("attention packed", packed.d_fused.slice_rows(first, length), alone.d_fused, DType::f64, Kind::chain);
            }
        }
    }

    TEST_CASE("a query that sees nothing gives zeros, and NaN is not hidden") {
        TestContext context;
        Operands o(context, {1, 1, 1, 4, 4, 16, false, false, Segments::packed}, DType::f32);
        for (int64_t i = 0; i < 4; ++i) set(o.forward.key_segments, 0, i, 1), set(o.forward.query_segments, 0, i, i == 2 ? 5 : 1);
        o.run(context);
        for (int64_t e = 0; e < 16; ++e) {
            CHECK(get(o.forward.out, 2, e) == 0);
            CHECK(get(o.backward.d_q, 2, e) == 0);
        }
        CHECK(get(o.forward.log_sum.view({4}), 0, 2) == -INFINITY);
        set(o.forward.q, 1, 3, NAN);
        ops::attention(context, o.forward);
        CHECK(std::isnan(get(o.forward.out, 1, 0)));
        CHECK(!std::isnan(get(o.forward.out, 0, 0)));
    }

    TEST_CASE("the same bits for any number of threads and from run to run") {
        for (const DType dtype : float_types)
            for (const size_t n : {size_t{4}, size_t{9}, size_t{10}}) {
                TestContext context;
                Operands one(context, cases[n], dtype), two(context, cases[n], dtype), three(context, cases[n], dtype);
                {
                    const Threads threads(1);
                    one.run(context);
                }
                for (Operands* o : {&two, &three}) {
                    const Threads threads(o == &two ? 2 : 3);
                    o->run(context);
                    CHECK(same_bits(one.forward.out, o->forward.out));
                    CHECK(same_bits(one.d_fused, o->d_fused));
                    CHECK(same_bits(one.backward.d_bias_table, o->backward.d_bias_table));
                }
            }
    }

    TEST_CASE("arguments are checked") {
        TestContext context;
        Operands o(context, cases[2], DType::f32);
        const auto refused = [&](auto&& change) {
            ops::AttentionArgs args = o.forward;
            change(args);
            CHECK_THROWS_AS(ops::attention(context, args), Error);
        };
        refused([](auto& a) { a.heads = 3; });
        refused([](auto& a) { a.kv_heads = 1; });
        refused([](auto& a) { a.k = Tensor{}; });
        refused([](auto& a) { a.buckets.count = 16; });
        refused([](auto& a) { a.query_offset = -1; });
        refused([&](auto& a) { a.query_segments = make(context, DType::i32, {2, 17}); });
        refused([&](auto& a) { a.out = make(context, DType::bf16, a.q.shape); });
        if (context.device != Device::cuda) return;
        Operands wide(context, {1, 1, 1, 2, 2, 136}, DType::bf16);  // wider heads than kernels hold
        CHECK_THROWS_AS(ops::attention(context, wide.forward), Error);
        refused([](auto& a) { a.buckets.max_distance = 4000, a.query_offset = 3000; });  // more distances than shared memory
    }
}

// Embedding: the lookup bit for bit; the gradient bit for bit in double, ids that repeat a lot and threads included.
#include "ops/embedding.hpp"

#include "ops/check.hpp"

#include <doctest/doctest.h>

using namespace flanmoe;
using namespace flanmoe::test;

namespace {

struct Case {
    int64_t positions, vocabulary, cols;
    int64_t padding = 1;  // of rows; 8: they stay aligned to 16 bytes
};
// The last three: kernels that move 16 bytes at a time; more positions than one tile of their sort has; ids of more bits than two passes of it sort.
const Case cases[] = {{1, 1, 1}, {3, 17, 3}, {127, 5, 17}, {2000, 7, 127}, {1000, 300, 64}, {0, 9, 4}, {700, 40, 264, 8}, {5000, 600, 8, 8}, {300, 70001, 2}};

// Half the positions have id 0, as padding has.
Tensor skewed_ids(Context& context, const Case& c) {
    const Tensor ids = make(context, DType::i32, {c.positions});
    fill_integers(ids, 1, c.vocabulary);
    for (int64_t n = 0; n < c.positions; n += 2) set(ids, 0, n, 0);
    return ids;
}
int64_t id_at(const Tensor& ids, int64_t n) { return static_cast<int64_t>(get(ids, 0, n)); }

}  // namespace

TEST_SUITE("ops/embedding") {
    TEST_CASE("forward copies rows") {
        for (const Case& c : cases) {
            for (DType type : float_types) {
                TestContext context;
                const Tensor table = random(context, type, {c.vocabulary, c.cols}, 2, 1, c.padding), ids = skewed_ids(context, c);
                const Tensor out = make(context, type, {c.positions, c.cols}, 2 * c.padding);
                ops::embedding(context, {table, ids, out});
                CHECK(padding_untouched(out));
                int64_t wrong = 0;
                for (int64_t n = 0; n < c.positions; ++n) wrong += !same_bits(out.slice_rows(n, 1), table.slice_rows(id_at(ids, n), 1));
                CHECK(wrong == 0);
            }
        }
    }

    TEST_CASE("backward adds in the order of positions: the naive loop's bits in double, for any number of threads") {
        for (const Case& c : cases) {
            CAPTURE(c.positions);
            for (DType type : float_types) {
                TestContext context;
                const Tensor ids = skewed_ids(context, c);
                // Thirds: sums in double are rounded, so that their order shows.
                const Tensor d_out = random(context, type, {c.positions, c.cols}, 3, 1.0 / 3, c.padding);
                const Tensor expected = random(context, DType::f64, {c.vocabulary, c.cols}, 4);
                for (int64_t n = 0; n < c.positions; ++n)
                    for (int64_t col = 0; col < c.cols; ++col)
                        set(expected, id_at(ids, n), col, get(expected, id_at(ids, n), col) + get(d_out, n, col));
                Tensor first;
                for (int count : {1, 2, 3}) {
                    Threads threads(count);
                    const Tensor d_table = random(context, accumulate_type(type), {c.vocabulary, c.cols}, 4, 1, c.padding);
                    ops::embedding_backward(context, {ids, d_out, d_table});
                    CHECK(padding_untouched(d_table));
                    compare("embedding backward", d_table, expected, accumulate_type(type), Kind::reduction);
                    if (type == DType::f64) CHECK(same_bits(d_table, expected));
                    if (count == 1) first = d_table;
                    CHECK(same_bits(d_table, first));
                }
            }
        }
    }

    TEST_CASE("gradient of the table") {
        TestContext context;
        const Case c{127, 17, 9};
        const Tensor table = random(context, DType::f64, {c.vocabulary, c.cols}, 2), ids = skewed_ids(context, c);
        const Tensor out = make(context, DType::f64, {c.positions, c.cols}), d_out = random(context, DType::f64, {c.positions, c.cols}, 3);
        const Tensor d_table = context.zeros(DType::f64, {c.vocabulary, c.cols});
        ops::embedding_backward(context, {ids, d_out, d_table});
        gradient_check("embedding", [&] { return ops::embedding(context, {table, ids, out}), dot(out, d_out); }, {{table, d_table}});
    }

    TEST_CASE("a table in three parts: their sum is the lookup, their gradients are the rows of the whole one's") {
        for (const Case& c : cases) {
            for (DType type : float_types) {
                TestContext context;
                const Tensor table = random(context, type, {c.vocabulary, c.cols}, 2, 1, c.padding), ids = skewed_ids(context, c), d_out = random(context, type, {c.positions, c.cols}, 3);
                const Tensor whole = make(context, type, {c.positions, c.cols}), d_table = random(context, accumulate_type(type), {c.vocabulary, c.cols}, 4, 1, c.padding);
                ops::embedding(context, {table, ids, whole});
                const Tensor sum = context.zeros(DType::f64, {c.positions, c.cols}), d_parts = random(context, accumulate_type(type), {c.vocabulary, c.cols}, 4, 1, c.padding);
                for (int64_t part = 0; part < 3; ++part) {
                    const int64_t first = c.vocabulary * part / 3, rows = c.vocabulary * (part + 1) / 3 - first;
                    if (rows == 0) continue;
                    const Tensor out = make(context, type, {c.positions, c.cols});
                    ops::embedding(context, {table.slice_rows(first, rows), ids, out, first, c.vocabulary});
                    for (int64_t n = 0; n < c.positions; ++n)
                        for (int64_t col = 0; col < c.cols; ++col) set(sum, n, col, get(sum, n, col) + get(out, n, col));
                    ops::embedding_backward(context, {ids, d_out, d_parts.slice_rows(first, rows), first, c.vocabulary});
                }
                ops::embedding_backward(context, {ids, d_out, d_table});
                CHECK(same_bits(convert(context, sum, type), whole));
                compare("embedding backward in parts", d_parts, convert(context, d_table, DType::f64), accumulate_type(type), Kind::reduction);
            }
        }
    }

    TEST_CASE("arguments that do not fit are refused") {
        TestContext context;
        const Tensor table = random(context, DType::bf16, {5, 4}, 1), ids = context.zeros(DType::i32, {3});
        CHECK_THROWS_AS(ops::embedding(context, {table, ids, make(context, DType::f32, {3, 4})}), Error);
        CHECK_THROWS_AS(ops::embedding(context, {table, ids, make(context, DType::bf16, {3, 4}), 3, 7}), Error);  // rows 3 .. 7 of 7
        CHECK_THROWS_AS(ops::embedding_backward(context, {ids, make(context, DType::bf16, {3, 4}), table}), Error);  // the table's gradient is f32
    }
}

// Slots of rows that other ranks sent, against literal loops; both ways, with and without gaps, sources and experts that have nothing.
#include "ops/exchange.hpp"

#include "ops/check.hpp"

#include <doctest/doctest.h>

#include <numeric>

using namespace flanmoe;
using namespace flanmoe::test;

namespace {

struct Case {
    int64_t sources, experts, width, capacity;  ///< capacity 0: no gaps
    bool nothing = false;
};
const Case cases[] = {{1, 1, 1, 0}, {3, 4, 17, 0}, {2, 3, 8, 5}, {4, 1, 64, 3}, {1, 127, 3, 2}, {5, 7, 16, 0, true}, {17, 33, 4, 1}};

/// counts[s, e] up to `capacity` (or 6); every third is 0.
std::vector<int32_t> counts_of(const Case& c) {
    std::vector<int32_t> counts(static_cast<size_t>(c.sources * c.experts));
    for (size_t i = 0; i < counts.size(); ++i) counts[i] = c.nothing || i % 3 == 1 ? 0 : static_cast<int32_t>((i * 7 + 3) % static_cast<size_t>((c.capacity ? c.capacity : 6) + 1));
    return counts;
}

}  // namespace

TEST_SUITE("ops/exchange") {
    TEST_CASE("rows by expert: offsets, slots, and rows there and back in every type") {
        for (const Case& c : cases) {
            CAPTURE(c.sources);
            CAPTURE(c.experts);
            CAPTURE(c.capacity);
            TestContext context;
            const std::vector<int32_t> counts = counts_of(c);
            const int64_t used = std::accumulate(counts.begin(), counts.end(), int64_t{0}), room = used + 3;
            const int64_t slot_count = std::max<int64_t>(1, c.capacity ? c.sources * c.experts * c.capacity : used);
            const Tensor offsets = make(context, DType::i32, {c.experts + 1}), slots = make(context, DType::i32, {room});
            ops::expert_slots(context, {context.upload(counts, {c.sources, c.experts}), c.capacity, offsets, slots});

            std::vector<int32_t> expected_offsets{0}, expected_slots;
            for (int64_t e = 0; e < c.experts; ++e) {
                for (int64_t s = 0; s < c.sources; ++s) {
                    const int64_t i = s * c.experts + e, first = c.capacity ? i * c.capacity : std::accumulate(counts.begin(), counts.begin() + i, int64_t{0});
                    for (int32_t r = 0; r < counts[static_cast<size_t>(i)]; ++r) expected_slots.push_back(static_cast<int32_t>(first) + r);
                }
                expected_offsets.push_back(static_cast<int32_t>(expected_slots.size()));
            }
            CHECK(context.download<int32_t>(offsets) == expected_offsets);
            const std::vector<int32_t> got = context.download<int32_t>(slots);
            CHECK(std::equal(expected_slots.begin(), expected_slots.end(), got.begin()));

            const Tensor totals = make(context, DType::i32, {c.experts});
            ops::count_rows(context, {offsets, totals});
            for (int64_t e = 0; e < c.experts; ++e) CHECK(get(totals, 0, e) == expected_offsets[static_cast<size_t>(e) + 1] - expected_offsets[static_cast<size_t>(e)]);

            for (const DType type : {DType::f32, DType::bf16, DType::f64, DType::i64}) {
                const Tensor in_slots = make(context, type, {slot_count, c.width}), rows = make(context, type, {room, c.width}), back = make(context, type, {slot_count, c.width});
                type == DType::i64 ? fill_integers(in_slots, 2, 1000) : fill(in_slots, 2);
                ops::from_slots(context, {rows, offsets, slots, in_slots});
                ops::to_slots(context, {rows, offsets, slots, back});
                int64_t wrong = 0;
                for (size_t r = 0; r < expected_slots.size(); ++r) {
                    wrong += !same_bits(rows.slice_rows(static_cast<int64_t>(r), 1), in_slots.slice_rows(expected_slots[r], 1));
                    wrong += !same_bits(back.slice_rows(expected_slots[r], 1), in_slots.slice_rows(expected_slots[r], 1));
                }
                const Tensor fresh = make(context, type, {slot_count, c.width});
                for (int64_t s = 0; s < slot_count; ++s)  // slots without a row stay as they were
                    if (std::find(expected_slots.begin(), expected_slots.end(), s) == expected_slots.end()) wrong += !same_bits(back.slice_rows(s, 1), fresh.slice_rows(s, 1));
                CHECK(wrong == 0);
                const Tensor beyond = make(context, type, {3, c.width});  // untouched: as make() leaves it
                CHECK(same_bits(rows.slice_rows(used, 3), beyond));
            }
        }
    }

    TEST_CASE("arguments that do not fit are refused") {
        TestContext context;
        const Tensor counts = context.zeros(DType::i32, {2, 3}), slots = context.zeros(DType::i32, {4}), offsets = context.zeros(DType::i32, {4});
        CHECK_THROWS_AS(ops::expert_slots(context, {counts, 0, context.zeros(DType::i32, {3}), slots}), Error);
        CHECK_THROWS_AS(ops::from_slots(context, {make(context, DType::f32, {4, 3}), offsets, slots, make(context, DType::f64, {6, 3})}), Error);
        CHECK_THROWS_AS(ops::to_slots(context, {make(context, DType::f32, {5, 3}), offsets, slots, make(context, DType::f32, {6, 3})}), Error);
    }
}

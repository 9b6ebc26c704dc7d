// Span corruption against the recorded case of test/oracle/spans, T5's published lengths, and properties of random masks.
#include "data/span_corruption.hpp"

#include "core/file.hpp"
#include "fixtures.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <map>
#include <numeric>

using namespace flanmoe;

TEST_SUITE("data/span_corruption") {
    TEST_CASE("lengths of T5") {
        CHECK(span_lengths(512, 0.15, 3.0) == SpanLengths{568, 114});
        CHECK(flanmoe::testing::contains(flanmoe::testing::failure(Exit::usage, [] { span_lengths(512, 1.5, 3.0); }), "noise density 1.5"));
    }

    TEST_CASE("recorded lengths and examples") {
        const auto record = nlohmann::json::parse(read_file("test/oracle/spans/case.json"));
        for (const auto& row : record["lengths"]) {
            const SpanLengths lengths = span_lengths(row["inputs"], row["density"], row["mean_span"]);
            CAPTURE(row.dump());
            CHECK(lengths.window == row["window"].get<int64_t>());
            CHECK(lengths.targets == row["targets"].get<int64_t>());
        }
        const int32_t first_sentinel = record["vocab_size"].get<int32_t>() - 1;
        for (const auto& row : record["examples"]) {
            std::vector<int32_t> inputs, targets;
            corrupt_spans(row["tokens"].get<std::vector<int32_t>>(), row["noise"].get<std::vector<uint8_t>>(), first_sentinel, 1, inputs, targets);
            CHECK(inputs == row["inputs"].get<std::vector<int32_t>>());
            CHECK(targets == row["targets"].get<std::vector<int32_t>>());
        }
        CHECK(record["examples"].size() == 20);
    }

    TEST_CASE("masks: counts, spans, and the lengths they promise, at any window") {
        RandomStream random(RandomKey{5, 0, 0, Purpose::span_corruption});
        for (const auto& [density, mean] : {std::pair{0.15, 3.0}, {0.5, 3.0}, {0.9, 2.0}, {0.15, 64.0}, {0.01, 1.0}}) {
            for (int64_t window : {2, 3, 4, 17, 127, 568}) {
                const SpanCounts counts = span_counts(window, density, mean);
                const std::vector<uint8_t> mask = random_noise_mask(window, density, mean, random);
                CAPTURE(window);
                REQUIRE(static_cast<int64_t>(mask.size()) == window);
                CHECK(mask.front() == 0);
                CHECK(mask.back() == 1);
                int64_t noise = 0, spans = 0;
                for (size_t i = 0; i < mask.size(); ++i) noise += mask[i], spans += mask[i] && !mask[i - 1];
                CHECK(noise == counts.noise);
                CHECK(spans == counts.spans);
                std::vector<int32_t> tokens(mask.size()), inputs, targets;
                std::iota(tokens.begin(), tokens.end(), 10);
                corrupt_spans(tokens, mask, 5000, 1, inputs, targets);
                CHECK(static_cast<int64_t>(inputs.size()) == counts.inputs(window));
                CHECK(static_cast<int64_t>(targets.size()) == counts.targets());
                // Nothing is lost: both sides together hold every token once.
                std::vector<int32_t> kept;
                for (const auto& side : {inputs, targets})
                    for (int32_t t : side)
                        if (t >= 10 && t < 10 + window) kept.push_back(t);
                std::sort(kept.begin(), kept.end());
                CHECK(kept == tokens);
            }
        }
    }

    TEST_CASE("the full window of T5 fills both lengths exactly") {
        RandomStream random(RandomKey{6, 0, 0, Purpose::span_corruption});
        const SpanCounts counts = span_counts(568, 0.15, 3.0);
        CHECK(counts.noise == 85);
        CHECK(counts.spans == 28);
        CHECK(counts.inputs(568) == 512);
        CHECK(counts.targets() == 114);
    }

    TEST_CASE("compositions are uniform") {
        // 5 = a + b + c has six compositions; 6000 draws put 1000 in each, deviation 28.9; six deviations are allowed.
        RandomStream random(RandomKey{7, 0, 0, Purpose::span_corruption});
        std::map<std::vector<int32_t>, int> seen;
        for (int i = 0; i < 6000; ++i) {
            std::vector<int32_t> lengths;
            random_composition(5, 3, random, lengths);
            ++seen[lengths];
        }
        CHECK(seen.size() == 6);
        for (const auto& [lengths, count] : seen) CHECK(std::abs(count - 1000) < 174);
    }

    TEST_CASE("prefixes are uniform and leave something on both sides") {
        RandomStream random(RandomKey{8, 0, 0, Purpose::span_corruption});
        std::vector<int> seen(6, 0);
        for (int i = 0; i < 5000; ++i) ++seen[static_cast<size_t>(random_prefix_length(6, random))];
        CHECK(seen[0] == 0);
        for (size_t k = 1; k < 6; ++k) CHECK(std::abs(seen[k] - 1000) < 170);
    }
}

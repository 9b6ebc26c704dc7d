// See the header. A composition of n into k parts is drawn as k - 1 distinct cut points among n - 1 (Floyd's algorithm), so that a window costs
// two random numbers a span instead of one a token.
#include "data/span_corruption.hpp"

#include "core/error.hpp"

#include <algorithm>
#include <cmath>

namespace flanmoe {

namespace {

// Rounding as in the definition: halves to even, which is the default rounding mode.
int64_t round_half_even(double value) { return static_cast<int64_t>(std::nearbyint(value)); }

SpanCounts unclipped_counts(int64_t window, double density, double mean_span) {
    SpanCounts counts;
    counts.noise = round_half_even(static_cast<double>(window) * density);
    counts.spans = round_half_even(static_cast<double>(counts.noise) / mean_span);
    return counts;
}

void check_settings(double density, double mean_span) {
    if (!(density > 0 && density < 1)) fail(Exit::usage, "noise density {} is out of range; choose a share between 0 and 1, T5's is 0.15", density);
    if (!(mean_span >= 1)) fail(Exit::usage, "mean span length {} is out of range; choose at least 1, T5's is 3", mean_span);
}

}  // namespace

SpanLengths span_lengths(int64_t inputs, double density, double mean_span) {
    check_settings(density, mean_span);
    if (inputs < 3) fail(Exit::usage, "{} input tokens are too few for span corruption; at least 3 are needed", inputs);
    int64_t window = inputs - 1;
    while (unclipped_counts(window + 1, density, mean_span).inputs(window + 1) <= inputs) ++window;
    const SpanCounts counts = unclipped_counts(window, density, mean_span);
    SpanLengths lengths{window, counts.targets()};
    if (density == 0.5 && lengths.targets > inputs) --lengths.window, --lengths.targets;
    return lengths;
}

SpanCounts span_counts(int64_t window, double density, double mean_span) {
    check_settings(density, mean_span);
    require(window >= 2, "a window of at least 2 tokens");
    SpanCounts counts = unclipped_counts(window, density, mean_span);
    counts.noise = std::clamp<int64_t>(counts.noise, 1, window - 1);
    counts.spans =
        std::clamp<int64_t>(round_half_even(static_cast<double>(counts.noise) / mean_span), 1, std::min(counts.noise, window - counts.noise));
    return counts;
}

void random_composition(int64_t total, int64_t pieces, RandomStream& random, std::vector<int32_t>& lengths) {
    require(pieces >= 1 && total >= pieces, "at least one item for every part");
    std::vector<uint8_t> cut(static_cast<size_t>(total), 0);  // cut[i]: a part begins at item i
    const int64_t places = total - 1, cuts = pieces - 1;
    for (int64_t j = places - cuts; j < places; ++j) {
        const auto drawn = static_cast<size_t>(random.below(static_cast<uint64_t>(j) + 1)) + 1;
        const size_t last = static_cast<size_t>(j) + 1;
        cut[cut[drawn] ? last : drawn] = 1;
    }
    int32_t length = 1;
    for (int64_t i = 1; i < total; ++i) {
        if (cut[static_cast<size_t>(i)]) lengths.push_back(length), length = 0;
        ++length;
    }
    lengths.push_back(length);
}

std::vector<uint8_t> random_noise_mask(int64_t window, double density, double mean_span, RandomStream& random) {
    const SpanCounts counts = span_counts(window, density, mean_span);
    std::vector<int32_t> noise, kept;
    random_composition(counts.noise, counts.spans, random, noise);
    random_composition(window - counts.noise, counts.spans, random, kept);
    std::vector<uint8_t> mask;
    mask.reserve(static_cast<size_t>(window));
    for (size_t span = 0; span < noise.size(); ++span) {
        mask.insert(mask.end(), static_cast<size_t>(kept[span]), 0);
        mask.insert(mask.end(), static_cast<size_t>(noise[span]), 1);
    }
    return mask;
}

void corrupt_spans(std::span<const int32_t> tokens, std::span<const uint8_t> noise, int32_t first_sentinel, int32_t eos, std::vector<int32_t>& inputs,
                   std::vector<int32_t>& targets) {
    require(tokens.size() == noise.size(), "one mask entry a token");
    inputs.clear();
    targets.clear();
    int32_t sentinel = first_sentinel;
    for (size_t i = 0; i < tokens.size(); ++i) {
        if (!noise[i]) {
            inputs.push_back(tokens[i]);
            continue;
        }
        if (i == 0 || !noise[i - 1]) {
            inputs.push_back(sentinel);
            targets.push_back(sentinel--);
        }
        targets.push_back(tokens[i]);
    }
    inputs.push_back(eos);
    targets.push_back(eos);
}

int64_t random_prefix_length(int64_t window, RandomStream& random) {
    require(window >= 2, "a window of at least 2 tokens");
    return 1 + static_cast<int64_t>(random.below(static_cast<uint64_t>(window - 1)));
}

}  // namespace flanmoe

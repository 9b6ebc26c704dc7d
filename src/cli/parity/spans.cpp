// Kind spans: corruption of given tokens under a given noise mask, and window lengths.
#include "cli/parity/parity.hpp"
#include "data/span_corruption.hpp"

namespace flanmoe::cli {

Computed compute_spans(const ParityCase& given) {
    constexpr int32_t end_mark = 1;
    const int32_t first_sentinel = given.json.at("vocab_size").get<int32_t>() - 1;
    Computed computed;
    for (nlohmann::json example : given.json.at("examples")) {
        const auto tokens = example.at("tokens").get<std::vector<int32_t>>();
        const auto noise = example.at("noise").get<std::vector<uint8_t>>();
        if (tokens.size() != noise.size()) given.malformed("an example has another number of tokens than of noise marks");
        std::vector<int32_t> inputs, targets;
        corrupt_spans(tokens, noise, first_sentinel, end_mark, inputs, targets);
        example["inputs"] = inputs, example["targets"] = targets;
        computed.fields["examples"].push_back(example);
    }
    for (nlohmann::json row : given.json.at("lengths")) {
        const SpanLengths lengths = span_lengths(row.at("inputs").get<int64_t>(), row.at("density").get<double>(), row.at("mean_span").get<double>());
        row["window"] = lengths.window, row["targets"] = lengths.targets;
        computed.fields["lengths"].push_back(row);
    }
    return computed;
}

}  // namespace flanmoe::cli

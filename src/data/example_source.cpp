// Windows: a shard of T tokens is cut at offset + k x window, 0 <= offset < window, so that each pass sees other cuts; the first and last windows
// of a shard are shorter. Instruct examples are tokenised on all cores and kept as one array of ids.
#include "data/example_source.hpp"

#include "core/error.hpp"
#include "core/parallel.hpp"
#include "core/random.hpp"
#include "data/examples.hpp"
#include "data/shard_folder.hpp"
#include "data/span_corruption.hpp"
#include "data/text_files.hpp"

#include <xxhash.h>

#include <algorithm>

namespace flanmoe {

namespace {

uint64_t combine(uint64_t hash, uint64_t value) { return XXH3_64bits_withSeed(&value, sizeof value, hash); }

uint64_t hash_of_settings(const DataConfig& c) {
    uint64_t hash = static_cast<uint64_t>(c.objective);
    for (int64_t value : {c.encoder_length, c.decoder_length, static_cast<int64_t>(c.noise_density * 1e6), static_cast<int64_t>(c.mean_span * 1e6),
                          static_cast<int64_t>(c.truncation), static_cast<int64_t>(c.encoder_decoder)})
        hash = combine(hash, static_cast<uint64_t>(value));
    return hash;
}

class WindowSource : public ExampleSource {
public:
    WindowSource(const std::string& path, const DataConfig& config, const Tokenizer& tokenizer, bool moving)
        : config_(config), folder_(path, true), window_(window_tokens(config)), moving_(moving),
          first_sentinel_(config.objective == Objective::span_corruption ? tokenizer.sentinel(0) : 0) {
        folder_.check_tokenizer(tokenizer);
        int64_t longest = 0;
        for (const TokenShard& shard : folder_.shards()) {
            first_slot_.push_back(size_);
            size_ += (shard.tokens() + window_ - 1) / window_ + 1;
            longest = std::max(longest, shard.tokens());
        }
        if (longest < 2) fail(Exit::bad_data, "the shards in {} hold too little text to train on; give more text to `flanmoe data shard`", path);
        counts_.tokens = folder_.tokens();
        hash_ = combine(combine(hash_of_settings(config), folder_.hash()), static_cast<uint64_t>(moving));
    }

    int64_t size() const override { return size_; }
    uint64_t hash() const override { return hash_; }

    bool get(int64_t pass, int64_t slot, Example& example) const override {
        const size_t s = static_cast<size_t>(std::upper_bound(first_slot_.begin(), first_slot_.end(), slot) - first_slot_.begin()) - 1;
        const TokenShard& shard = folder_.shards()[s];
        const auto seed = static_cast<uint64_t>(config_.seed);
        const auto step = static_cast<uint32_t>(pass);
        // Numbers of shards and slots of one pass draw from different layers of the key.
        const int64_t offset =
            moving_ ? static_cast<int64_t>(RandomStream({seed, step, 1, Purpose::span_corruption}, s * 2).below(static_cast<uint64_t>(window_))) : 0;
        const int64_t begin = offset + (slot - first_slot_[s] - 1) * window_;
        const int64_t first = std::clamp<int64_t>(begin, 0, shard.tokens()), last = std::min(begin + window_, shard.tokens());
        if (last - first < 2) {
            shard.read(first, std::max<int64_t>(last - first, 0), example.inputs);
            return false;
        }
        thread_local std::vector<int32_t> tokens;
        shard.read(first, last - first, tokens);
        RandomStream random({seed, step, 0, Purpose::span_corruption}, static_cast<uint64_t>(slot) << 20);
        if (config_.objective == Objective::span_corruption) {
            corrupt_spans(tokens, random_noise_mask(last - first, config_.noise_density, config_.mean_span, random), first_sentinel_,
                          static_cast<int32_t>(config_.eos_id), example.inputs, example.targets);
        } else if (config_.objective == Objective::causal_lm) {
            example.inputs.clear();
            example.targets = tokens;
        } else {
            const auto split = tokens.begin() + random_prefix_length(last - first, random);
            example.inputs.assign(tokens.begin(), split);
            example.targets.assign(split, tokens.end());
            if (config_.encoder_decoder) {
                example.inputs.push_back(static_cast<int32_t>(config_.eos_id));
                example.targets.push_back(static_cast<int32_t>(config_.eos_id));
            }
        }
        return true;
    }

private:
    DataConfig config_;
    ShardFolder folder_;
    int64_t window_;
    bool moving_;
    int32_t first_sentinel_;
    std::vector<int64_t> first_slot_;
    int64_t size_ = 0;
    uint64_t hash_ = 0;
};

class InstructSource : public ExampleSource {
public:
    InstructSource(const std::vector<std::string>& paths, const DataConfig& config, const Tokenizer& tokenizer) : config_(config), tokenizer_(tokenizer) {
        std::vector<TaskExample> block;
        const ExampleCounts found = for_each_example(paths, example_keys(config), config.malformed, [&](TaskExample&& example) {
            block.push_back(std::move(example));
            if (block.size() == 4096) take(block);
        });
        take(block);
        counts_.examples = found.examples;
        counts_.malformed = found.malformed;
        counts_.tokens = static_cast<int64_t>(ids_.size());
        if (ends_.empty())
            fail(Exit::bad_data, "no example of {} fits into encoder_length {} and decoder_length {}; raise them or truncate", joined(paths, ", "),
                 config.encoder_length, config.decoder_length);
        hash_ = combine(hash_of_settings(config), XXH3_64bits(ids_.data(), ids_.size() * sizeof(int32_t)));
        hash_ = combine(hash_, XXH3_64bits(ends_.data(), ends_.size() * sizeof(Ends)));
    }

    int64_t size() const override { return static_cast<int64_t>(ends_.size()); }
    uint64_t hash() const override { return hash_; }

    bool get(int64_t, int64_t slot, Example& example) const override {
        const auto s = static_cast<size_t>(slot);
        const auto begin = ids_.begin() + (s == 0 ? 0 : ends_[s - 1].targets), middle = ids_.begin() + ends_[s].inputs;
        example.inputs.assign(begin, middle);
        example.targets.assign(middle, ids_.begin() + ends_[s].targets);
        return true;
    }

private:
    struct Ends {
        int64_t inputs, targets;
    };

    // Tokenises a block of examples on all cores, then adds them in order.
    void take(std::vector<TaskExample>& block) {
        std::vector<Example> examples(block.size());
        parallel_for(static_cast<int64_t>(block.size()), 64, [&](int64_t begin, int64_t end) {
            for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
                examples[i].inputs = tokenizer_.encode_with_sentinels(block[i].inputs);
                examples[i].targets = tokenizer_.encode_with_sentinels(block[i].targets[0]);
            }
        });
        block.clear();
        for (Example& example : examples) {
            if (!fit(example)) continue;
            ids_.insert(ids_.end(), example.inputs.begin(), example.inputs.end());
            const auto middle = static_cast<int64_t>(ids_.size());
            ids_.insert(ids_.end(), example.targets.begin(), example.targets.end());
            ends_.push_back({middle, static_cast<int64_t>(ids_.size())});
        }
    }

    // Cuts an example to the lengths and appends the end marks; false if it is dropped.
    bool fit(Example& example) {
        const auto eos = static_cast<int32_t>(config_.eos_id);
        const auto most_targets = static_cast<size_t>(config_.decoder_length) - (config_.encoder_decoder ? 1 : 2);
        const bool long_targets = example.targets.size() > most_targets;
        const size_t kept_targets = std::min(example.targets.size(), most_targets);
        const auto most_inputs = static_cast<size_t>(config_.encoder_decoder ? config_.encoder_length - 1
                                                                             : config_.decoder_length - static_cast<int64_t>(kept_targets) - 2);
        const bool long_inputs = example.inputs.size() > most_inputs;
        if (config_.truncation == Truncation::drop && (long_targets || long_inputs)) {
            ++counts_.dropped;
            return false;
        }
        counts_.truncated_targets += long_targets;
        counts_.truncated_inputs += long_inputs;
        example.targets.resize(kept_targets);
        if (long_inputs && config_.truncation == Truncation::keep_end)
            example.inputs.erase(example.inputs.begin(), example.inputs.end() - static_cast<std::ptrdiff_t>(most_inputs));
        else if (long_inputs)
            example.inputs.resize(most_inputs);
        example.inputs.push_back(eos);
        example.targets.push_back(eos);
        return true;
    }

    DataConfig config_;
    const Tokenizer& tokenizer_;
    std::vector<int32_t> ids_;
    std::vector<Ends> ends_;
    uint64_t hash_ = 0;
};

// Raw window of span corruption: the solved length, less where the clipped counts of very short windows would not fit.
int64_t corruption_window(const DataConfig& config) {
    int64_t window = span_lengths(config.encoder_length, config.noise_density, config.mean_span).window;
    while (window > 2 && span_counts(window, config.noise_density, config.mean_span).inputs(window) > config.encoder_length) --window;
    return window;
}

void resolve_span_corruption(DataConfig& config, const Tokenizer& tokenizer) {
    if (!config.encoder_decoder)
        fail(Exit::usage, "data.objective = \"span_corruption\" needs an encoder-decoder model; use \"prefix_lm\" or \"causal_lm\" for a decoder-only one");
    const SpanCounts counts = span_counts(corruption_window(config), config.noise_density, config.mean_span);
    if (counts.spans > tokenizer.sentinels())
        fail(Exit::usage,
             "span corruption of {} tokens masks {} spans, but the vocabulary has {} sentinels; shorten data.encoder_length, raise data.mean_span or "
             "data.sentinels",
             config.encoder_length, counts.spans, tokenizer.sentinels());
    if (config.decoder_length == 0) config.decoder_length = counts.targets();
    if (config.decoder_length < counts.targets())
        fail(Exit::usage, "data.decoder_length = {} is too short for span corruption of {} input tokens; set it to {}, or to 0 to have it solved",
             config.decoder_length, config.encoder_length, counts.targets());
}

}  // namespace

SourceCounts& SourceCounts::operator+=(const SourceCounts& other) {
    examples += other.examples, tokens += other.tokens;
    truncated_inputs += other.truncated_inputs, truncated_targets += other.truncated_targets;
    dropped += other.dropped, malformed += other.malformed;
    unasked += other.unasked, held_out += other.held_out, narrowed += other.narrowed;
    return *this;
}

DataConfig resolve_data_config(DataConfig config, const Tokenizer& tokenizer) {
    const auto check = [](bool good, const char* field, int64_t value, const char* remedy) {
        if (!good) fail(Exit::usage, "data.{} = {} is out of range; {}", field, value, remedy);
    };
    constexpr int64_t longest = 1 << 20;
    check(config.encoder_length >= (config.encoder_decoder ? 3 : 0) && config.encoder_length <= longest, "encoder_length", config.encoder_length,
          "choose at least 3 tokens");
    check(config.decoder_length >= 0 && config.decoder_length != 1 && config.decoder_length != 2 && config.decoder_length <= longest,
          "decoder_length", config.decoder_length, "choose at least 3 tokens");
    check(config.batch_rows >= 1, "batch_rows", config.batch_rows, "choose at least 1");
    if (config.micro_batch_rows == 0) config.micro_batch_rows = config.batch_rows;
    check(config.micro_batch_rows >= 1 && config.batch_rows % config.micro_batch_rows == 0, "micro_batch_rows", config.micro_batch_rows,
          "it must divide data.batch_rows");
    if (config.validation_rows == 0) config.validation_rows = config.micro_batch_rows;
    check(config.validation_rows >= 1, "validation_rows", config.validation_rows, "choose at least 1");
    check(config.validation_batches >= 0, "validation_batches", config.validation_batches, "choose 0 or more");
    check(config.cap >= 0, "cap", config.cap, "choose 0 (no cap) or more");
    check(config.prefetch >= 0, "prefetch", config.prefetch, "choose 0 or more");
    check(config.pad_multiple >= 1, "pad_multiple", config.pad_multiple, "choose at least 1");
    if (!config.weights.empty() && config.weights.size() != config.train.size())
        fail(Exit::usage, "data.weights has {} entries, but data.train {}; give one weight for each, or none", config.weights.size(),
             config.train.size());
    for (double weight : config.weights)
        if (!(weight > 0))
            fail(Exit::usage, "data.weights holds {}, but weights are positive numbers; leave a source out of data.train instead", weight);
    if (config.objective == Objective::span_corruption) resolve_span_corruption(config, tokenizer);
    if (config.objective == Objective::prefix_lm && config.decoder_length == 0) config.decoder_length = config.encoder_length;
    check(config.decoder_length >= 3, "decoder_length", config.decoder_length, "set the length of the longest targets to train on");
    if (config.objective == Objective::causal_lm && config.encoder_decoder)
        fail(Exit::usage, "data.objective = \"causal_lm\" is for decoder-only models; use \"prefix_lm\" or \"span_corruption\" with an encoder");
    return config;
}

int64_t window_tokens(const DataConfig& config) {
    if (config.objective == Objective::span_corruption) return corruption_window(config);
    // A prefix of at most window - 1 tokens and the end mark fit into the encoder, the rest and the end mark into the decoder.
    return config.encoder_decoder ? std::min(config.encoder_length, config.decoder_length) : config.decoder_length;
}

std::unique_ptr<ExampleSource> open_source(const std::vector<std::string>& paths, const DataConfig& config, const Tokenizer& tokenizer, bool moving_windows) {
    if (config.objective == Objective::instruct) return std::make_unique<InstructSource>(paths, config, tokenizer);
    require(paths.size() == 1, "one folder of shards a source");
    return std::make_unique<WindowSource>(paths[0], config, tokenizer, moving_windows);
}

}  // namespace flanmoe

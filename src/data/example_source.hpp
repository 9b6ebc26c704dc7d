// Where training examples come from: token shards cut into windows (span corruption, prefix-LM, causal LM), or JSONL tokenised into memory (instruct).
//
// A source has a fixed number of slots a pass; slot and pass determine the example completely, so that any example can be made at any time, in any
// order, on any thread.
#pragma once

#include "data/data_config.hpp"
#include "data/readers/reader.hpp"
#include "data/tokenizer.hpp"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace flanmoe {

/// Token ids as they stand in a row: with the end mark, within the lengths of the config. Decoder-only models see inputs followed by targets.
struct Example {
    std::vector<int32_t> inputs, targets;
};

/// What a source found when it was opened, each example counted once.
struct SourceCounts {
    int64_t examples = 0;           ///< of JSONL; windows are not counted
    int64_t tokens = 0;             ///< of all of it
    int64_t truncated_inputs = 0, truncated_targets = 0;  ///< of a mixture: examples that some way of asking cuts
    int64_t dropped = 0;            ///< too long, by the rule `drop`; of a mixture: in every way of asking
    int64_t malformed = 0;          ///< lines or records skipped by policy
    // Of mixtures. What is read is an example, or among these, or among `dropped`.
    int64_t unasked = 0;            ///< no template asks or answers anything
    int64_t held_out = 0;           ///< left out because they hold an item that is held out
    int64_t narrowed = 0;           ///< of the examples: not asked in some ways, because those are too long (rule `drop`)
    SourceCounts& operator+=(const SourceCounts& other);
};

/// What became of the records of a mixture's task.
struct TaskReading {
    std::string task;
    ReadCounts counts;
    int64_t unasked = 0;  ///< of those that were read: no template asks or answers anything
};

class ExampleSource {
public:
    virtual ~ExampleSource() = default;
    /// Slots of one pass over the source, at least 1.
    virtual int64_t size() const = 0;
    /// Fills the example of a slot in pass number `pass`. False if the slot is too short to be one (an end of a shard); `inputs` then holds what
    /// is left out, at most one token.
    virtual bool get(int64_t pass, int64_t slot, Example& example) const = 0;
    /// Of the content and the settings that shape the examples.
    virtual uint64_t hash() const = 0;
    const SourceCounts& counts() const { return counts_; }

protected:
    SourceCounts counts_;
};

/// Fills in what a config leaves open and checks it against the vocabulary: decoder_length, micro_batch_rows, validation_rows. Exit::usage with field
/// and remedy.
DataConfig resolve_data_config(DataConfig config, const Tokenizer& tokenizer);

/// Raw tokens of a window: as many as the lengths of a resolved config hold. Not for instruct.
int64_t window_tokens(const DataConfig& config);

/// Opens one entry of `train` or `validation` of a resolved config; of instruction data, what is chosen of its files. `moving_windows`: windows begin
/// at a random offset that differs from pass to pass.
std::unique_ptr<ExampleSource> open_source(const std::vector<std::string>& paths, const DataConfig& config, const Tokenizer& tokenizer, bool moving_windows);

}  // namespace flanmoe

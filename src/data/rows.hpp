// Rows of a batch from a stream of examples: packing, shifting, padding.
//
// Packing is seqio's greedy rule: an example joins the row while both its inputs and its targets still fit; the first that does not fit begins the
// next row; nothing is reordered. So the place of a row's first example says everything about what follows, and a position is one integer.
//
// In a row, decoder ids are the targets shifted right by one within each segment, with the start id in front. Decoder-only, a segment is an example's
// inputs and targets behind one another; only targets count in the loss, and with a bidirectional prefix the start id and the inputs see one another.
#pragma once

#include "data/batch.hpp"
#include "data/example_source.hpp"
#include "data/mixture.hpp"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace flanmoe {

struct OpenMixture;

struct Row {
    std::vector<int32_t> encoder_ids, encoder_segments;
    std::vector<int32_t> decoder_ids, decoder_segments, decoder_targets;
    std::vector<int32_t> prefix_ends;  ///< with a bidirectional prefix: see Batch
    int32_t examples = 0;

    void clear();
};

/// Adds an example as the row's next segment.
void append_example(Row& row, const Example& example, const DataConfig& config);
/// Whether it still fits into the lengths of the config.
bool fits(const Row& row, const Example& example, const DataConfig& config);

/// Rows [first, first + count) as a micro-batch of the given lengths, padded on the right.
Batch make_batch(const std::vector<Row>& rows, size_t first, size_t count, int64_t encoder_length, int64_t decoder_length, const DataConfig& config);

/// Lengths that all micro-batches of a step have: those of the config for packed rows and windows, otherwise the longest row rounded up.
struct RowLengths {
    int64_t encoder = 0, decoder = 0;
};
RowLengths row_lengths(const std::vector<Row>& rows, const DataConfig& config);

/// Running totals; saved and restored with the position.
struct RowCounts {
    int64_t rows = 0, examples = 0, input_tokens = 0, target_tokens = 0;
    int64_t left_out = 0;  ///< single tokens at the ends of shards, too few for a window
};

/// The endless stream of rows over a mixture of sources.
class RowStream {
public:
    /// `paths` are entries of `train` (with weights and cap) or of `validation` (without); none where the config names a mixture in their place. `config` is resolved.
    RowStream(const std::vector<std::string>& paths, const DataConfig& config, const Tokenizer& tokenizer, bool training);
    /// The same over a mixture that is open.
    RowStream(const OpenMixture& mixture, const DataConfig& config, bool training);

    /// The next row; false when the stream has reached place `end` (-1 = never).
    bool next(Row& row, int64_t end = -1);

    int64_t position() const { return position_; }  ///< place of the next row's first example
    void seek(int64_t position);
    int64_t epoch_size() const { return mixture_->epoch_size(); }
    RowCounts& counts() { return counts_; }
    const SourceCounts& source_counts() const { return source_counts_; }
    const std::vector<std::string>& tasks() const { return tasks_; }  ///< names of the task files that are read; none unless instruct
    const std::vector<TaskReading>& read() const { return read_; }    ///< what became of the records of a mixture's tasks
    uint64_t hash() const { return hash_; }

private:
    std::vector<std::vector<std::string>> choose(const std::vector<std::string>& paths, bool training);
    void add(std::shared_ptr<const ExampleSource> source);
    void open_paths(const std::vector<std::string>& paths, const Tokenizer& tokenizer, bool training);
    void open_tasks(const OpenMixture& mixture, bool training);
    void add_settings_to_hash();
    bool fetch(int64_t end);

    DataConfig config_;
    bool packing_;
    std::vector<std::shared_ptr<const ExampleSource>> sources_;
    std::unique_ptr<Mixture> mixture_;
    int64_t position_ = 0;
    Example pending_;
    bool has_pending_ = false;  // pending_ is the example at position_
    RowCounts counts_;
    SourceCounts source_counts_;
    std::vector<std::string> tasks_;
    std::vector<TaskReading> read_;
    uint64_t hash_ = 0;
};

}  // namespace flanmoe

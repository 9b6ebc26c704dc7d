// Rows of data whose tokens know their task: what a routing trace is taken of.
//
// Task files are read as training reads them (data/example_source.hpp): truncation, end marks, teacher forcing. One example is a row; with data.packing, examples
// of all tasks are shuffled and packed into rows of the full lengths, as in instruction tuning. Token shards give one window a row, at fixed places.
#pragma once

#include "data/batch.hpp"
#include "data/example_source.hpp"
#include "data/mixture.hpp"
#include "data/rows.hpp"
#include "eval/batching.hpp"

#include <memory>
#include <string>
#include <vector>

namespace flanmoe {

struct TracedBatch {
    Batch batch;
    std::vector<std::vector<int32_t>> tasks;  ///< of segment s of row r: tasks[r][s - 1]
    /// Task of each token of one side; -1 for padding.
    std::vector<int32_t> tasks_of(const std::vector<int32_t>& segments) const;
};

/// Whether a path is a folder of token shards; otherwise it is taken for task files.
bool is_shard_folder(const std::string& path);

class TraceRows {
public:
    /// `config` is resolved, its objective fits the paths. `limit`: of each file or folder so many examples or windows at most, the first ones; 0 = all. A batch holds
    /// whole groups of `group_rows` rows (0: batch_rows rows, which are one group); empty rows fill the last group.
    TraceRows(const std::vector<std::string>& paths, const DataConfig& config, const Tokenizer& tokenizer, int64_t limit, const BatchLimits& limits, int64_t group_rows);

    const std::vector<std::string>& tasks() const { return names_; }
    const SourceCounts& counts() const { return counts_; }
    double done() const { return static_cast<double>(place_) / static_cast<double>(mixture_->epoch_size()); }
    bool next(TracedBatch& traced);  ///< false at the end

private:
    bool fetch();
    bool full(size_t rows, int64_t length) const;

    DataConfig config_;
    BatchLimits limits_;
    int64_t group_rows_;
    std::vector<std::unique_ptr<ExampleSource>> sources_;
    std::vector<std::string> names_;
    std::unique_ptr<Mixture> mixture_;
    SourceCounts counts_;
    int64_t place_ = 0, rows_ = 0;
    Example pending_;
    int32_t pending_task_ = -1;  // -1: pending_ holds nothing
};

}  // namespace flanmoe

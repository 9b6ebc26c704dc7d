// The stream of optimizer steps: micro-batches of padded or packed rows, made ahead in the background, restartable at any step to the same bits.
//
// What a step holds depends only on the config, the data and the position, never on the timing of threads. The position is small (LoaderState) and
// resuming costs nothing: every example can be computed from its place.
#pragma once

#include "data/batch.hpp"
#include "data/data_config.hpp"
#include "data/rows.hpp"
#include "data/tokenizer.hpp"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace flanmoe {

/// Where the next step begins, with the totals so far and the identity of the data.
struct LoaderState {
    int64_t epoch = 0;     ///< full passes over the mixture
    int64_t position = 0;  ///< examples of this epoch already given
    int64_t steps = 0;     ///< optimizer steps given
    RowCounts counts;
    uint64_t data_hash = 0;

    std::string to_json() const;
    /// Exit::bad_checkpoint if the text is not such a state.
    static LoaderState from_json(const std::string& text);
};

/// One of several ranks that take the rows of every step among them: whole routing groups, in order, as evenly as they can be. All have the same number of
/// micro-batches and the same lengths; who has none left gets a group of padding, which counts in nothing. So a step is the same rows on any number of ranks.
struct Share {
    int index = 0, count = 1;
    int64_t group_rows = 1;  ///< rows that stay together; divides those of a micro-batch
    bool equal = false;      ///< all ranks' micro-batches have the same number of rows, with padding at the end: for ranks that exchange rows

    struct Piece {
        int64_t first = 0, rows = 0;
    };
    /// Rows of a batch that holds the i-th piece, padding included.
    int64_t batch_rows(int64_t rows, int64_t micro_batch_rows, size_t i) const;
    /// Micro-batches of at most `micro_batch_rows` rows of this share of a step of `rows` rows; rows = 0: of padding.
    std::vector<Piece> pieces(int64_t rows, int64_t micro_batch_rows) const;
};

struct DataStatistics {
    RowCounts given;       ///< by the steps returned so far (all of a resumed run)
    SourceCounts sources;  ///< of the data as opened; each example once
    double epoch = 0;      ///< passes over the mixture, with fraction
    int64_t epoch_examples = 0;
    std::vector<std::string> tasks;  ///< instruct: names of the task files that are read
    std::vector<TaskReading> read;   ///< of a mixture
};

class Loader {
public:
    /// Opens all of `config.train`. Errors name the field or file. Every rank makes the whole step and keeps its share.
    Loader(const DataConfig& config, std::shared_ptr<const Tokenizer> tokenizer, Share share = {});
    ~Loader();
    Loader(const Loader&) = delete;

    /// The next optimizer step: of its batch_rows rows those of the share, in micro-batches of at most micro_batch_rows, first_row set, all of the same lengths.
    /// Never ends.
    StepBatch next();

    /// Of the step that next() returns next; what is prefetched does not count.
    LoaderState state() const;
    /// Goes on from a saved state. Exit::usage if the state belongs to other data or settings (rows of a step may differ).
    void restore(const LoaderState& state);

    DataStatistics statistics() const;
    const DataConfig& config() const;  ///< resolved: lengths and rows filled in

private:
    struct State;
    std::unique_ptr<State> state_;
};

/// The first `validation_batches` batches of one pass over `config.validation`; the same every time. The last may have fewer rows. Of each the rows of a share.
std::vector<Batch> validation_batches(const DataConfig& config, const Tokenizer& tokenizer, DataStatistics* statistics = nullptr, const Share& share = {});

}  // namespace flanmoe

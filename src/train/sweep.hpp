// A grid of runs over axes of options: learning rate x batch x optimizer reset, or any others. Every cell is a run directory of its own, DIR/0, DIR/1, ..., made
// by `flanmoe train` with the cell's settings; what is here says which cells there are and what came of them.
//
//   DIR/sweep.json          axes and cells, in the order in which they were first named: a cell keeps its number when a grid is extended
//   DIR/config.toml         the config without the axes, so that cells of two configs never mix
//   DIR/3                   run directory of cell 3; DIR/3.log what it printed; DIR/3.lock held while processes run it; DIR/3.failed.json its error, if it ended with one
//   DIR/table.{txt,json,csv}   written anew after every cell
#pragma once

#include "config/config.hpp"
#include "core/file_lock.hpp"

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace flanmoe {

struct SweepAxis {
    std::string key;
    std::vector<std::string> values;  ///< as the config writes them: 1e-3 is 0.001
};

/// "key=value,value,..."; commas inside of brackets and quotes divide nothing. Exit::usage for what is no such thing, an unknown key (with the nearest one), a value twice or one that the key refuses.
SweepAxis parse_axis(const std::string& text, const Config& base);

struct SweepCell {
    std::vector<std::pair<std::string, std::string>> settings;  ///< a value for every axis
    /// As --set takes them: "key=value".
    std::vector<std::string> options() const;
};

class Sweep {
public:
    /// Opens the sweep in a folder, or makes it, one process at a time. Every cell's config is validated. Exit::cannot_create if the folder holds something else or cannot be made; Exit::usage if the folder's sweep is of another config (its keys are named) or of other axes, or lacks
    /// cells of this grid, unless `extend` adds them; cells that are there already stay.
    Sweep(std::filesystem::path folder, const Config& base, std::vector<SweepAxis> axes, bool extend);

    const std::vector<SweepAxis>& axes() const { return axes_; }
    const std::vector<SweepCell>& cells() const { return cells_; }
    const std::filesystem::path& folder() const { return folder_; }
    /// Waits until no other process writes sweep.json or the tables, and keeps others from it.
    std::unique_ptr<FileLock> hold() const;
    std::filesystem::path run(size_t cell) const { return folder_ / std::to_string(cell); }
    std::filesystem::path beside(size_t cell, const char* what) const { return folder_ / (std::to_string(cell) + what); }

private:
    void take_up(const Config& base, bool extend, std::vector<SweepCell> wanted);

    std::filesystem::path folder_;
    std::vector<SweepAxis> axes_;
    std::vector<SweepCell> cells_;
};

/// What is known of a cell.
struct CellResult {
    enum class State : uint8_t { waiting, begun, failed, done };
    State state = State::waiting;
    std::string message;              ///< of a failure: its sentence; of a done run: how it ended
    int code = 0;                     ///< of a failure: its exit code
    std::optional<double> best;       ///< best validation so far, of eval.metric
    int64_t best_step = 0, step = 0;
    std::optional<double> test;       ///< the metric on the test split
};
const char* state_name(CellResult::State state);
/// From the cell's run directory and its failure. A run counts as done when all is made that its config asks for now, its test included.
CellResult read_result(const Sweep& sweep, size_t cell, const Config& base);
/// Keeps a failure beside the cell's directory, and forgets it.
void write_failure(const Sweep& sweep, size_t cell, int code, const std::string& sentence);
void forget_failure(const Sweep& sweep, size_t cell);

/// The cell with the best validation among those that are done; the first of equal ones.
std::optional<size_t> best_cell(const std::vector<CellResult>& results, const Config& base);
std::string sweep_json(const Sweep& sweep, const std::vector<CellResult>& results, const Config& base);
std::string sweep_csv(const Sweep& sweep, const std::vector<CellResult>& results, const Config& base);

}  // namespace flanmoe

// What a training run shows: on a terminal a bar with the time left that stays on one line, elsewhere one plain line a record. Standard error.
//
//   step 120/1000 | loss 3.213 | grad 0.87 | 0:42 left | lr 1.0e-03 | 15.2k tok/s | 310 GFLOP/s (71 %) | load 1.40 | drop 2.1 %
#pragma once

#include "train/metrics.hpp"

#include <chrono>
#include <cstdio>
#include <string>

namespace flanmoe {

/// The numbers of a record that fit into `columns`, most important first; parts that do not fit are left out whole.
std::string metrics_line(int64_t step, int64_t steps, const Metrics& metrics, double seconds_left, int columns = 160);

class TrainingProgress {
public:
    /// Steps `first_step` (already done) to `steps`. `out` is watched for being a terminal; NO_COLOR switches colour off.
    TrainingProgress(int64_t first_step, int64_t steps, std::FILE* out = stderr);
    TrainingProgress(const TrainingProgress&) = delete;
    ~TrainingProgress();

    /// After every step: cheap; redraws the bar at most ten times a second, prints nothing where there is no terminal.
    void step(int64_t done);
    /// A record of metrics: a line where there is no terminal; the bar's text where there is one.
    void record(int64_t done, const Metrics& metrics);
    /// A message of its own line (validation, save, skipped step) that does not mix with the bar.
    void message(const std::string& text);
    double seconds_left() const;
    /// Leaves the bar on the screen and ends its line.
    void finish();

private:
    void draw();

    int64_t first_, done_, steps_;
    std::FILE* out_;
    bool terminal_, colour_, open_ = false;
    Metrics metrics_;
    std::chrono::steady_clock::time_point start_, drawn_;
};

}  // namespace flanmoe

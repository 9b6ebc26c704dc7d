// From what a model answered to scores: of a question, a task, a suite, and averages over suites.
//
// A question has a value for each measure (suite.hpp) that its answer gives. A task's score is the measure that is asked for where its questions have options, elsewhere that of written
// answers; a suite's is the mean over its tasks. A normalised score is 100 (s - r) / (100 - r) with the score r of guessing (method of Chung et al. 2022, footnote 5). Intervals hold 95 %:
// Wilson's for shares of a task, normal ones for the rest (F1, means over tasks or suites), where questions are independent and tasks are fixed:
// variance = sum over tasks of (variance / questions) / tasks^2.
#pragma once

#include "data/held_out.hpp"
#include "eval/suites/suite.hpp"

#include <array>
#include <optional>

namespace flanmoe {

/// What became of one question.
struct Sample {
    size_t task = 0, question = 0;
    std::optional<std::string> output;
    bool ended = true;
    size_t shots = 0;  ///< that the prompt had
    std::vector<double> option_log_p;
    std::vector<int64_t> option_tokens;
    bool options_cut = false;  ///< an option lost its end at the limit of tokens

    std::string extracted;
    std::array<std::optional<double>, measure_count> values;  ///< in [0, 1]
};
/// Fills in `extracted` and `values`.
void judge(const SuiteTask& task, Sample& sample);

/// In percent.
struct Estimate {
    double value = 0, low = 0, high = 0;
    double variance = 0;  ///< of the value
};

struct TaskScore {
    const SuiteTask* task = nullptr;
    int64_t items = 0, no_answer = 0, unfinished = 0, shots_dropped = 0, options_cut = 0;
    double chance = 0;  ///< in percent
    std::array<std::optional<Estimate>, measure_count> measures;
    Measure main = Measure::generation;  ///< the measure that the score is
    Estimate score, normalized;
    std::vector<std::pair<std::string, Estimate>> whole;  ///< of the written answers of the whole task, no means over questions (task_metrics.hpp): pearson, spearman (x 100), f1a, consistency
    int64_t unparsed = 0, groups = 0;
};

struct SuiteScore {
    std::string suite;
    PromptMode mode = PromptMode::direct;
    int64_t tasks = 0, items = 0;  ///< that count
    Estimate score, normalized;
    std::array<std::optional<Estimate>, measure_count> measures;  ///< those that all counting tasks have
    std::vector<std::pair<std::string, Estimate>> categories;     ///< mean over a category's tasks
    Estimate over_categories;                                     ///< mean of those: of BBH's 23 tasks, say
    std::optional<HeldOutCounts> held_out;                        ///< of the counting tasks; empty if it is not known of one
};

struct AverageScore {
    SuiteAverage average;
    Estimate score;
};

struct Scores {
    std::vector<TaskScore> tasks;
    std::vector<SuiteScore> suites;
    std::vector<AverageScore> averages;
};

/// `main`: the measure that scores are of tasks whose questions all have options; others count what was written (SuiteTask::written). Exit::usage if a sample lacks it.
Scores score_samples(const std::vector<SuiteTask>& tasks, const std::vector<Sample>& samples, Measure main);

/// Of the mean over a task's values in [0, 1]; `share`: they are 0 or 1, and the interval is Wilson's.
Estimate mean_of(const std::vector<double>& values, bool share);
/// Of the mean over independent estimates; one keeps its interval.
Estimate mean_of(const std::vector<Estimate>& parts);
Estimate normalized(const Estimate& score, double chance);
/// Of a correlation of `pairs` pairs, x 100: Fisher's interval, with Bonett's and Wright's variance for ranks.
Estimate correlation_estimate(double r, int64_t pairs, bool ranks);

}  // namespace flanmoe

// Evaluations beside each other: differences of scores over the same questions, with intervals.
//
// Of every question that two evaluations have in common the difference of their scores is taken; a task's difference is their mean, a suite's the mean over its tasks, as scores are
// (eval/suites/scores.hpp). So what makes a question hard cancels, and intervals are narrower than those of two separate scores.
#pragma once

#include "eval/suites/scores.hpp"

#include <filesystem>
#include <string>
#include <vector>

namespace flanmoe {

/// A row of a comparison: a task, a suite, or an average (mode ""). Averages are of normalised scores, the others of scores as they are.
struct ScoreDifference {
    std::string suite, task, mode;  ///< task "" = the whole suite
    int64_t items = 0;              ///< in common
    double first = 0, second = 0;   ///< scores over those, in percent
    Estimate difference;            ///< second - first
};

struct Comparison {
    std::string first, second;  ///< folders
    int64_t only_first = 0, only_second = 0;  ///< questions that the other lacks
    int64_t other_prompts = 0;                ///< of those in common, questions whose prompts differ
    std::vector<ScoreDifference> rows;
};

/// Of the samples.jsonl of two folders. Exit::missing_input, Exit::bad_data with line for what is no sample, Exit::usage if they have no question in common, or if the same id stands for
/// other answers, another measure or, unless `other_prompts`, another prompt in them (other exemplars, say).
Comparison compare_runs(const std::filesystem::path& first, const std::filesystem::path& second, bool other_prompts = false);
std::string comparisons_json(const std::vector<Comparison>& comparisons);

}  // namespace flanmoe

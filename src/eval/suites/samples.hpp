// Prompts, answers and samples as JSON lines; scores as JSON.
//
// A line of prompts holds id, suite, task, mode, category, language, counted, rule, metric (exact_match or f1), stop, place, shots, shots_dropped, prompt, answers, options, choices. A line
// of answers needs id and output, or option_log_p (one an option), and may have ended, option_tokens and options_cut. A line of samples has all of both, extracted, the values of the
// measures, and `score`, the value of the measure that counts.
#pragma once

#include "eval/suites/scores.hpp"

namespace flanmoe {

/// A question that is asked: with its whole prompt, whose exemplars fit.
struct AskedQuestion {
    size_t task = 0, question = 0, shots = 0;
    std::string prompt;
    size_t tokens = 0;  ///< 0 = not counted
};

std::string prompt_line(const SuiteTask& task, const AskedQuestion& asked);
std::string sample_line(const SuiteTask& task, const AskedQuestion& asked, const Sample& sample, Measure main);
std::string scores_json(const std::vector<SuiteTask>& tasks, const Scores& scores, const std::string& model);

/// The answers of a file to the questions: judged samples in the order of questions. Exit::bad_data for lines that are no answers and ids that come twice (file and line), for ids of no
/// question, option_log_p or option_tokens of another number than the options (file and id), and, unless `missing_wrong`, for questions without an answer; those are wrong by every measure then.
std::vector<Sample> read_answers(const std::filesystem::path& path, const std::vector<SuiteTask>& tasks, const std::vector<AskedQuestion>& asked, bool missing_wrong, int64_t& missing);

/// The answer part of a line, for evaluations that go on.
std::string answer_line(const std::string& id, const Sample& sample);

/// Answers by id, not yet judged. Exit::bad_data with `origin` and line.
std::map<std::string, Sample> parse_answers(const std::string& text, const std::string& origin);

}  // namespace flanmoe

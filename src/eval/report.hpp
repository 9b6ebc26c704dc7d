// Results of an evaluation as JSON: one line an example, and a summary of all tasks.
#pragma once

#include "eval/evaluate.hpp"

#include <string>

namespace flanmoe {

/// One JSON object a line for each example of the task: what was asked, accepted and answered, its metrics, and the log-probability of every option.
std::string answers_jsonl(const TaskResult& task);

/// All tasks and the mean over them, shares in [0, 1]; `checkpoint` is named in it. What was not evaluated is missing.
std::string summary_json(const std::vector<TaskResult>& tasks, const std::string& checkpoint);

}  // namespace flanmoe

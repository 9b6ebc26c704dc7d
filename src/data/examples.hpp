// Task examples from JSONL: for instruction tuning, finetuning and evaluation.
//
// One object a line: inputs (a text), targets (a text, or a list of accepted answers), optionally options (a list of texts to choose from) task
// (a name) and group (a name that questions which belong together share). The names of the fields are configurable. Files may be compressed; of folders the .jsonl files are read, in byte order
// of their paths.
#pragma once

#include "data/data_config.hpp"

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace flanmoe {

struct ExampleKeys {
    std::vector<std::string> inputs = {"inputs"}, targets = {"targets"};  ///< the first of them that a line has
    std::string options = "options", task = "task", group = "group";      ///< "" = not read
    std::string remove_suffix;                                            ///< cut from the end of every target and option that ends so
};

/// The keys that a data config names.
ExampleKeys example_keys(const DataConfig& config);

struct TaskExample {
    std::string inputs;
    std::vector<std::string> targets;  ///< at least one; each is correct
    std::vector<std::string> options;  ///< empty if the line has none
    std::string task;                  ///< "" if the line has none
    std::string group;                 ///< questions that belong together (contrasts of one another) have the same; "" = none
    std::string file;
    int64_t line = 0;
};

/// One of its options is an accepted answer, letter by letter.
bool answerable(const TaskExample& example);

struct ExampleCounts {
    int64_t examples = 0;
    int64_t malformed = 0;  ///< lines skipped by policy
};

/// Calls `take` for every example in order. A line that is not UTF-8, no JSON object, or without the fields is an error (Exit::bad_data with file,
/// line and remedy), or counted in the result and skipped. Blank lines are no examples. Exit::bad_data if there is no example at all.
ExampleCounts for_each_example(const std::vector<std::string>& paths, const ExampleKeys& keys, MalformedPolicy policy,
                               const std::function<void(TaskExample&&)>& take);

/// All examples in memory.
std::vector<TaskExample> read_examples(const std::vector<std::string>& paths, const ExampleKeys& keys = {},
                                       MalformedPolicy policy = MalformedPolicy::fail, ExampleCounts* counts = nullptr);

}  // namespace flanmoe

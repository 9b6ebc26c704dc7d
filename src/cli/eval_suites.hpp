// `flanmoe eval --suite`: benchmark suites on a model, scored from given answers, or written as prompts; and evaluations compared.
#pragma once

#include "cli/model_argument.hpp"
#include "eval/evaluate.hpp"
#include "eval/suites/suite.hpp"

#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace flanmoe::cli {

struct SuiteArguments {
    std::vector<std::string> suites, exemplars, compared;
    SuiteSettings settings;
    std::string prompts, answers, score = "generation", too_long = "fail", missing = "fail", held_out;
    bool per_task = false, other_prompts = false;

    void add_to(CLI::App& command);
    bool wanted() const { return !suites.empty() || !compared.empty(); }
    /// Exit::usage for an option that would be ignored: one of suites without a suite, one of task files with a suite, any but those of tables with --compare.
    void refuse_ignored(const CLI::App& command) const;
};

/// What `eval` has beside the options of suites.
struct SuiteCommand {
    ModelArgument model;
    std::vector<std::string> files;
    EvalSettings eval;
    bool inputs_given, new_tokens_given, generation, likelihood, json, table;
    std::string out;
};

void run_suite_command(const SuiteArguments& arguments, const SuiteCommand& command);

}  // namespace flanmoe::cli

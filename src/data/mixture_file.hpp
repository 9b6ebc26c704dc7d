// Mixtures of tasks as data: a tree of parts with proportions, caps and ways to ask, in TOML. Format, by example:
//
//   split = "train"            # of every task
//   few_shot = 0.5             # share of examples that come with others in front; shots = [1, 5]: how many, drawn evenly
//   options = 0.5              # share that shows the options, of tasks that have some
//   inversion = 0.23           # share that turns the task round, of tasks with an inverted template
//   cap = 30000                # examples of a task that count in its weight; scale = 1, temperature = 1
//   languages = ["en"]         # only tasks of these; exclude = ["ni/task033*"]: not these
//   language_tag = false       # put "[en]" in front of inputs
//   [[part]]
//   name = "cot"
//   proportion = 0.03          # share among the parts beside it; all of them have one or none (then in proportion to their weights)
//   tasks = ["../task/gsm8k.toml"]   # files or folders, relative to this file; only = ["cot/*"]: of their tasks these
//   [[part.part]] ...          # parts in place of tasks; what is set on a part holds for all below
//   [held_out]                 # evaluation tasks that must not be trained on: see held_out.hpp
//
// A task file (task_file.hpp) in place of a mixture is a mixture of its tasks, asked zero-shot and with their options: what finetuning wants.
//
// The weight of a task among those of its part is min(examples x scale, cap)^(1 / temperature) (method: seqio's mixing rates; the cap is the least of those that are
// set above it and its own). A part without tasks, because they were not chosen, gives its share to those beside it.
#pragma once

#include "data/task_file.hpp"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace flanmoe {

/// How a task's examples are asked, and its place in the tree.
struct MixtureTask {
    std::shared_ptr<const Task> task;
    std::string part;  ///< names of the parts above it, with "/" between
    std::string split;
    double few_shot = 0, options = 1, inversion = 0;
    int64_t fewest_shots = 1, most_shots = 5;
    bool language_tag = false;
    int64_t cap = 0;  ///< 0: none
    double scale = 1, temperature = 1;
    std::vector<std::size_t> path;  ///< of the parts above it: places in MixtureFile::parts
};

struct MixturePart {
    std::string name;
    double proportion = 0;  ///< 0: by weight
};

struct HeldOut {
    enum class Policy : uint8_t { warn, drop, refuse };
    std::vector<std::shared_ptr<const Task>> tasks;
    std::vector<std::string> splits;
    Policy policy = Policy::warn;
    int64_t ngram = 13;
};

struct MixtureFile {
    std::vector<MixtureTask> tasks;  ///< in the order of the file
    std::vector<MixturePart> parts;  ///< all, those above before those below
    HeldOut held_out;
};

/// Which tasks of a file.
struct MixtureChoice {
    std::filesystem::path path, folder;  ///< the file, and what paths of tasks are relative to
    std::vector<std::string> only;       ///< names, with * and ?; empty = all
    std::string split;                   ///< in place of those of the file; empty = those
    int64_t count = 0, seed = 0;         ///< so many of the tasks, chosen as choose_tasks() does; 0 = all
};
/// What a data config trains and validates on; `path` is empty if it names no mixture.
MixtureChoice training_choice(const DataConfig& config);
MixtureChoice validation_choice(const DataConfig& config);

/// Exit::usage with file, line and nearest name for what is wrong with the file; Exit::usage if a task stands in two parts, or has not the split.
MixtureFile load_mixture(const MixtureChoice& choice);

/// The share of every task; they sum to 1. `examples`: how many each has.
std::vector<double> mixture_rates(const MixtureFile& mixture, const std::vector<int64_t>& examples);

}  // namespace flanmoe

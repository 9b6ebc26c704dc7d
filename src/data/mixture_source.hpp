// A mixture of tasks as sources of training examples: which way a record is asked, with which others in front of it.
//
// Everything about an example follows from (seed, task's name, pass, slot): whether it is few-shot, shows options, is turned round; which template; which other
// records stand in front. So any place of the stream can be made at any time, on any rank (rows.hpp, mixture.hpp).
//
// Exemplars are records of the same task and split, asked in the same way, never the record itself nor one that asks the same, no one twice. A prompt is the exemplars' inputs and targets and the
// inputs, white space between them: their tokens one behind the other, since no piece of the vocabulary reaches over white space. Where a prompt is too long,
// exemplars are dropped from the front; what is still too long is cut or left out by the rule of the config (Truncation), and counted.
#pragma once

#include "data/example_source.hpp"
#include "data/held_out.hpp"
#include "data/mixture_file.hpp"
#include "data/task_tokens.hpp"

#include <memory>
#include <vector>

namespace flanmoe {

class MixtureSource : public ExampleSource {
public:
    /// `config` is resolved. `left_out`: records that are not trained on, by number.
    MixtureSource(const MixtureTask& task, const DataConfig& config, const Tokenizer& tokenizer, const std::vector<int64_t>& left_out = {});

    int64_t size() const override { return static_cast<int64_t>(usable_.size()); }
    bool get(int64_t pass, int64_t slot, Example& example) const override;
    uint64_t hash() const override { return hash_; }

    /// What was drawn for a place, for reports and tests.
    struct Draw {
        int64_t record = 0;
        size_t way = 0;
        std::vector<int64_t> exemplars;  ///< records, front first, as drawn
        size_t dropped = 0;              ///< of them, from the front
        bool cut = false;                ///< inputs or targets were truncated
    };
    Draw draw(int64_t pass, int64_t slot) const;

    const MixtureTask& task() const { return task_; }
    const TaskTokens& tokens() const { return tokens_; }

private:
    struct Limits {
        int64_t inputs, targets;
    };
    Limits limits(int64_t targets) const;
    bool fits(int64_t record, size_t way) const;
    size_t choose_way(int64_t record, RandomStream& random) const;

    MixtureTask task_;
    DataConfig config_;
    TaskTokens tokens_;
    std::vector<int64_t> usable_;  ///< records that some way asks, and that are not left out
    uint64_t hash_ = 0, seed_ = 0;
};

struct OpenMixture {
    MixtureFile file;
    Overlaps overlaps;  ///< with what is held out; empty if nothing is
    std::vector<std::shared_ptr<const MixtureSource>> sources;
    std::vector<double> rates;
};

/// Opens all tasks of the mixture that the config names for training or for validation, of those that it chooses. Items that are held out are looked for, and warned of, left out or refused
/// (Exit::bad_data), as its policy says; of training, config.held_out_report gets what was found before that. Exit::bad_data for a task without an example; the errors of load_mixture() and
/// Task::read().
OpenMixture open_mixture(const DataConfig& config, const Tokenizer& tokenizer, bool training);

/// The examples of a mixture's tasks as texts, each record asked by its first template that is not inverted and has something to ask, with options: what
/// validation generates answers to. `read`: what became of the tasks' records.
std::vector<TaskExample> mixture_examples(const MixtureChoice& choice, std::vector<TaskReading>* read = nullptr);
/// Says of each task whose records were not all read how many were not, and why; `key` begins the line.
void report_losses(const char* key, const std::vector<TaskReading>& read);

}  // namespace flanmoe

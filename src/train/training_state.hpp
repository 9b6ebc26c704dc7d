// What a checkpoint's training/state.json holds besides weights, optimizer and config: where the run is.
#pragma once

#include "checkpoint/model_directory.hpp"
#include "data/tokenizer.hpp"
#include "train/watch.hpp"

#include <string>

namespace flanmoe {

struct RunState {
    int64_t step = 0;    ///< optimizer steps made, skipped ones included
    int64_t tokens = 0;  ///< real tokens seen
    int64_t earlier_updates = 0;  ///< of the optimizer before this run: those of the stages whose state it took over (train.reset_optimizer = false)
    std::string loader;  ///< LoaderState as JSON
    double best = 0;     ///< best value of eval.metric
    int64_t best_step = -1;
    int64_t validations_without_improvement = 0;
    Watch watch;

    int64_t updates() const { return earlier_updates + step; }  ///< how old the optimizer's state is: what its decay and bias correction go by
    std::string to_json() const;
    /// Exit::bad_checkpoint if the text is no such state; `where` names the checkpoint.
    static RunState from_json(const std::string& text, const std::string& where);
};

/// The tokenizer's files by name, as a checkpoint takes them.
ExtraFiles files_of(const Tokenizer& tokenizer);

}  // namespace flanmoe

// Suites through a model, or only to their prompts.
#pragma once

#include "eval/evaluate.hpp"
#include "eval/suites/samples.hpp"

namespace flanmoe {

struct SuiteRunSettings {
    EvalSettings eval;                  ///< batch, limits of tokens, beams, progress
    int64_t direct_tokens = 32;         ///< of a direct answer
    int64_t cot_tokens = 256;           ///< of an answer with its chain of thought
    bool generation = true;             ///< false: where options are given, score them only
    bool likelihood = true;             ///< score options
    bool drop_long = false;             ///< questions too long without exemplars are dropped (and counted); else an error
    std::filesystem::path partial;      ///< file for what is done so far; empty: an interrupted evaluation begins anew
    std::string fingerprint;            ///< of model and options: answers of another run are not taken over
};

struct SuiteRunFigures {
    int64_t asked = 0, taken_over = 0;
    BatchSlots slots;  ///< of what was computed, not taken over
};

/// The questions with their prompts. With a tokenizer exemplars are dropped from the front until a prompt has at most eval.max_inputs tokens; a question too long without any is
/// Exit::bad_data, or leaves its task and is counted there.
std::vector<AskedQuestion> ask(std::vector<SuiteTask>& tasks, const Tokenizer* tokenizer, const SuiteRunSettings& settings);

/// Judged samples of all questions, in their order; every rank of the model's mesh calls it and gets all. Long prompts come first, in batches of like length.
std::vector<Sample> run_suites(Context& context, const Transformer& model, const Tokenizer& tokenizer, const std::vector<SuiteTask>& tasks, const std::vector<AskedQuestion>& asked,
                               const SuiteRunSettings& settings, SuiteRunFigures& figures);

}  // namespace flanmoe

// Evaluation of a model on task files: the loss of the wanted answers, answers by generation, and accuracy by scoring the options that an example gives.
//
// All files are evaluated together, in batches of examples of like length, whichever file they are of; no result depends on that. An example's input is
// computed once for all its options, wherever that changes none of their scores (targets_share_input() in eval/batching.hpp). Inputs longer than max_inputs tokens lose
// their end, as in training with truncation = "keep_start"; targets and options longer than max_targets too; both are counted. Several ranks share the work
// (eval/dealing.hpp), with the results of one; `batch` limits what one of them computes together.
#pragma once

#include "data/examples.hpp"
#include "data/tokenizer.hpp"
#include "eval/batching.hpp"
#include "eval/generate.hpp"
#include "eval/text_metrics.hpp"

#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace flanmoe {

struct EvalSettings {
    GenerationSettings generation;  ///< valid_ids follows the tokenizer
    BatchLimits batch;
    int64_t max_inputs = 512;   ///< tokens of an input, end mark included
    int64_t max_targets = 512;  ///< the same of targets and options
    bool open_inputs = false;   ///< inputs are texts to go on with, without an end mark: for language models that are not tuned
    int64_t limit = 0;          ///< at most so many examples of a file, the first ones; 0 = all
    bool loss = true, generate = true, options = true;  ///< what is evaluated
    ExampleKeys keys;
    MalformedPolicy malformed = MalformedPolicy::fail;
    std::function<void(double fraction, const std::string& note)> progress;  ///< called now and then if set; rank 0's, say
};

/// What the model made of one example.
struct Answer {
    std::string output;             ///< generated text
    bool ended = false;             ///< false: cut at max_new_tokens
    TextScores scores;              ///< of the output
    double nll = 0;                 ///< sum over the tokens of the first accepted answer, natural logarithm
    int64_t target_tokens = 0;      ///< how many those are, end mark included
    std::vector<double> option_log_p;  ///< log-probability of each option as the target
    std::vector<int64_t> option_tokens;
    int64_t choice = -1, choice_by_length = -1;  ///< most probable option, in sum and per token (the first of equal ones); -1 without options
    bool chosen_right = false, chosen_right_by_length = false;  
    bool input_cut = false, target_cut = false;
};

struct TaskResult {
    std::string name;
    std::string file;
    std::vector<TaskExample> examples;
    std::vector<Answer> answers;  ///< one an example
    int64_t malformed = 0;        ///< lines skipped by policy

    std::optional<double> loss;                                ///< mean nll of a target token
    std::optional<double> exact_match, f1, rouge1, rouge2, rouge_l;  ///< means over examples
    std::optional<double> accuracy, accuracy_by_length;        ///< over the examples with options
    // Of generated answers; task_metrics.hpp says what they are.
    std::optional<double> macro_f1;           ///< if all examples have options
    std::optional<double> f1a;                ///< if all have the same two options, and groups
    std::optional<double> pearson, spearman;  ///< if all targets are numbers
    std::optional<double> consistency;        ///< exact match of whole groups, if examples name groups
    int64_t unparsed = 0, groups = 0;         ///< outputs that are no numbers; groups of two examples at least
    double majority = 0;          ///< exact match of always giving the file's most frequent answer
    std::string majority_answer;  ///< that answer, normalised
    int64_t unanswerable = 0;     ///< examples none of whose options is an accepted answer
    int64_t with_options = 0, inputs_cut = 0, targets_cut = 0, unfinished = 0;
};

/// One result a file, in order; every rank of the model's mesh calls it and gets all. Folders stand for their .jsonl files; a task's name is its file's, without
/// the extension (below a folder: with the path inside it). Exit::missing_input, Exit::bad_data (file, line and remedy) for what cannot be read; Exit::usage for a vocabulary
/// that does not fit.
std::vector<TaskResult> evaluate_files(Context& context, const Transformer& model, const Tokenizer& tokenizer, const std::vector<std::string>& paths,
                                       const EvalSettings& settings);
/// The same for examples in memory, as one task; `slots`: of the batches that were computed, on all ranks together.
TaskResult evaluate_examples(Context& context, const Transformer& model, const Tokenizer& tokenizer, std::vector<TaskExample> examples,
                             const EvalSettings& settings, std::string name = "", BatchSlots* slots = nullptr);

/// Validation during training: accuracy if settings.options; if settings.generate exact_match, f1, rouge_l, and of macro_f1, f1a, pearson, spearman, unparsed and consistency those
/// that the examples allow. The tokens of `generation.max_new_tokens` bound the time.
std::vector<std::pair<std::string, double>> answer_metrics(Context& context, const Transformer& model, const Tokenizer& tokenizer,
                                                           const std::vector<TaskExample>& examples, EvalSettings settings = {});
/// Exit::usage with what is missing if answer_metrics() cannot measure `metric` on the examples.
void check_metric(const std::string& metric, const std::vector<TaskExample>& examples);

/// Unweighted mean over the tasks that have the value; empty if none has.
std::optional<double> mean_over_tasks(const std::vector<TaskResult>& results, const std::function<std::optional<double>(const TaskResult&)>& value);

}  // namespace flanmoe

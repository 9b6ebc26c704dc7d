// What `[data]` of a config file says: where the data is, which objective is trained on it, how rows and batches are cut.
//
// A plain aggregate; the config table binds its fields by name. Its meaning is documented here, its use is in loader.hpp.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace flanmoe {

/// span_corruption, prefix_lm and causal_lm (decoder-only) read token shards (`flanmoe data shard`); instruct reads JSONL examples.
enum class Objective : uint8_t { span_corruption, prefix_lm, instruct, causal_lm };
/// A malformed line or invalid UTF-8: stop with file and line, or skip and count it.
enum class MalformedPolicy : uint8_t { fail, skip };
/// An example that is too long: keep the start or the end of its inputs (targets keep their start, both keep the end mark), or drop it. All are counted.
enum class Truncation : uint8_t { keep_start, keep_end, drop };

struct DataConfig {
    Objective objective = Objective::span_corruption;
    std::vector<std::string> train;       ///< token shard folders, or JSONL files (.gz, .zst too) and folders of them; each entry is one source
    std::vector<std::string> validation;  ///< the same, for validation; empty = none
    std::string mixture;             ///< instruct: a mixture of tasks (mixture_file.hpp), or a task file, in place of `train`
    std::string validation_mixture;  ///< the same in place of `validation`
    std::string validation_split;    ///< validation on this split of `mixture`, in place of both
    std::vector<std::string> only;   ///< names of the tasks of `mixture` and of validation that count, with * and ?; empty = all
    std::string folder;              ///< what paths of task files are relative to
    std::string cache;               ///< folder for tokenised tasks, checked by hash; empty = tokenised at every start, in memory
    std::vector<double> weights;  ///< one share per entry of `train`; empty = in proportion to size (after `cap`).
    int64_t tasks = 0;                    ///< instruct: so many task files of `train` (tasks.hpp); 0 = all. Validation is not restricted
    int64_t tasks_seed = 0;               ///< which ones: nested, fewer are among more
    int64_t cap = 0;                      ///< at most so many examples or windows of a source in an epoch; 0 = all
    std::string tokenizer;                ///< path of spiece.model, or of a folder that holds it
    int64_t sentinels = 100;              ///< `<extra_id_k>` pieces after the vocabulary

    std::vector<std::string> inputs_keys = {"inputs"};    ///< JSONL: names of the field, the first that a line has is taken
    std::vector<std::string> targets_keys = {"targets"};  ///< the same; a list of accepted answers is allowed, training takes the first
    std::string options_key = "options";                  ///< optional: list of answers to choose from
    std::string task_key = "task";                        ///< optional: name of the task
    std::string remove_suffix;                            ///< cut from the end of every target that ends so ("<|endoftext|>")
    MalformedPolicy malformed = MalformedPolicy::fail;
    Truncation truncation = Truncation::keep_start;

    int64_t encoder_length = 512;   ///< tokens of a row, end mark included; 0 for decoder-only models
    int64_t decoder_length = 0;     ///< the same; 0 = solved from encoder_length (span_corruption), as encoder_length (prefix_lm); instruct needs it
    double noise_density = 0.15;    ///< span corruption: share of tokens that are masked
    double mean_span = 3.0;         ///< span corruption: mean length of a masked span
    bool packing = true;            ///< instruct: several examples a row; false = one a row
    int64_t pad_multiple = 8;       ///< without packing, rows are padded to the longest of the step rounded up to this

    int64_t batch_rows = 128;       ///< rows of an optimizer step
    int64_t micro_batch_rows = 0;   ///< rows of a micro-batch; 0 = batch_rows; must divide batch_rows
    int64_t validation_rows = 0;    ///< rows of a validation batch; 0 = rows of a micro-batch
    int64_t validation_batches = 16;  ///< at most so many; fewer if the set is smaller
    bool shuffle = true;
    int64_t seed = 0;               ///< of shuffling, masking and mixing
    int64_t prefetch = 2;           ///< optimizer steps prepared ahead in the background; 0 = none

    bool validates() const { return !validation.empty() || !validation_mixture.empty() || !validation_split.empty(); }

    std::string held_out_report;    ///< file that open_mixture() writes what is found of held-out items into; a matter of the caller, no option of `[data]`
    bool encoder_decoder = true;    ///< follows the model; not an option of `[data]`
    bool bidirectional_prefix = false;  ///< follows the model, too: decoder-only rows mark their inputs as a prefix
    int64_t pad_id = 0, eos_id = 1, decoder_start_id = 0;  ///< follow the model; not options of `[data]`
};

}  // namespace flanmoe

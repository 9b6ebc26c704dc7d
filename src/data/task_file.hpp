// Tasks as data: a TOML file says how a task, or a family of them, is read, asked and answered. Format, by example:
//
//   name = "gsm8k"                            # with each_file = true there is a task of every file of a pattern in [files]; {file} is what its * stands for
//   reader = "gsm8k"                          # readers/reader.hpp; with records, columns, encoding, malformed ("fail", "skip") as the reader takes them
//   metric = "number"                         # for evaluation; language = "en", category = "...", derived_from = ["..."], cap = 0 (examples in a mixture)
//   source = "github.com/..."                 # said when a file is missing: where to get it
//   exemplars = "train"                       # split that the shots of other splits come from
//   options = ["yes", "no"]                   # or one template whose value is a list, or a text that "|||" divides; in templates: options, answer_choices
//   options_style = "dash"                    # of options_, which is "OPTIONS:\n- yes\n- no", or with "letters" "OPTIONS:\n(A) yes\n(B) no"; empty where a prompt has no options
//   answer = "{{ answer }}"                   # the accepted answer or a list of them; checked against the options; default: targets
//   unique = "id"                             # field that no two records of a split share; "" = none
//   prompts = "promptsource/x/templates.yaml" # templates of promptsource, by name with prompt_names = ["..."]
//   [files]                                   # split -> files below the data folder, with * and ?
//   train = ["gsm8k/train.jsonl"]
//   [only] test = "ids.json"                  # of a split only records whose id is a key (or item) of that JSON file; [except]: only others
//   [portion]                                 # splits that divide a file: of a split only the records whose `by`, hashed evenly into [0, 1), falls into its range
//   by = "{{ passage_id }}"                   # records that share it stay together; default: file and number of the record
//   train = [0, 0.9]
//   validation = [0.9, 1]
//   group = "{{ question_id }}"               # questions that belong together, for the metric consistency (eval/task_metrics.hpp)
//   [fields] final = "{{ answer | trim }}"    # more fields, computed from those of the record in order of name
//   [[template]]                              # one at least
//   name = "plain"
//   inputs = "Q: {{ question }}\nA:"
//   targets = "{{ rationale }} The answer is {{ answer }}."
//   inverted = false                          # whether it turns the task round (a mixture has a rate for those)
//   [[variant]]                               # any number: a task with these keys in place of those above
//
// White space at both ends of inputs and targets is taken away. A record for which a template has nothing to ask or answer gives no example: it is counted.
#pragma once

#include "data/examples.hpp"
#include "data/readers/reader.hpp"
#include "data/templates/template.hpp"

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace flanmoe {

/// Of what caches keep of tasks (tokens, searches for held-out items): raise it when readers or templates make other examples of the same files.
constexpr uint64_t examples_form = 1;

/// A way to ask: inputs and targets, or (promptsource) one template whose text "|||" divides.
struct TaskTemplate {
    std::string name;
    std::optional<Template> inputs, targets, both;
    std::optional<Template> choices;  ///< promptsource: answer choices, divided by "|||"
    bool inverted = false;
    bool shows_options = false;  ///< it names options_, so that it differs with and without options
};

class Task {
public:
    std::string name;
    std::string declared;  ///< the file that declares it
    std::string reader, metric, language, category, source, exemplars, options_style, unique;
    std::vector<std::string> derived_from;
    int64_t cap = 0;
    uint64_t hash = 0;  ///< of the declaration
    ReadOptions read_options;
    std::map<std::string, std::vector<std::filesystem::path>> files;  ///< split -> paths that exist or are missing; patterns are resolved
    std::map<std::string, std::filesystem::path> only, except;
    std::map<std::string, std::pair<double, double>> portions;  ///< split -> range
    std::optional<Template> portion_by, group;
    std::vector<std::pair<std::string, Template>> fields;
    std::vector<Template> options;
    std::optional<Template> answer;
    std::vector<TaskTemplate> templates;

    bool has_split(const std::string& split) const { return files.contains(split); }
    /// Every file on which the records of a split depend: data, ids that choose among them, labels beside them.
    std::vector<std::filesystem::path> dependencies(const std::string& split) const;
    /// All records of a split with their computed fields, options (also as answer_choices) and, under "accepted", the answers of `answer`. Exit::usage for a split
    /// that the task lacks (named with those it has), Exit::missing_input with `source`, Exit::bad_data as the readers; answers outside the options and repeated ids are malformed.
    std::vector<Record> read(const std::string& split, ReadCounts* counts = nullptr) const;
    /// The example of a record of read(). Empty if the template has nothing to ask or answer. `seed` decides what the filter `choice` draws. Exit::bad_data with
    /// the record's place if the template does not fit it.
    std::optional<TaskExample> render(const Record& record, size_t index, bool with_options, uint64_t seed = 0) const;

private:
    void prepare(Record& record) const;
    bool in_portion(const Record& record, const std::string& split) const;
};

/// The tasks of the files or folders of .toml files, in order. `data` is the folder that their paths are relative to. Exit::usage with file, line and nearest
/// name for unknown keys and readers, templates that name a field which the reader never gives, names that are there twice; Exit::bad_data for templates that are none.
std::vector<std::shared_ptr<const Task>> load_tasks(const std::vector<std::string>& paths, const std::filesystem::path& data);

/// The prompts of a promptsource file, in its order; all, or those named. Exit::bad_data for malformed YAML or a template beyond the subset.
std::vector<TaskTemplate> read_promptsource(const std::filesystem::path& path, const std::vector<std::string>& names = {});

}  // namespace flanmoe

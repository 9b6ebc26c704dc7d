// What is wrong with a line is one phrase (RecordProblem), to which file, line and remedy are added.
#include "data/examples.hpp"

#include "core/error.hpp"
#include "data/encoding.hpp"
#include "data/json_value.hpp"
#include "data/readers/fields.hpp"
#include "data/text_files.hpp"

namespace flanmoe {

bool answerable(const TaskExample& e) { return std::find_first_of(e.options.begin(), e.options.end(), e.targets.begin(), e.targets.end()) != e.options.end(); }

namespace {

void remove_suffix(std::string& text, const std::string& suffix) {
    if (!suffix.empty() && text.ends_with(suffix)) text.resize(text.size() - suffix.size());
}

// The example of a line; RecordProblem if it has none.
TaskExample parse_example(JsonParser& json, std::string_view line, const ExampleKeys& keys) {
    if (const int64_t invalid = find_invalid_utf8(line); invalid >= 0) throw RecordProblem{fmt::format("is not valid UTF-8 at byte {} of the line", invalid)};
    DataValue record;
    if (const std::string problem = json.parse(line, record); !problem.empty()) throw RecordProblem{problem};
    if (!record.object()) throw RecordProblem{"is not a JSON object"};
    const auto has = [&](const std::string& name) {
        const DataValue* value = name.empty() ? nullptr : record.find(name);
        return value && !value->nothing();
    };
    TaskExample example;
    example.inputs = text_field(record, name_of_field(record, keys.inputs));
    example.targets = accepted_field(record, keys.targets);
    if (has(keys.options)) example.options = texts_field(record, keys.options);
    if (has(keys.task)) example.task = text_field(record, keys.task);
    if (has(keys.group)) example.group = text_field(record, keys.group);
    for (auto* texts : {&example.targets, &example.options})
        for (std::string& text : *texts) remove_suffix(text, keys.remove_suffix);
    return example;
}

}  // namespace

ExampleKeys example_keys(const DataConfig& config) {
    return {config.inputs_keys, config.targets_keys, config.options_key, config.task_key, "group", config.remove_suffix};
}

ExampleCounts for_each_example(const std::vector<std::string>& paths, const ExampleKeys& keys, MalformedPolicy policy,
                               const std::function<void(TaskExample&&)>& take) {
    if (keys.inputs.empty() || keys.targets.empty()) fail(Exit::usage, "no field is named for inputs or targets; name at least one for each");
    ExampleCounts counts;
    JsonParser json;
    std::string line;
    for (const InputFile& file : find_input_files(paths, {".jsonl"})) {
        LineReader reader(file.path);
        while (reader.next(line)) {
            std::string_view text = line;
            if (reader.line_number() == 1 && text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);
            if (text.find_first_not_of(" \t\r") == std::string_view::npos) continue;
            TaskExample example;
            try {
                example = parse_example(json, text, keys);
            } catch (const RecordProblem& problem) {
                if (policy == MalformedPolicy::fail)
                    fail(Exit::bad_data, "{}:{} {}; repair the line, name other fields, or skip such lines (malformed = \"skip\")", file.path.string(), reader.line_number(), problem.what);
                ++counts.malformed;
                continue;
            }
            example.file = file.path.string();
            example.line = reader.line_number();
            ++counts.examples;
            take(std::move(example));
        }
    }
    if (counts.examples == 0)
        fail(Exit::bad_data, "{} holds no examples ({} malformed lines); name files with one JSON object a line", joined(paths, ", "),
             counts.malformed);
    return counts;
}

std::vector<TaskExample> read_examples(const std::vector<std::string>& paths, const ExampleKeys& keys, MalformedPolicy policy,
                                       ExampleCounts* counts) {
    std::vector<TaskExample> examples;
    const ExampleCounts found = for_each_example(paths, keys, policy, [&](TaskExample&& example) { examples.push_back(std::move(example)); });
    if (counts) *counts = found;
    return examples;
}

}  // namespace flanmoe

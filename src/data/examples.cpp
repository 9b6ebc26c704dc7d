// Every line goes through the same checks; what is wrong with it is one phrase, to which file, line and remedy are added.
#include "data/examples.hpp"

#include "core/error.hpp"
#include "data/encoding.hpp"
#include "data/json_lines.hpp"
#include "data/text_files.hpp"

namespace flanmoe {

namespace {

JsonLine::Field first_field(const JsonLine& json, const std::vector<std::string>& names, std::string& name) {
    for (const std::string& candidate : names) {
        JsonLine::Field field = json.field(candidate);
        if (field.kind == JsonLine::Kind::missing) continue;
        name = candidate;
        return field;
    }
    return {};
}

void remove_suffix(std::string& text, const std::string& suffix) {
    if (!suffix.empty() && text.ends_with(suffix)) text.resize(text.size() - suffix.size());
}

// Fills the example from a line; what is wrong with it, or "".
std::string parse_example(JsonLine& json, std::string_view line, const ExampleKeys& keys, TaskExample& example) {
    if (const int64_t invalid = find_invalid_utf8(line); invalid >= 0) return fmt::format("is not valid UTF-8 at byte {} of the line", invalid);
    if (std::string problem = json.parse(line); !problem.empty()) return problem;
    std::string name;
    const auto missing = [&](const std::vector<std::string>& names) {
        return fmt::format("has no field '{}' (it has: {})", joined(names, "' or '"), joined(json.keys(), ", "));
    };
    JsonLine::Field inputs = first_field(json, keys.inputs, name);
    if (inputs.kind == JsonLine::Kind::missing) return missing(keys.inputs);
    if (inputs.kind != JsonLine::Kind::text) return fmt::format("has a field '{}' that is not a text", name);
    example.inputs = std::move(inputs.texts[0]);

    JsonLine::Field targets = first_field(json, keys.targets, name);
    if (targets.kind == JsonLine::Kind::missing) return missing(keys.targets);
    if (targets.kind == JsonLine::Kind::other || targets.texts.empty())
        return fmt::format("has a field '{}' that is neither a text nor a list of texts", name);
    example.targets = std::move(targets.texts);
    for (std::string& target : example.targets) remove_suffix(target, keys.remove_suffix);

    if (!keys.options.empty()) {
        JsonLine::Field options = json.field(keys.options);
        if (options.kind == JsonLine::Kind::text || options.kind == JsonLine::Kind::other)
            return fmt::format("has a field '{}' that is not a list of texts", keys.options);
        example.options = std::move(options.texts);
        for (std::string& option : example.options) remove_suffix(option, keys.remove_suffix);
    }
    if (!keys.task.empty()) {
        const JsonLine::Field task = json.field(keys.task);
        if (task.kind == JsonLine::Kind::list || task.kind == JsonLine::Kind::other)
            return fmt::format("has a field '{}' that is not a text", keys.task);
        if (task.kind == JsonLine::Kind::text) example.task = task.texts[0];
    }
    return {};
}

}  // namespace

ExampleKeys example_keys(const DataConfig& config) {
    return {config.inputs_keys, config.targets_keys, config.options_key, config.task_key, config.remove_suffix};
}

ExampleCounts for_each_example(const std::vector<std::string>& paths, const ExampleKeys& keys, MalformedPolicy policy,
                               const std::function<void(TaskExample&&)>& take) {
    if (keys.inputs.empty() || keys.targets.empty()) fail(Exit::usage, "no field is named for inputs or targets; name at least one for each");
    ExampleCounts counts;
    JsonLine json;
    std::string line;
    for (const InputFile& file : find_input_files(paths, {".jsonl"})) {
        LineReader reader(file.path);
        while (reader.next(line)) {
            std::string_view text = line;
            if (reader.line_number() == 1 && text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);
            if (text.find_first_not_of(" \t\r") == std::string_view::npos) continue;
            TaskExample example;
            const std::string problem = parse_example(json, text, keys, example);
            if (problem.empty()) {
                example.file = file.path.string();
                example.line = reader.line_number();
                ++counts.examples;
                take(std::move(example));
            } else if (policy == MalformedPolicy::fail) {
                fail(Exit::bad_data, "{}:{} {}; repair the line, name other fields, or skip such lines (malformed = \"skip\")", file.path.string(),
                     reader.line_number(), problem);
            } else {
                ++counts.malformed;
            }
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

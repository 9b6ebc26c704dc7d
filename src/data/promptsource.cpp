// promptsource's templates.yaml: {templates: {id: {name, jinja, answer_choices, metadata}}}, through yaml-cpp.
#include "core/error.hpp"
#include "core/nearest.hpp"
#include "data/readers/layouts.hpp"
#include "data/task_file.hpp"
#include "data/text_files.hpp"

#include <yaml-cpp/yaml.h>

#include <algorithm>

namespace flanmoe {

std::vector<TaskTemplate> read_promptsource(const std::filesystem::path& path, const std::vector<std::string>& names) {
    std::vector<TaskTemplate> all;
    std::vector<std::string> present;
    try {
        const YAML::Node document = YAML::Load(read_text(path, Encoding::utf8));
        const YAML::Node templates = document["templates"];
        if (!templates || !templates.IsMap()) fail(Exit::bad_data, "{} has no map 'templates'; is it a file of promptsource?", path.string());
        for (const auto& entry : templates) {
            const auto line = entry.first.Mark().line + 1;
            const YAML::Node& prompt = entry.second;
            if (!prompt.IsMap() || !prompt["name"] || !prompt["jinja"])
                fail(Exit::bad_data, "{}:{}: a template has no 'name' or no 'jinja'; is it a file of promptsource?", path.string(), line);
            TaskTemplate t;
            t.name = prompt["name"].as<std::string>();
            present.push_back(t.name);
            if (!names.empty() && std::find(names.begin(), names.end(), t.name) == names.end()) continue;
            const std::string origin = fmt::format("template '{}' ({}:{})", t.name, path.string(), line);
            t.both.emplace(prompt["jinja"].as<std::string>(), origin);
            if (prompt["answer_choices"] && !prompt["answer_choices"].IsNull()) t.choices.emplace(prompt["answer_choices"].as<std::string>(), origin + ", answer_choices");
            const YAML::Node original = prompt["metadata"] ? prompt["metadata"]["original_task"] : YAML::Node();
            t.inverted = original && original.IsScalar() && original.as<std::string>() == "false";
            all.push_back(std::move(t));
        }
    } catch (const YAML::Exception& error) {
        fail(Exit::bad_data, "{}:{}: not valid YAML: {}; repair it, or download it again", path.string(), error.mark.line + 1, error.msg);
    }
    for (const std::string& name : names)
        if (std::find(present.begin(), present.end(), name) == present.end())
            fail(Exit::usage, "{} has no template '{}'{}; it has: {}", path.string(), name, suggestion(name, present), joined(present, ", "));
    return all;
}

}  // namespace flanmoe

// `flanmoe data tasks`: what task files declare, checked against their data, and the examples they make.
#include "cli/checks.hpp"
#include "cli/commands.hpp"
#include "cli/table.hpp"
#include "core/error.hpp"
#include "core/log.hpp"
#include "data/task_file.hpp"
#include "data/text_files.hpp"

#include <CLI/CLI.hpp>

#include <memory>

namespace flanmoe::cli {

namespace {

struct Arguments {
    std::vector<std::string> files;
    std::string data = ".", split;
    int64_t count = 0;
    bool no_options = false, jsonl = false;
};

void show(const TaskExample& example, const Task& task, size_t index, const Arguments& a) {
    if (!a.jsonl) {
        fmt::print("--- {} ({}:{}), template '{}'\n{}\n=> {}\n", task.name, example.file, example.line, task.templates[index].name, example.inputs, joined(example.targets, " | "));
        return;
    }
    DataValue line{DataValue::Object{{"inputs", example.inputs}, {"targets", DataValue(example.targets)}, {"options", DataValue(example.options)}, {"task", task.name},
                                     {"template", task.templates[index].name}}};
    if (!example.group.empty()) line.set("group", example.group);
    fmt::print("{}\n", line.json());
}

// Every record through every template; the table's row of a split.
std::vector<std::string> check(const Task& task, const std::string& split, const Arguments& a) {
    for (const std::filesystem::path& path : task.files.at(split))
        if (!std::filesystem::exists(path)) return {task.name, split, task.reader, task.language, task.metric, "missing", "", std::to_string(task.templates.size()), "", ""};
    ReadCounts counts;
    const std::vector<Record> records = task.read(split, &counts);
    for (const std::string& problem : counts.problems) warn("skipped: {}", problem);
    int64_t examples = 0, nothing = 0;
    for (size_t r = 0; r < records.size(); ++r)
        for (size_t t = 0; t < task.templates.size(); ++t) {
            const auto example = task.render(records[r], t, !a.no_options);
            ++(example ? examples : nothing);
            if (example && static_cast<int64_t>(r) < a.count) show(*example, task, t, a);
        }
    return {task.name, split, task.reader, task.language, task.metric, thousands(counts.records), thousands(counts.malformed), std::to_string(task.templates.size()), thousands(examples),
            thousands(nothing)};
}

}  // namespace

void add_data_tasks(CLI::App& data_command) {
    const auto a = std::make_shared<Arguments>();
    CLI::App* command = data_command.add_subcommand("tasks", "Check task files against their data: every record through every template; files that are not there are called missing");
    command->add_option("TASK", a->files, "Task files (.toml), or folders of them")->required();
    command->add_option("--data", a->data, "Folder that their paths are relative to")->capture_default_str();
    command->add_option("--split", a->split, "Only this split; tasks that lack it are left out");
    command->add_option("--count", a->count, "Print the examples of so many records of each")->check(not_negative);
    command->add_flag("--no-options", a->no_options, "Ask without options");
    command->add_flag("--jsonl", a->jsonl, "Print examples as JSON lines, and no table");
    command->footer("Example:\n  flanmoe data tasks configs/task --data data-folder --count 1");
    command->callback([a] {
        Table table({{"task", Align::left}, {"split", Align::left}, {"reader", Align::left}, {"language", Align::left}, {"metric", Align::left}, {"records", Align::right},
                     {"malformed", Align::right}, {"templates", Align::right}, {"examples", Align::right}, {"nothing to ask", Align::right}});
        const auto tasks = load_tasks(a->files, a->data);
        for (const auto& task : tasks)
            for (const auto& [split, files] : task->files)
                if (a->split.empty() || a->split == split) table.add(check(*task, split, *a));
        if (!a->jsonl) fmt::print("{}{} tasks\n", table.text(), tasks.size());
    });
}

}  // namespace flanmoe::cli

// Declarations of tasks: TOML to Task, checked.
#include "data/task_file.hpp"

#include "core/error.hpp"
#include "core/file.hpp"
#include "core/nearest.hpp"
#include "data/text_files.hpp"
#include "data/toml_value.hpp"

#include <glob.h>
#include <xxhash.h>

#include <algorithm>
#include <set>

namespace flanmoe {

namespace {

namespace fs = std::filesystem;

// Paths below the data folder; patterns stand for what they match, in byte order.
std::vector<fs::path> resolved(const std::vector<std::string>& patterns, const fs::path& data) {
    std::vector<fs::path> paths;
    for (const std::string& pattern : patterns) {
        const fs::path full = fs::path(pattern).is_absolute() ? fs::path(pattern) : data / pattern;
        if (pattern.find_first_of("*?[") == std::string::npos) {
            paths.push_back(full);
            continue;
        }
        glob_t found{};
        const int status = ::glob(full.c_str(), GLOB_NOSORT, nullptr, &found);
        std::vector<std::string> matches;
        for (size_t i = 0; status == 0 && i < found.gl_pathc; ++i) matches.emplace_back(found.gl_pathv[i]);
        ::globfree(&found);
        std::sort(matches.begin(), matches.end());
        if (matches.empty()) matches.push_back(full.string());  // named when it is read
        paths.insert(paths.end(), matches.begin(), matches.end());
    }
    return paths;
}

// What the only * of a pattern stands for in the path; otherwise the file's name without extensions.
std::string matched(const std::string& pattern, const std::string& path, const std::string& stem) {
    const size_t star = pattern.find('*');
    if (star == std::string::npos || pattern.find_first_of("*?[", star + 1) != std::string::npos || pattern.find_first_of("?[") < star) return stem;
    const size_t behind = pattern.size() - star - 1;
    return path.size() >= star + behind && path.compare(0, star, pattern, 0, star) == 0 ? path.substr(star, path.size() - star - behind) : stem;
}

// Names in templates that are no fields of the record.
const std::set<std::string> given_names = {"options", "options_", "answer_choices", "language_", "accepted"};

// Names must be fields that the reader gives, or computed ones.
void check_names(const Template& t, const Task& task, const std::string& where) {
    const Reader& reader = find_reader(task.reader);
    if (reader.open || reader.fields.empty()) return;
    std::vector<std::string> fields = reader.fields;
    for (const auto& [name, computed] : task.fields) fields.push_back(name);
    for (const std::string& name : t.names())
        if (!given_names.contains(name) && std::find(fields.begin(), fields.end(), name) == fields.end())
            fail(Exit::usage, "{}: {} names the field '{}', which the reader {} does not give{}; it gives: {}", where, t.origin(), name, task.reader, suggestion(name, fields),
                 joined(fields, ", "));
}

Template template_of(Declaration& d, const std::string& key, const std::string& task) {
    return Template(d.text(key), fmt::format("{} of task {} ({})", key, task, d.where(key)));
}

void read_templates(Declaration& d, Task& task, const fs::path& data) {
    for (Declaration& t : d.tables("template")) {
        TaskTemplate one;
        one.name = t.text("name", fmt::format("template {}", task.templates.size() + 1));
        one.inverted = t.truth("inverted", false);
        for (const char* key : {"inputs", "targets"})
            if (!t.has(key)) fail(Exit::usage, "{}: the template '{}' has no {}", t.where(), one.name, key);
        one.inputs = template_of(t, "inputs", task.name);
        one.targets = template_of(t, "targets", task.name);
        t.finish();
        for (const Template* part : {&*one.inputs, &*one.targets}) check_names(*part, task, t.where());
        const std::vector<std::string> names = one.inputs->names();
        one.shows_options = std::find(names.begin(), names.end(), "options_") != names.end();
        task.templates.push_back(std::move(one));
    }
    const std::string prompts = d.text("prompts");
    const std::vector<std::string> names = d.texts("prompt_names");
    if (!prompts.empty()) {
        const fs::path path = resolved({prompts}, data)[0];
        for (TaskTemplate& prompt : read_promptsource(path, names)) task.templates.push_back(std::move(prompt));
        const std::string bytes = read_file(path);
        task.hash = XXH3_64bits_withSeed(bytes.data(), bytes.size(), task.hash);
    }
    if (task.templates.empty()) fail(Exit::usage, "{}: task {} has no template; add one ([[template]], or prompts = \"...\")", d.where(), task.name);
}

void read_options_and_fields(Declaration& d, Task& task) {
    Declaration fields = d.table("fields");
    for (const std::string& name : fields.keys()) {
        task.fields.emplace_back(name, template_of(fields, name, task.name));
        check_names(task.fields.back().second, task, fields.where(name));
    }
    if (d.has("options")) {
        const std::vector<std::string> options = d.texts("options");
        for (size_t i = 0; i < options.size(); ++i) {
            task.options.emplace_back(options[i], fmt::format("options of task {} ({})", task.name, d.where("options")));
            check_names(task.options.back(), task, d.where("options"));
        }
    }
    task.options_style = d.text("options_style", "dash");
    if (task.options_style != "dash" && task.options_style != "letters")
        fail(Exit::usage, "{}: options_style is '{}'; choose dash or letters", d.where("options_style"), task.options_style);
    if (d.has("answer")) {
        task.answer = template_of(d, "answer", task.name);
        check_names(*task.answer, task, d.where("answer"));
    }
}

// Splits as ranges of a file, and which questions belong together.
void read_portions(Declaration& d, Task& task) {
    Declaration portion = d.table("portion");
    if (portion.has("by")) {
        task.portion_by = template_of(portion, "by", task.name);
        check_names(*task.portion_by, task, portion.where("by"));
        portion.remove("by");
    }
    for (const std::string& split : portion.keys()) {
        const DataValue value = portion.any(split);
        const auto number = [&](size_t i) { return (*value.list())[i].integer() ? static_cast<double>(*(*value.list())[i].integer()) : *(*value.list())[i].real(); };
        const bool two = value.list() && value.list()->size() == 2 && std::all_of(value.list()->begin(), value.list()->end(), [](const DataValue& v) { return v.integer() || v.real(); });
        if (!two || !(0 <= number(0) && number(0) < number(1) && number(1) <= 1))
            fail(Exit::usage, "{}: the portion of {} is {}; give two numbers from 0 to 1, the smaller first: {} = [0, 0.9]", portion.where(split), split, value.json(), split);
        if (!task.has_split(split)) fail(Exit::usage, "{}: the portion is of '{}', a split that task {} does not have", portion.where(split), split, task.name);
        task.portions[split] = {number(0), number(1)};
    }
    if (!d.has("group")) return;
    task.group = template_of(d, "group", task.name);
    check_names(*task.group, task, d.where("group"));
}

std::shared_ptr<const Task> task_of(Declaration& d, const fs::path& data, const std::string& file) {
    auto task = std::make_shared<Task>();
    task->declared = file;
    task->name = d.text("name");
    task->hash = d.hash();
    task->reader = d.text("reader");
    if (task->name.empty()) fail(Exit::usage, "{}: a task has no name; add name = \"...\"", d.where());
    if (task->reader.empty()) fail(Exit::usage, "{}: task {} has no reader; add reader = \"...\" (`flanmoe data readers` lists them)", d.where(), task->name);
    try {
        find_reader(task->reader);
    } catch (const Error& error) {
        fail(Exit::usage, "{}: {}", d.where("reader"), error.what());
    }
    task->metric = d.text("metric", "exact_match");
    task->language = d.text("language", "en");
    task->category = d.text("category");
    task->source = d.text("source");
    task->exemplars = d.text("exemplars");
    task->unique = d.text("unique", "id");
    task->derived_from = d.texts("derived_from");
    task->cap = d.integer("cap", 0);
    task->read_options.records = d.text("records");
    task->read_options.columns = d.texts("columns");
    task->read_options.encoding = parse_encoding(d.text("encoding", "utf-8"));
    const std::string malformed = d.text("malformed", "fail");
    if (malformed != "fail" && malformed != "skip") fail(Exit::usage, "{}: malformed is '{}'; choose fail or skip", d.where("malformed"), malformed);
    task->read_options.malformed = malformed == "skip" ? MalformedPolicy::skip : MalformedPolicy::fail;
    Declaration files = d.table("files");
    for (const std::string& split : files.keys()) task->files[split] = resolved(files.texts(split), data);
    if (task->files.empty()) fail(Exit::usage, "{}: task {} has no files; add [files] with a split, train = [\"...\"]", d.where(), task->name);
    for (const auto& [key, into] : {std::pair{"only", &task->only}, {"except", &task->except}}) {
        Declaration lists = d.table(key);
        for (const std::string& split : lists.keys()) (*into)[split] = resolved({lists.text(split)}, data)[0];
    }
    if (!task->exemplars.empty() && !task->has_split(task->exemplars))
        fail(Exit::usage, "{}: task {} takes exemplars from '{}', a split that it does not have", d.where("exemplars"), task->name, task->exemplars);
    read_options_and_fields(d, *task);
    read_portions(d, *task);
    read_templates(d, *task, data);
    return task;
}

// One task, or one of every file of the first pattern in [files]: {file} in any text is what the pattern's * stands for.
void add_tasks(Declaration d, const fs::path& data, const std::string& file, std::vector<std::shared_ptr<const Task>>& tasks) {
    const bool each = d.truth("each_file", false);
    if (!each) {
        tasks.push_back(task_of(d, data, file));
        d.finish();
        return;
    }
    Declaration files = d.table("files");
    std::string pattern;
    for (const std::string& split : files.keys())
        for (const std::string& one : files.texts(split))
            if (pattern.empty() && one.find_first_of("*?[") != std::string::npos) pattern = one;
    if (pattern.empty()) fail(Exit::usage, "{}: each_file needs a pattern in [files], as in \"folder/*.json\"", d.where("files"));
    for (const fs::path& path : resolved({pattern}, data)) {
        const std::string stem = matched(pattern, path.lexically_relative(data).string(), SourceFile{path, {}}.stem());
        Declaration one = d;
        one.substitute(pattern, path.lexically_relative(data).string(), stem);
        tasks.push_back(task_of(one, data, file));
        one.finish();
    }
}

}  // namespace

std::vector<std::shared_ptr<const Task>> load_tasks(const std::vector<std::string>& paths, const std::filesystem::path& data) {
    std::vector<std::shared_ptr<const Task>> tasks;
    for (const InputFile& input : find_input_files(paths, {".toml"})) {
        Declaration file(input.path);
        std::vector<Declaration> variants = file.tables("variant");
        file.remove("variant");
        if (variants.empty())
            add_tasks(file, data, input.path.string(), tasks);
        else
            for (const Declaration& variant : variants) add_tasks(file.with(variant), data, input.path.string(), tasks);
    }
    std::map<std::string, std::string> names;
    for (const auto& task : tasks) {
        const auto [first, fresh] = names.try_emplace(task->name, task->declared);
        if (!fresh) fail(Exit::usage, "{} declares a task '{}', which {} declares, too; rename one", task->declared, task->name, first->second);
    }
    return tasks;
}

}  // namespace flanmoe

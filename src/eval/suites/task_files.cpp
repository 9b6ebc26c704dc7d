// Any task file as a suite of its own: its first template without inversion, zero-shot or with exemplars from the split that it names.
#include "core/error.hpp"
#include "core/nearest.hpp"
#include "data/task_file.hpp"
#include "eval/suites/source.hpp"

#include <algorithm>

namespace flanmoe {

namespace {

AnswerRule rule_of(const Task& task) {
    if (task.metric == "number") return AnswerRule::number;
    if (task.metric == "accuracy") return AnswerRule::option;
    if (task.metric == "after_answer_is") return AnswerRule::text;
    if (task.metric == "exact_match" || task.metric == "f1" || task.metric == "pearson" || task.metric == "spearman" || task.metric.empty()) return AnswerRule::span;
    fail(Exit::usage, "task {} ({}) is measured by '{}', which a suite cannot; there are accuracy, number, after_answer_is, exact_match, f1, pearson and spearman", task.name, task.declared, task.metric);
}

size_t template_of(const Task& task) {
    for (size_t i = 0; i < task.templates.size(); ++i)
        if (!task.templates[i].inverted) return i;
    fail(Exit::usage, "task {} ({}) only has templates that turn it round; add one that asks", task.name, task.declared);
}

std::string split_of(const Task& task, const SuiteSettings& settings) {
    if (!settings.split.empty()) return settings.split;
    for (const char* split : {"test", "validation", "dev"})
        if (task.has_split(split)) return split;
    fail(Exit::usage, "task {} ({}) has no split test, validation or dev; name one with --split", task.name, task.declared);
}

void add_shots(SuiteTask& suite_task, const Task& task, size_t asked, const SuiteSettings& settings) {
    if (settings.shots <= 0) return;
    if (task.exemplars.empty()) fail(Exit::usage, "task {} ({}) names no split that exemplars come from; set exemplars in it, or leave out --shots", task.name, task.declared);
    const std::vector<Record> records = task.read(task.exemplars);
    if (static_cast<size_t>(settings.shots) > records.size())
        fail(Exit::bad_data, "task {}: too few exemplars: {} are wanted, its split {} has {}; ask with fewer (--shots)", task.name, settings.shots, task.exemplars, records.size());
    for (const Record* record : draw(records, static_cast<size_t>(settings.shots), settings.seed, task.name)) {
        const auto example = task.render(*record, asked, true, settings.seed);
        if (!example) fail(Exit::bad_data, "{} gives no exemplar by the template '{}'; choose another with --seed", record->place(), task.templates[asked].name);
        suite_task.shots.push_back(example->inputs + " " + example->targets[0] + "\n\n");
    }
}

SuiteTask build(const Task& task, const SuiteSettings& settings) {
    SuiteTask result;
    result.suite = "task", result.name = task.name, result.category = task.category, result.language = task.language;
    result.rule = rule_of(task);
    if (task.metric == "f1") result.written = Measure::f1;
    result.numbers = task.metric == "pearson" || task.metric == "spearman";
    const size_t asked = template_of(task);
    ReadCounts counts;
    const std::vector<Record> records = task.read(split_of(task, settings), &counts);
    if (counts.malformed > 0) result.dropped["malformed"] = counts.malformed;
    for (const Record& record : records) {
        const auto example = task.render(record, asked, true, settings.seed);
        if (!example) {
            ++result.records, ++result.dropped["nothing to ask"];
            continue;
        }
        SuiteQuestion question;
        question.prompt = example->inputs;
        question.answers = example->targets;
        question.group = example->group;
        const DataValue* accepted = record.fields.find("accepted");
        if (accepted && (result.rule == AnswerRule::number || result.rule == AnswerRule::text)) {
            question.answers = texts_of(record, "accepted");
            if (result.questions.empty() && question.answers != example->targets) result.mode = PromptMode::cot;  // the template answers with more than that
        }
        // Options that the targets are among: a template may answer with letters.
        const std::vector<std::string>& options = example->options;
        const bool among = answerable(*example);
        if (!result.numbers) question.choices = options;  // SICK's records have both, a score and a label with its options
        if (among) question.options = options;
        if (result.questions.empty() && !options.empty() && !among && result.rule == AnswerRule::option) result.rule = AnswerRule::letter;
        add_question(result, record, std::move(question));
    }
    add_shots(result, task, asked, settings);
    finish_task(result, settings);
    return result;
}

}  // namespace

std::vector<SuiteTask> build_task_file(const std::string& path, const SuiteSettings& settings) {
    std::vector<SuiteTask> tasks;
    if (settings.malformed == MalformedPolicy::skip) fail(Exit::usage, "{} says itself what becomes of malformed records (malformed = \"skip\" in it); leave out --malformed", path);
    for (const auto& task : load_tasks({path}, settings.data))
        if (settings.wants("task", task->name)) tasks.push_back(build(*task, settings));
    return tasks;
}

}  // namespace flanmoe

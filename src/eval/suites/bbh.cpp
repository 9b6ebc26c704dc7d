// BIG-Bench-Hard, as suzgunmirac/BIG-Bench-Hard publishes it: the description and three exemplars of cot-prompts/TASK.txt, then the question. Direct prompts have the same
// exemplars with their answers alone.
#include "core/error.hpp"
#include "data/readers/bbh_prompt.hpp"
#include "data/readers/fields.hpp"
#include "eval/suites/source.hpp"

#include <algorithm>
#include <set>

namespace flanmoe {

namespace {

constexpr SuiteFiles files{"bbh", "github.com/suzgunmirac/BIG-Bench-Hard", "bbh/bbh/TASK.json and bbh/cot-prompts/TASK.txt"};

const std::vector<std::string>& sub_tasks() {
    static const std::vector<std::string> all = {
        "boolean_expressions", "causal_judgement", "date_understanding", "disambiguation_qa", "dyck_languages", "formal_fallacies", "geometric_shapes", "hyperbaton",
        "logical_deduction_five_objects", "logical_deduction_seven_objects", "logical_deduction_three_objects", "movie_recommendation", "multistep_arithmetic_two", "navigate",
        "object_counting", "penguins_in_a_table", "reasoning_about_colored_objects", "ruin_names", "salient_translation_error_detection", "snarks", "sports_understanding",
        "temporal_sequences", "tracking_shuffled_objects_five_objects", "tracking_shuffled_objects_seven_objects", "tracking_shuffled_objects_three_objects", "web_of_lies",
        "word_sorting"};
    return all;
}

/// The task that a sub-task is of: the 23 of the paper.
std::string task_of(const std::string& sub_task) {
    for (const char* task : {"logical_deduction", "tracking_shuffled_objects"})
        if (sub_task.starts_with(task)) return task;
    return sub_task;
}

/// The texts behind "(A) " below "Options:".
std::vector<std::string> lettered_options(const std::string& input) {
    std::vector<std::string> options;
    const size_t list = input.rfind("Options:\n");
    for (size_t at = list == std::string::npos ? list : list + 8; at != std::string::npos; at = input.find('\n', at + 1)) {
        const std::string line = trimmed(std::string_view(input).substr(at + 1, std::min(input.find('\n', at + 1), input.size()) - at - 1));
        if (line.size() > 3 && line[0] == '(' && line[2] == ')') options.push_back(trimmed(line.substr(3)));
    }
    return options;
}

/// Tasks that list no options but have two answers: True and False, yes and no.
std::vector<std::string> implied_options(const std::vector<Record>& records) {
    std::set<std::string> targets;
    for (const Record& record : records) targets.insert(text_of(record, "target"));
    for (const std::vector<std::string>& pair : {std::vector<std::string>{"True", "False"}, {"Yes", "No"}, {"yes", "no"}})
        if (!targets.empty() && std::all_of(targets.begin(), targets.end(), [&](const std::string& t) { return t == pair[0] || t == pair[1]; })) return pair;
    return {};
}

SuiteTask build(const std::string& name, PromptMode mode, const SuiteSettings& settings) {
    SuiteTask task;
    task.suite = "bbh", task.name = name, task.category = task_of(name), task.language = "en", task.mode = mode;
    task.stop = "\nQ:";
    const std::filesystem::path prompt_path = exemplar_path("bbh", settings, settings.data / "bbh/cot-prompts") / (name + ".txt");
    if (!std::filesystem::exists(prompt_path)) missing_files(files, prompt_path);
    const BbhPrompt prompt = read_bbh_prompt(prompt_path);
    task.head = prompt.description + "\n\n";
    const size_t count = shot_count(suite_named("bbh"), settings, prompt.shots.size(), prompt_path.string());
    for (size_t i = 0; i < count; ++i) {
        const BbhPrompt::Shot& shot = prompt.shots[i];
        task.shots.push_back("Q: " + shot.question + "\nA: " + (mode == PromptMode::cot ? shot.rationale : shot.answer) + "\n\n");
    }
    const std::vector<Record> records = read_suite_file(files, "bbh", settings.data / "bbh/bbh" / (name + ".json"), settings, task.dropped);
    const std::vector<std::string> implied = implied_options(records);
    const auto lettered = [](const Record& record) { return text_of(record, "target").size() == 3 && text_of(record, "target")[0] == '('; };
    const bool letters = std::any_of(records.begin(), records.end(), lettered);
    for (const Record& record : records) {
        SuiteQuestion question;
        question.prompt = "Q: " + text_of(record, "input") + "\nA:" + (mode == PromptMode::cot ? " Let's think step by step." : "");
        question.answers = {text_of(record, "target")};
        question.options = texts_of(record, "options");
        if (question.options.empty()) question.options = implied;
        question.choices = letters ? lettered_options(text_of(record, "input")) : question.options;
        if (!question.options.empty() && std::find(question.options.begin(), question.options.end(), question.answers[0]) == question.options.end()) question.answers.clear();
        if (mode == PromptMode::cot) question.options.clear();
        task.rule = letters ? AnswerRule::letter : question.choices.empty() ? AnswerRule::text : AnswerRule::option;
        add_question(task, record, std::move(question));
    }
    finish_task(task, settings);
    return task;
}

}  // namespace

std::vector<SuiteTask> build_bbh(PromptMode mode, const SuiteSettings& settings) {
    std::vector<SuiteTask> tasks;
    for (const std::string& name : sub_tasks())
        if (settings.wants("bbh", name)) tasks.push_back(build(name, mode, settings));
    return tasks;
}

}  // namespace flanmoe

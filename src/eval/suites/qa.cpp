// Question answering without exemplars, in the layout of FLAN (google-research/FLAN, flan/templates.py, first template of "arc" and of "bool_q"): the question, then
// "OPTIONS:\n- ...". The answer is the text of an option.
#include "core/error.hpp"
#include "data/text_files.hpp"
#include "eval/suites/source.hpp"

namespace flanmoe {

namespace {

struct Set {
    const char* name;
    const char* reader;
    const char* folder;
    const char* origin;
    std::vector<std::pair<std::string, std::vector<std::string>>> splits;  ///< split -> files, of which the first that is there is taken; the first split is the suite's own
};

const std::vector<Set>& sets() {
    static const std::vector<Set> all = {
        {"arc_easy", "arc", "arc", "allenai.org/data/arc (ARC-V1-Feb2018.zip)", {{"test", {"ARC-Easy-Test.jsonl"}}, {"validation", {"ARC-Easy-Dev.jsonl"}}}},
        {"arc_challenge", "arc", "arc", "allenai.org/data/arc (ARC-V1-Feb2018.zip)", {{"test", {"ARC-Challenge-Test.jsonl"}}, {"validation", {"ARC-Challenge-Dev.jsonl"}}}},
        {"openbookqa", "openbookqa", "openbookqa", "allenai.org/data/open-book-qa (OpenBookQA-V1-Sep2018.zip)", {{"test", {"test.jsonl"}}, {"validation", {"dev.jsonl"}}}},
        {"commonsenseqa", "commonsenseqa", "commonsenseqa", "www.tau-nlp.sites.tau.ac.il/commonsenseqa",
         {{"validation", {"dev_rand_split.jsonl", "dev_not_in_ecqa_train.jsonl"}}}},  // its test split has no answers
        {"boolq", "jsonl", "boolq", "github.com/google-research-datasets/boolean-questions (or glue-superglue-small/boolq/dev.json)",
         {{"validation", {"dev.jsonl"}}}},  // neither has BoolQ's
    };
    return all;
}

std::string options_list(const std::vector<std::string>& options) {
    std::string text = "OPTIONS:";
    for (const std::string& option : options) text += "\n- " + option;
    return text;
}

std::filesystem::path file_of(const Set& set, const SuiteSettings& settings) {
    std::vector<std::string> splits;
    for (const auto& [split, names] : set.splits) {
        splits.push_back(split);
        if (!settings.split.empty() && split != settings.split) continue;
        for (const std::string& name : names)
            if (const std::filesystem::path path = settings.data / set.folder / name; std::filesystem::exists(path)) return path;
        return settings.data / set.folder / names[0];
    }
    fail(Exit::usage, "suite qa: {} has no split '{}' with answers, it has: {}; choose other tasks with --only, or leave out --split", set.name, settings.split, joined(splits, ", "));
}

void choice_questions(const Set& set, const SuiteSettings& settings, SuiteTask& task) {
    const std::string layout = fmt::format("{}/{}", set.folder, set.splits[0].second[0]);
    for (const Record& record : read_suite_file({"qa", set.origin, layout.c_str()}, set.reader, file_of(set, settings), settings, task.dropped)) {
        SuiteQuestion question;
        question.choices = question.options = texts_of(record, "options");
        question.prompt = text_of(record, "question") + "\n\n" + options_list(question.options);
        question.answers = {text_of(record, "answer")};
        add_question(task, record, std::move(question));
    }
}

void boolq_question(SuiteTask& task, const Record& record, const std::string& asked, const std::string& passage, const std::string& answer) {
    SuiteQuestion question;
    question.choices = question.options = {"no", "yes"};
    question.prompt = passage + "\n\nCan we conclude that " + asked + "?\n\n" + options_list(question.options);
    if (!answer.empty()) question.answers = {answer};
    add_question(task, record, std::move(question));
}

std::string yes_or_no(const std::string& label) {
    return label == "True" || label == "true" || label == "yes" ? "yes" : label == "False" || label == "false" || label == "no" ? "no" : "";
}

/// The authors' {question, passage, answer} a line, or {sentence: "question: ...\npassage: ...", label}.
void boolq_questions(const Set& set, const SuiteSettings& settings, SuiteTask& task) {
    const std::filesystem::path own = file_of(set, settings), other = settings.data / "glue-superglue-small/boolq/dev.json";
    const SuiteFiles files{"qa", set.origin, "boolq/dev.jsonl"};
    if (std::filesystem::exists(own) || !std::filesystem::exists(other)) {
        for (const Record& record : read_suite_file(files, "jsonl", own, settings, task.dropped)) {
            const DataValue *asked = record.fields.find("question"), *passage = record.fields.find("passage"), *answer = record.fields.find("answer");
            if (!asked || !passage || !answer || !asked->text() || !passage->text() || !answer->scalar())
                reject(record, "lacks one of the fields 'question', 'passage' and 'answer', which BoolQ's lines have", settings, task.dropped);
            else boolq_question(task, record, *asked->text(), *passage->text(), yes_or_no(answer->as_text()));
        }
        return;
    }
    for (const Record& record : read_suite_file(files, "glue", other, settings, task.dropped)) {
        const std::string& sentence = text_of(record, "sentence");
        const size_t passage = sentence.find("\npassage: ");
        if (!sentence.starts_with("question: ") || passage == std::string::npos)
            reject(record, "has a sentence that is not 'question: ...' and 'passage: ...', as BoolQ's are", settings, task.dropped);
        else boolq_question(task, record, sentence.substr(10, passage - 10), sentence.substr(passage + 10), yes_or_no(text_of(record, "label")));
    }
}

}  // namespace

std::vector<SuiteTask> build_qa(PromptMode mode, const SuiteSettings& settings) {
    if (settings.shots > 0) fail(Exit::usage, "suite qa asks without exemplars, but --shots is {}; leave it out", settings.shots);
    std::vector<SuiteTask> tasks;
    for (const Set& set : sets()) {
        if (!settings.wants("qa", set.name)) continue;
        SuiteTask task;
        task.suite = "qa", task.name = set.name, task.category = "question answering", task.language = "en", task.mode = mode;
        task.rule = AnswerRule::option;
        if (task.name == "boolq") boolq_questions(set, settings, task);
        else choice_questions(set, settings, task);
        finish_task(task, settings);
        tasks.push_back(std::move(task));
    }
    return tasks;
}

}  // namespace flanmoe

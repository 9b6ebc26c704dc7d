// The reasoning suite, as Wei et al. 2022 (chain-of-thought prompting, appendix) lay prompts out: "Q: ...\nA: rationale The answer is 5." behind each other.
//
// Exemplars: blocks "Q: ...\nA: ..." of a text file that the user names, or of TASK.txt (math.txt for the three sets of mathematics) in a folder that the user names; else drawn
// from a training split with rationales: GSM8K's for the three sets of mathematics, as there, and the FLAN collection's for StrategyQA and AQuA. AQuA is asked on demand (--only).
#include "core/error.hpp"
#include "core/file.hpp"
#include "data/readers/fields.hpp"
#include "eval/suites/source.hpp"

#include <algorithm>
#include <set>

namespace flanmoe {

namespace {

struct Set {
    const char* name;
    const char* reader;
    const char* file;
    const char* origin;
    AnswerRule rule;
    const char* training;  ///< file of exemplars
    const char* training_reader;
    const char* training_origin;
    bool on_demand;
};

constexpr Set sets[] = {
    {"gsm8k", "gsm8k", "gsm8k/test.jsonl", "github.com/openai/grade-school-math, grade_school_math/data", AnswerRule::number, "gsm8k/train.jsonl", "gsm8k",
     "github.com/openai/grade-school-math", false},
    {"svamp", "svamp", "svamp/SVAMP.json", "github.com/arkilpatel/SVAMP", AnswerRule::number, "gsm8k/train.jsonl", "gsm8k", "github.com/openai/grade-school-math", false},
    {"asdiv", "asdiv", "asdiv/ASDiv.xml", "github.com/chaochun/nlu-asdiv-dataset", AnswerRule::number, "gsm8k/train.jsonl", "gsm8k", "github.com/openai/grade-school-math", false},
    {"strategyqa", "strategyqa", "strategyqa/dev.json", "github.com/eladsegal/strategyqa, data/strategyqa", AnswerRule::yes_no, "flan-cot/strategyqa_train.tsv", "flan_cot",
     "github.com/google-research/FLAN, flan/v2/cot_data", false},
    {"aqua", "aqua", "aqua/test.json", "github.com/deepmind/AQuA", AnswerRule::letter, "flan-cot/aqua_train.tsv", "flan_cot", "github.com/google-research/FLAN, flan/v2/cot_data", true},
};

/// " Answer Choices: (a) 50 (b) 45", as the paper writes AQuA's.
std::string answer_choices(const std::vector<std::string>& options) {
    std::string text = " Answer Choices:";
    for (size_t i = 0; i < options.size(); ++i) text += fmt::format(" ({}) {}", static_cast<char>('a' + i), options[i]);
    return text;
}

constexpr const char* options_mark = "\nOptions:\n";  ///< behind a question of the FLAN collection

/// AQuA's question in the FLAN collection, "...?\nOptions:\n(A) 300\n(B) 992", in the paper's form.
std::string with_choices(const std::string& question) {
    const size_t at = question.find(options_mark);
    if (at == std::string::npos) return question;
    std::vector<std::string> options;
    for (size_t line = at + std::string_view(options_mark).size(); line < question.size();) {
        const size_t end = std::min(question.find('\n', line), question.size());
        options.push_back(trimmed(question.substr(std::min(line + 3, end), end - std::min(line + 3, end))));
        line = end + 1;
    }
    return question.substr(0, at) + answer_choices(options);
}

std::string shot(const Set& set, const Record& record) {
    std::string question = text_of(record, "question"), answer = text_of(record, "answer"), rationale = text_of(record, "rationale");
    if (set.rule == AnswerRule::letter) {
        question = with_choices(question);
        std::transform(answer.begin(), answer.end(), answer.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
    }
    std::replace(rationale.begin(), rationale.end(), '\n', ' ');
    if (std::string_view(".!?:").find(rationale.back()) == std::string_view::npos) rationale += '.';
    return fmt::format("Q: {}\nA: {} {} {}.\n\n", question, rationale, set.rule == AnswerRule::yes_no ? "So the answer is" : "The answer is", answer);
}

void named_shots(const Set& set, std::filesystem::path path, const SuiteSettings& settings, SuiteTask& task) {
    if (std::filesystem::is_directory(path)) {
        const std::filesystem::path own = path / (task.name + ".txt");
        path = !std::filesystem::exists(own) && set.rule == AnswerRule::number ? path / "math.txt" : own;
    }
    const TextShots shots = parse_shots(read_file(path), "Q: ", path.string());
    // Who names a file without a number of shots wants all of it.
    const size_t count = settings.shots < 0 ? shots.blocks.size() : shot_count(suite_named("reasoning"), settings, shots.blocks.size(), path.string());
    task.head = shots.head.empty() ? "" : shots.head + "\n\n";
    for (size_t i = 0; i < count; ++i) task.shots.push_back(shots.blocks[i] + "\n\n");
}

/// Drawn from the training split; its questions that are asked in the evaluation are left out.
void drawn_shots(const Set& set, const SuiteSettings& settings, SuiteTask& task, const std::set<std::string>& asked) {
    if (settings.shots == 0) return;
    const SuiteFiles training{"reasoning", set.training_origin, set.training};
    std::vector<Record> records;
    for (Record& record : read_suite_file(training, set.training_reader, settings.data / set.training, settings, task.dropped)) {
        const std::string question = text_of(record, "question");
        if (asked.contains(question.substr(0, question.find(options_mark)))) ++task.dropped["exemplar that is asked in the evaluation"];
        else if (text_of(record, "rationale").empty()) ++task.dropped["exemplar without a rationale"];
        else records.push_back(std::move(record));
    }
    const size_t count = shot_count(suite_named("reasoning"), settings, records.size(), set.training);
    for (const Record* record : draw(records, count, settings.seed, std::string("reasoning/") + set.training)) task.shots.push_back(shot(set, *record));
}

SuiteTask build(const Set& set, PromptMode mode, const SuiteSettings& settings) {
    SuiteTask task;
    task.suite = "reasoning", task.name = set.name, task.category = set.rule == AnswerRule::yes_no ? "commonsense" : "mathematics", task.language = "en", task.mode = mode;
    task.rule = set.rule;
    task.stop = "\nQ:";
    const SuiteFiles files{"reasoning", set.origin, set.file};
    std::set<std::string> asked;
    for (const Record& record : read_suite_file(files, set.reader, settings.data / set.file, settings, task.dropped)) {
        SuiteQuestion question;
        question.prompt = "Q: " + text_of(record, "question");
        asked.insert(text_of(record, "question"));
        if (set.rule == AnswerRule::letter) {
            question.choices = texts_of(record, "options");
            question.prompt += answer_choices(question.choices);
        }
        if (set.rule == AnswerRule::yes_no) question.choices = {"yes", "no"};
        question.prompt += "\nA:";
        question.answers = {text_of(record, set.rule == AnswerRule::letter ? "letter" : "answer")};
        add_question(task, record, std::move(question));
    }
    const auto named = settings.exemplars.find("reasoning");
    if (named != settings.exemplars.end()) named_shots(set, exemplar_path("reasoning", settings, ""), settings, task);
    else drawn_shots(set, settings, task, asked);
    finish_task(task, settings);
    return task;
}

}  // namespace

std::vector<SuiteTask> build_reasoning(PromptMode mode, const SuiteSettings& settings) {
    std::vector<SuiteTask> tasks;
    for (const Set& set : sets)
        if (settings.wants("reasoning", set.name) && (!set.on_demand || !settings.only.empty())) tasks.push_back(build(set, mode, settings));
    return tasks;
}

}  // namespace flanmoe

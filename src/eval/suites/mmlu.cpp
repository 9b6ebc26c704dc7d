// MMLU. Direct prompts follow hendrycks/test, evaluate.py (with its two blanks before the subject's name); those with chains of thought the file mmlu-cot.json of
// jasonwei20/flan-2, which is {subject: prompt} and is read as it stands. The five direct exemplars are the dev split, in its order.
#include "core/error.hpp"
#include "core/file.hpp"
#include "data/json_value.hpp"
#include "eval/suites/source.hpp"

#include <algorithm>

namespace flanmoe {

namespace {

constexpr SuiteFiles files{"mmlu", "github.com/hendrycks/test (data.tar)", "mmlu/SPLIT/SUBJECT_SPLIT.csv with SPLIT = test or val, and dev for the exemplars"};
constexpr SuiteFiles cot_files{"mmlu", "github.com/jasonwei20/flan-2 (mmlu-cot.json)", "mmlu/mmlu-cot.json, or name it with --exemplars mmlu=FILE,"};

struct Category {
    const char* name;
    std::vector<std::string> subjects;
};

// hendrycks/test, categories.py.
const std::vector<Category>& categories() {
    static const std::vector<Category> all = {
        {"STEM",
         {"abstract_algebra", "astronomy", "college_biology", "college_chemistry", "college_computer_science", "college_mathematics", "college_physics", "computer_security",
          "conceptual_physics", "electrical_engineering", "elementary_mathematics", "high_school_biology", "high_school_chemistry", "high_school_computer_science",
          "high_school_mathematics", "high_school_physics", "high_school_statistics", "machine_learning"}},
        {"humanities",
         {"formal_logic", "high_school_european_history", "high_school_us_history", "high_school_world_history", "international_law", "jurisprudence", "logical_fallacies",
          "moral_disputes", "moral_scenarios", "philosophy", "prehistory", "professional_law", "world_religions"}},
        {"social sciences",
         {"econometrics", "high_school_geography", "high_school_government_and_politics", "high_school_macroeconomics", "high_school_microeconomics", "high_school_psychology",
          "human_sexuality", "professional_psychology", "public_relations", "security_studies", "sociology", "us_foreign_policy"}},
        {"other",
         {"anatomy", "business_ethics", "clinical_knowledge", "college_medicine", "global_facts", "human_aging", "management", "marketing", "medical_genetics", "miscellaneous",
          "nutrition", "professional_accounting", "professional_medicine", "virology"}},
    };
    return all;
}

std::string direct_block(const Record& record) {
    std::string text = text_of(record, "question");
    const std::vector<std::string> options = texts_of(record, "options"), letters = texts_of(record, "letters");
    for (size_t i = 0; i < options.size(); ++i) text += "\n" + letters[i] + ". " + options[i];
    return text + "\nAnswer:";
}

std::string cot_block(const Record& record) {
    std::string text = "Q: " + text_of(record, "question") + "\n";
    const std::vector<std::string> options = texts_of(record, "options"), letters = texts_of(record, "letters");
    for (size_t i = 0; i < options.size(); ++i) text += (i ? " (" : "(") + letters[i] + ") " + options[i];
    return text + "\nA: Let's think step by step.";
}

void direct_shots(SuiteTask& task, const SuiteSettings& settings) {
    std::string words = task.name;
    std::replace(words.begin(), words.end(), '_', ' ');
    task.head = "The following are multiple choice questions (with answers) about  " + words + ".\n\n";
    if (settings.shots == 0) return;
    const std::filesystem::path path = settings.data / "mmlu/dev" / (task.name + "_dev.csv");
    const std::vector<Record> records = read_suite_file(files, "mmlu", path, settings, task.dropped);
    const size_t count = shot_count(suite_named("mmlu"), settings, records.size(), path.string());
    for (size_t i = 0; i < count; ++i) task.shots.push_back(direct_block(records[i]) + " " + text_of(records[i], "letter") + "\n\n");
}

void cot_shots(SuiteTask& task, const SuiteSettings& settings, const DataValue& prompts, const std::string& path) {
    const DataValue* prompt = prompts.find(task.name);
    if (!prompt || !prompt->text()) fail(Exit::bad_data, "{} has no prompt (a text) of the subject '{}'; it must be an object from subject to prompt", path, task.name);
    const TextShots shots = parse_shots(*prompt->text(), "Q: ", path + ", " + task.name);
    task.head = shots.head + "\n\n";
    // The published file has four exemplars of three subjects; who does not give a number takes it as it is.
    const size_t count = settings.shots < 0 ? shots.blocks.size() : shot_count(suite_named("mmlu"), settings, shots.blocks.size(), path + ", " + task.name);
    for (size_t i = 0; i < count; ++i) task.shots.push_back(shots.blocks[i] + "\n\n");
}

DataValue read_cot_prompts(const std::filesystem::path& path) {
    if (!std::filesystem::exists(path)) missing_files(cot_files, path);
    JsonParser parser;
    DataValue prompts;
    if (const std::string problem = parser.parse(read_file(path), prompts); !problem.empty()) fail(Exit::bad_data, "{} {}; repair the file", path.string(), problem);
    return prompts;
}

}  // namespace

std::vector<SuiteTask> build_mmlu(PromptMode mode, const SuiteSettings& settings) {
    const std::string split = settings.split == "validation" ? "val" : "test";
    const std::filesystem::path prompts_path = exemplar_path("mmlu", settings, settings.data / "mmlu/mmlu-cot.json");
    const DataValue prompts = mode == PromptMode::cot ? read_cot_prompts(prompts_path) : DataValue();
    std::vector<SuiteTask> tasks;
    for (const Category& category : categories())
        for (const std::string& subject : category.subjects) {
            if (!settings.wants("mmlu", subject)) continue;
            SuiteTask task;
            task.suite = "mmlu", task.name = subject, task.category = category.name, task.language = "en", task.mode = mode;
            task.rule = AnswerRule::letter;
            task.stop = mode == PromptMode::cot ? "\nQ:" : "\n\n";
            for (const Record& record : read_suite_file(files, "mmlu", settings.data / "mmlu" / split / (subject + "_" + split + ".csv"), settings, task.dropped)) {
                SuiteQuestion question;
                question.prompt = mode == PromptMode::cot ? cot_block(record) : direct_block(record);
                question.answers = {text_of(record, "letter")};
                question.choices = texts_of(record, "options");
                if (mode == PromptMode::direct) question.options = texts_of(record, "letters");
                add_question(task, record, std::move(question));
            }
            if (mode == PromptMode::direct) direct_shots(task, settings);
            else cot_shots(task, settings, prompts, prompts_path.string());
            finish_task(task, settings);
            tasks.push_back(std::move(task));
        }
    return tasks;
}

}  // namespace flanmoe

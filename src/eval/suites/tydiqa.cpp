// TyDi QA, gold passages. A question and its passage as T5 asks SQuAD and mT5 TyDi QA ("question: ... context: ...", google-research/text-to-text-transfer-transformer,
// preprocessors.squad); that layout has no exemplars, so the line "answer:" that sets them off is ours. The exemplar is drawn from the training split of the same language.
#include "core/error.hpp"
#include "core/file.hpp"
#include "data/json_value.hpp"
#include "eval/suites/source.hpp"

#include <algorithm>
#include <functional>

namespace flanmoe {

namespace {

constexpr SuiteFiles files{"tydiqa", "storage.googleapis.com/tydiqa/v1.1", "tydiqa/tydiqa-goldp-v1.1-dev.json and tydiqa/tydiqa-goldp-v1.1-train.json"};

std::string block(const Record& record) { return "question: " + text_of(record, "question") + " context: " + text_of(record, "context") + "\nanswer:"; }

std::string language_of(const std::string& id) { return id.substr(0, std::min(id.find('-'), id.size())); }

/// Questions of a file by language, and what was malformed of them.
struct Split {
    std::map<std::string, std::vector<Record>> records;
    std::map<std::string, int64_t> malformed;  ///< "": the language cannot be told
};

/// How many questions of each language a file has, whatever is wrong with them; what has no id of its own is left out.
std::map<std::string, int64_t> count_ids(const std::filesystem::path& path) {
    std::map<std::string, int64_t> counts;
    JsonParser parser;
    DataValue document;
    if (!parser.parse(read_file(path), document).empty()) return counts;
    const std::function<void(const DataValue&)> visit = [&](const DataValue& value) {
        if (value.list())
            for (const DataValue& item : *value.list()) visit(item);
        if (!value.object()) return;
        if (const DataValue *id = value.find("id"); id && id->text() && id->text()->find('-') != std::string::npos) ++counts[language_of(*id->text())];
        for (const char* part : {"data", "paragraphs", "qas"})
            if (const DataValue* inner = value.find(part)) visit(*inner);
    };
    visit(document);
    return counts;
}

Split read_split(const std::string& name, const SuiteSettings& settings) {
    const std::filesystem::path path = settings.data / ("tydiqa/tydiqa-goldp-v1.1-" + name + ".json");
    Split split;
    std::map<std::string, int64_t> dropped;
    for (Record& record : read_suite_file(files, "tydiqa_goldp", path, settings, dropped)) {
        std::vector<Record>& of_language = split.records[text_of(record, "language")];
        of_language.push_back(std::move(record));
    }
    int64_t unknown = dropped["malformed"];
    if (unknown == 0) return split;
    for (const auto& [language, count] : count_ids(path)) {
        const int64_t lost = count - static_cast<int64_t>(split.records[language].size());
        if (lost > 0) split.malformed[language] = lost, unknown -= lost;
    }
    if (unknown > 0) split.malformed[""] = unknown;
    return split;
}

/// Counts what was malformed in the tasks of its languages; what is of no language that is asked, in a reason of its own.
void book(const Split& split, const std::string& what, std::vector<SuiteTask>& tasks, const SuiteSettings& settings) {
    for (const auto& [language, count] : split.malformed) {
        if (!language.empty() && !settings.wants("tydiqa", language)) continue;
        const auto task = std::find_if(tasks.begin(), tasks.end(), [&, &name = language](const SuiteTask& t) { return t.name == name; });
        if (task != tasks.end()) task->dropped[what] += count;
        else if (!tasks.empty()) tasks[0].dropped[what + (language.empty() ? ", of a language that cannot be told" : ", of the language " + language)] += count;
    }
}

}  // namespace

std::vector<SuiteTask> build_tydiqa(PromptMode mode, const SuiteSettings& settings) {
    const Split asked = read_split("dev", settings);  // the only split with published answers that is not for training
    Split training;
    if (settings.shots != 0) training = read_split("train", settings);
    std::vector<SuiteTask> tasks;
    for (const auto& [language, records] : asked.records) {
        if (!settings.wants("tydiqa", language) || records.empty()) continue;
        SuiteTask task;
        task.suite = "tydiqa", task.name = language, task.category = "reading comprehension", task.language = language, task.mode = mode;
        task.rule = AnswerRule::span;
        task.counts = language != "english";
        task.stop = "\nquestion:";
        for (const Record& record : records) {
            SuiteQuestion question;
            question.prompt = block(record);
            question.answers = texts_of(record, "answers");
            add_question(task, record, std::move(question));
        }
        const std::vector<Record>& exemplars = training.records[language];
        const size_t count = shot_count(suite_named("tydiqa"), settings, exemplars.size(), "the training split in " + language);
        for (const Record* record : draw(exemplars, count, settings.seed, "tydiqa/" + language))
            task.shots.push_back(block(*record) + " " + texts_of(*record, "answers")[0] + "\n\n");
        finish_task(task, settings);
        tasks.push_back(std::move(task));
    }
    book(asked, "malformed", tasks, settings);
    book(training, "malformed exemplar", tasks, settings);
    return tasks;
}

}  // namespace flanmoe

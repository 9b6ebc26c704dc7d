// See the header.
#include "eval/suites/source.hpp"

#include "core/error.hpp"
#include "core/random.hpp"
#include "data/readers/fields.hpp"
#include "data/text_files.hpp"

#include <xxhash.h>

#include <algorithm>

namespace flanmoe {

namespace {
constexpr const char* malformed = "malformed";  // as a reason
}

const char* mode_name(PromptMode mode) { return mode == PromptMode::direct ? "direct" : "cot"; }

std::string SuiteTask::prompt(const SuiteQuestion& question, size_t count) const {
    std::string text = head;
    for (size_t i = shots.size() - count; i < shots.size(); ++i) text += shots[i];
    return text + question.prompt;
}

bool SuiteSettings::wants(const std::string& suite, const std::string& task) const {
    return only.empty() || std::any_of(only.begin(), only.end(), [&](const std::string& name) { return name == task || name == suite + "/" + task; });
}

void missing_files(const SuiteFiles& files, const std::filesystem::path& path) {
    fail(Exit::missing_input, "suite {}: {} is not there; get it from {} and lay it out as {} below the folder of --data", files.suite, path.string(), files.origin, files.layout);
}

std::vector<Record> read_suite_file(const SuiteFiles& files, const std::string& reader, const std::filesystem::path& path, const SuiteSettings& settings,
                                    std::map<std::string, int64_t>& dropped) {
    if (!std::filesystem::exists(path)) missing_files(files, path);
    ReadOptions options;
    options.malformed = settings.malformed;
    std::vector<Record> records;
    std::map<std::string, std::string> places;  // of ids
    const ReadCounts counts = read_records(find_reader(reader), {path}, options, [&](Record&& record) {
        const DataValue* id = record.fields.find("id");
        const std::string name = id && id->scalar() ? id->as_text() : "";
        if (!name.empty())
            if (const auto [first, fresh] = places.emplace(name, record.place()); !fresh) return reject(record, fmt::format("has the id '{}' of {}", name, first->second), settings, dropped);
        records.push_back(std::move(record));
    });
    if (counts.malformed > 0) dropped[malformed] += counts.malformed;
    return records;
}

void reject(const Record& record, const std::string& problem, const SuiteSettings& settings, std::map<std::string, int64_t>& dropped) {
    if (settings.malformed == MalformedPolicy::fail) fail(Exit::bad_data, "{} {}; repair it, or skip such records (--malformed skip)", record.place(), problem);
    ++dropped[malformed];
}

std::filesystem::path exemplar_path(const std::string& suite, const SuiteSettings& settings, const std::filesystem::path& standard) {
    const auto named = settings.exemplars.find(suite);
    if (named == settings.exemplars.end()) return standard;
    if (!std::filesystem::exists(named->second)) fail(Exit::missing_input, "the exemplars of {}, {}, are not there; name a file or folder with --exemplars", suite, named->second.string());
    return named->second;
}

const std::string& text_of(const Record& record, const char* field) {
    const DataValue* value = record.fields.find(field);
    require(value && value->text(), "a text that the reader gives");
    return *value->text();
}

std::vector<std::string> texts_of(const Record& record, const char* field) {
    const DataValue* value = record.fields.find(field);
    require(value && value->list(), "a list that the reader gives");
    std::vector<std::string> texts;
    for (const DataValue& item : *value->list()) texts.push_back(item.as_text());
    return texts;
}

void add_question(SuiteTask& task, const Record& record, SuiteQuestion question) {
    question.id = fmt::format("{}/{}/{}/{}", task.suite, task.name, mode_name(task.mode), ++task.records);
    question.place = record.place();
    std::vector<std::string> readable;
    for (const std::string& answer : question.answers)
        if (!canonical_answer(task.rule, answer, question.choices).empty()) readable.push_back(answer);
    if (readable.empty()) {
        ++task.dropped[task.rule == AnswerRule::number ? "answer is not one number" : question.choices.empty() ? "no answer" : "answer is none of the options"];
        return;
    }
    question.answers = std::move(readable);
    task.questions.push_back(std::move(question));
}

size_t shot_count(const Suite& suite, const SuiteSettings& settings, size_t available, const std::string& from) {
    const int64_t wanted = settings.shots < 0 ? suite.shots : settings.shots;
    if (static_cast<size_t>(wanted) > available)
        fail(Exit::bad_data, "suite {}: too few exemplars: {} {} wanted, {} has {}; name another file with --exemplars, or ask with fewer (--shots)", suite.name, wanted,
             wanted == 1 ? "is" : "are", from, available);
    return static_cast<size_t>(wanted);
}

void finish_task(SuiteTask& task, const SuiteSettings& settings) {
    if (task.questions.empty()) {
        std::string why;
        for (const auto& [reason, count] : task.dropped) why += fmt::format("{}{} with '{}'", why.empty() ? "; dropped: " : ", ", count, reason);
        fail(Exit::bad_data, "suite {}: task {} has no question{}; check its file", task.suite, task.name, why);
    }
    if (settings.limit > 0 && task.questions.size() > static_cast<size_t>(settings.limit)) task.questions.resize(static_cast<size_t>(settings.limit));
}

std::vector<const Record*> draw(const std::vector<Record>& records, size_t count, uint64_t seed, const std::string& name) {
    require(count <= records.size(), "as many records as are drawn");
    std::vector<size_t> order(records.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = i;
    RandomStream random({seed ^ XXH3_64bits(name.data(), name.size()), 0, 0, Purpose::shuffle});
    std::vector<const Record*> chosen;
    for (size_t i = 0; i < count; ++i) {
        std::swap(order[i], order[i + random.below(order.size() - i)]);
        chosen.push_back(&records[order[i]]);
    }
    return chosen;
}

TextShots parse_shots(const std::string& text, const std::string& mark, const std::string& origin) {
    const std::string all = "\n\n" + trimmed(text), begin = "\n\n" + mark;
    size_t at = all.find(begin);
    if (at == std::string::npos) fail(Exit::bad_data, "{} has no exemplar (a line that begins with '{}' behind an empty one); check the file", origin, mark);
    TextShots shots{trimmed(all.substr(0, at)), {}};
    while (at != std::string::npos) {
        const size_t next = all.find(begin, at + 2);
        shots.blocks.push_back(trimmed(all.substr(at, next == std::string::npos ? next : next - at)));
        at = next;
    }
    return shots;
}

}  // namespace flanmoe

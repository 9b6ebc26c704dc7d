// Reading and asking: records of a split, and the examples of a record.
#include "core/error.hpp"
#include "core/file.hpp"
#include "data/json_value.hpp"
#include "data/readers/downstream.hpp"
#include "data/readers/fields.hpp"
#include "data/strings.hpp"
#include "data/task_file.hpp"
#include "data/text_files.hpp"

#include <xxhash.h>

#include <algorithm>
#include <set>
#include <unordered_map>

namespace flanmoe {

namespace {

constexpr std::string_view divider = "|||";
constexpr std::string_view hidden_divider = "\x01\x02\x01";  // stands for a divider that is part of the data

// The value with dividers inside of texts hidden.
DataValue hidden(const DataValue& value) {
    if (const std::string* text = value.text()) return replaced(*text, divider, hidden_divider);
    if (const DataValue::List* list = value.list()) {
        DataValue::List all;
        for (const DataValue& item : *list) all.push_back(hidden(item));
        return all;
    }
    if (const DataValue::Object* object = value.object()) {
        DataValue::Object all;
        for (const DataValue::Member& member : *object) all.push_back({member.name, hidden(member.value)});
        return all;
    }
    return value;
}

bool holds_divider(const DataValue& value) {
    if (const std::string* text = value.text()) return text->find(divider) != std::string::npos;
    if (const DataValue::List* list = value.list()) return std::any_of(list->begin(), list->end(), holds_divider);
    if (const DataValue::Object* object = value.object())
        return std::any_of(object->begin(), object->end(), [](const DataValue::Member& m) { return holds_divider(m.value); });
    return false;
}

std::vector<std::string> divided(const std::string& text) {
    std::vector<std::string> parts = split(text, divider);
    for (std::string& part : parts) part = trimmed(replaced(part, hidden_divider, divider));
    return parts;
}

// The value as texts: a list of scalars, or one.
std::vector<std::string> texts_of(const DataValue& value, const char* what) {
    if (value.nothing()) return {};
    if (value.scalar()) return {value.as_text()};
    if (!value.list()) throw RecordProblem{fmt::format("gives {} that are {}, not texts", what, value.kind())};
    std::vector<std::string> all;
    for (const DataValue& item : *value.list()) {
        if (!item.scalar()) throw RecordProblem{fmt::format("gives {} that hold {}, not only texts", what, item.kind())};
        all.push_back(item.as_text());
    }
    return all;
}

RandomStream draws(uint64_t seed, const Record& record, size_t index) {
    const std::string file = std::filesystem::path(record.file).filename().string();  // wherever the data lies
    return RandomStream({seed ^ XXH3_64bits(file.data(), file.size()), static_cast<uint32_t>(record.number), static_cast<uint16_t>(index), Purpose::sampling});
}

// A file of ids by which [only] or [except] choose records, and those that a record has.
struct IdList {
    std::filesystem::path path;
    std::set<std::string> ids, seen;

    bool lists(const std::string& id) { return ids.contains(id) && (seen.insert(id), true); }
};

std::optional<IdList> id_list(const std::map<std::string, std::filesystem::path>& lists, const std::string& split) {
    const auto found = lists.find(split);
    if (found == lists.end()) return std::nullopt;
    const std::filesystem::path& path = found->second;
    JsonParser parser;
    DataValue value;
    if (const std::string problem = parser.parse(read_file(path), value); !problem.empty()) fail(Exit::bad_data, "{} {}; repair the file", path.string(), problem);
    IdList list{path, {}, {}};
    if (value.object())
        for (const DataValue::Member& member : *value.object()) list.ids.insert(member.name);
    else if (value.list())
        for (const DataValue& item : *value.list()) {
            if (!item.scalar()) fail(Exit::bad_data, "{} holds {}, not only ids; repair the file", path.string(), item.kind());
            list.ids.insert(item.as_text());
        }
    else
        fail(Exit::bad_data, "{} is no JSON object or list of ids", path.string());
    return list;
}

std::string options_text(const std::vector<std::string>& options, const std::string& style) {
    std::string text = "OPTIONS:";
    for (size_t i = 0; i < options.size(); ++i) text += (style == "letters" ? "\n(" + letter(i) + ") " : "\n- ") + options[i];
    return text;
}

}  // namespace

void Task::prepare(Record& record) const {
    RandomStream random = draws(0, record, 0xffff);
    for (const auto& [field, computed] : fields) record.fields.set(field, computed.value(record.fields, random));
    if (!options.empty()) {
        std::vector<std::string> all;
        if (options.size() == 1) {
            const DataValue value = options[0].value(record.fields, random);
            all = value.text() ? divided(*value.text()) : texts_of(value, "options");
        } else {
            for (const Template& option : options) all.push_back(trimmed(option.render(record.fields, random)));
        }
        record.fields.set("options", DataValue(all));
    }
    const DataValue* given = record.fields.find("options");
    const std::vector<std::string> all = given ? texts_of(*given, "options") : std::vector<std::string>{};
    record.fields.set("answer_choices", DataValue(all));
    if (!answer) return;
    const std::vector<std::string> accepted = texts_of(answer->value(record.fields, random), "answers");
    if (accepted.empty() || accepted[0].empty()) throw RecordProblem{"has no answer"};
    if (!all.empty() && std::none_of(accepted.begin(), accepted.end(), [&](const std::string& text) { return std::find(all.begin(), all.end(), text) != all.end(); }))
        throw RecordProblem{fmt::format("has the answer '{}', which is none of its options: {}", accepted[0], joined(all, " | "))};
    record.fields.set("accepted", DataValue(accepted));
}

// By a hash, so that a split stays what it is when files grow, and is the same wherever the data lies.
bool Task::in_portion(const Record& record, const std::string& split) const {
    const auto range = portions.find(split);
    if (range == portions.end()) return true;
    RandomStream random = draws(0, record, 0xfffe);
    const std::string key =
        portion_by ? portion_by->render(record.fields, random) : fmt::format("{}:{}", std::filesystem::path(record.file).filename().string(), record.number);
    const double place = static_cast<double>(XXH3_64bits(key.data(), key.size()) >> 11) * 0x1p-53;
    return range->second.first <= place && place < range->second.second;
}

std::vector<std::filesystem::path> Task::dependencies(const std::string& split) const {
    std::vector<std::filesystem::path> all = files.at(split);
    for (const auto* list : {&only, &except})
        if (const auto found = list->find(split); found != list->end()) all.push_back(found->second);
    for (const std::filesystem::path& path : files.at(split))
        for (const char* beside : {labels_file, captions_file})
            if (const std::filesystem::path file = path.parent_path() / beside; std::filesystem::exists(file)) all.push_back(file);
    return all;
}

std::vector<Record> Task::read(const std::string& split, ReadCounts* counts) const {
    if (!has_split(split)) {
        std::vector<std::string> splits;
        for (const auto& [name, paths] : files) splits.push_back(name);
        fail(Exit::usage, "task {} ({}) has no split '{}'; it has: {}", name, declared, split, joined(splits, ", "));
    }
    for (const std::filesystem::path& path : files.at(split))
        if (!std::filesystem::exists(path))
            fail(Exit::missing_input, "task {}: {} does not exist{}; the format is {}: {}", name, path.string(), source.empty() ? "" : " (get it from " + source + ")", reader,
                 find_reader(reader).about);
    std::vector<Record> records;
    ReadCounts found = read_records(find_reader(reader), files.at(split), read_options, [&](Record&& record) { records.push_back(std::move(record)); });
    std::optional<IdList> chosen = id_list(only, split), left_out = id_list(except, split);
    std::unordered_map<std::string, std::string> seen;
    const auto good = [&](Record& record) {
        const DataValue* id = record.fields.find(unique.empty() ? "id" : unique);
        const std::string key = id && id->scalar() ? id->as_text() : "";
        try {
            if (key.empty() && (chosen || left_out)) throw RecordProblem{"has no id, by which [only] and [except] choose"};
            const bool listed = !chosen || chosen->lists(key), refused = left_out && left_out->lists(key);
            if (!listed || refused) {
                ++found.not_chosen;
                return false;
            }
            if (!unique.empty() && !key.empty()) {
                const auto [first, fresh] = seen.try_emplace(key, record.place());
                if (!fresh) throw RecordProblem{fmt::format("has the {} '{}' of {}; ids are unique (unique = \"\" lifts that)", unique, key, first->second)};
            }
            prepare(record);
            if (in_portion(record, split)) return true;
            ++found.not_chosen;
            return false;
        } catch (const RecordProblem& problem) {
            const std::string sentence = record.place() + " " + problem.what;
            if (read_options.malformed == MalformedPolicy::fail)
                fail(Exit::bad_data, "{}; repair it, change the task ({}), or skip such records (malformed = \"skip\")", sentence, declared);
            found.add_malformed(sentence);
            return false;
        }
    };
    std::vector<Record> kept;
    kept.reserve(records.size());
    for (Record& record : records)
        if (good(record)) kept.push_back(std::move(record));
    for (const auto& [key, list] : {std::pair{"only", &chosen}, {"except", &left_out}}) {
        if (!*list || (*list)->seen.size() == (*list)->ids.size()) continue;
        const auto& [path, ids, met] = **list;
        const auto first = std::find_if(ids.begin(), ids.end(), [&, &known = met](const std::string& id) { return !known.contains(id); });
        const std::string sentence = fmt::format("{} ([{}] of split {}): {} of {} ids are those of no record, '{}' among them", path.string(), key, split, ids.size() - met.size(), ids.size(), *first);
        if (read_options.malformed == MalformedPolicy::fail)
            fail(Exit::bad_data, "{}; take the list that belongs to {}, or go on without them (malformed = \"skip\" in {})", sentence, files.at(split)[0].string(), declared);
        found.unknown_ids += static_cast<int64_t>(ids.size() - met.size());
        found.problems.push_back(sentence);
    }
    found.records = static_cast<int64_t>(kept.size());
    if (counts) *counts = found;
    return kept;
}

std::optional<TaskExample> Task::render(const Record& record, size_t index, bool with_options, uint64_t seed) const {
    const TaskTemplate& t = templates[index];
    RandomStream random = draws(seed, record, index);
    TaskExample example;
    try {
        DataValue all = record.fields;
        all.set("language_", language);
        if (t.choices) {
            const bool divides = holds_divider(all);
            all.set("answer_choices", DataValue(divided(t.choices->render(divides ? hidden(all) : all, random))));
        }
        example.options = texts_of(*all.find("answer_choices"), "options");
        all.set("options_", with_options && !example.options.empty() ? options_text(example.options, options_style) : "");
        if (t.both) {
            const std::vector<std::string> parts = divided(t.both->render(holds_divider(all) ? hidden(all) : all, random));
            example.inputs = parts[0];
            if (parts.size() > 1) example.targets = {parts[1]};
        } else {
            example.inputs = trimmed(t.inputs->render(all, random));
            for (const std::string& target : texts_of(t.targets->value(all, random), "targets")) example.targets.push_back(trimmed(target));
        }
        if (group) example.group = trimmed(group->render(all, random));
    } catch (const RecordProblem& problem) {
        fail(Exit::bad_data, "task {}: {} {}; change the template or the file", name, record.place(), problem.what);
    }
    if (example.inputs.empty() || example.targets.empty() || example.targets[0].empty()) return std::nullopt;
    example.task = name;
    example.file = record.file;
    example.line = record.number;
    return example;
}

}  // namespace flanmoe

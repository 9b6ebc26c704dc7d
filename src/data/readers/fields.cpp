// See the header.
#include "data/readers/fields.hpp"

#include "data/text_files.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace flanmoe {

namespace {

[[noreturn]] void missing(const DataValue& record, const std::vector<std::string>& names) {
    std::vector<std::string> present;
    if (record.object())
        for (const DataValue::Member& member : *record.object()) present.push_back(member.name);
    throw RecordProblem{fmt::format("has no field '{}' (it has: {})", joined(names, "' or '"), present.empty() ? "none" : joined(present, ", "))};
}

[[noreturn]] void wrong_kind(const std::string& name, const DataValue& value, const char* wanted) {
    throw RecordProblem{fmt::format("has a field '{}' that is {}, not {}", name, value.kind(), wanted)};
}

}  // namespace

const std::string& name_of_field(const DataValue& record, const std::vector<std::string>& names) {
    for (const std::string& name : names)
        if (const DataValue* value = record.find(name); value && !value->nothing()) return name;
    missing(record, names);
}

const DataValue& any_field(const DataValue& record, const std::vector<std::string>& names) { return *record.find(name_of_field(record, names)); }

const DataValue& field(const DataValue& record, const std::string& name) { return any_field(record, {name}); }

const std::string& text_field(const DataValue& record, const std::string& name) {
    const DataValue& value = field(record, name);
    if (!value.text()) wrong_kind(name, value, "a text");
    return *value.text();
}

std::string scalar_field(const DataValue& record, const std::string& name) {
    const DataValue& value = field(record, name);
    if (!value.scalar()) wrong_kind(name, value, "a text or number");
    return value.as_text();
}

int64_t integer_field(const DataValue& record, const std::string& name) {
    const DataValue& value = field(record, name);
    if (!value.integer()) wrong_kind(name, value, "an integer");
    return *value.integer();
}

const DataValue::List& list_field(const DataValue& record, const std::string& name) {
    const DataValue& value = field(record, name);
    if (!value.list()) wrong_kind(name, value, "a list");
    return *value.list();
}

std::vector<std::string> texts_field(const DataValue& record, const std::string& name) {
    std::vector<std::string> texts;
    for (const DataValue& item : list_field(record, name)) {
        if (!item.text()) throw RecordProblem{fmt::format("has a field '{}' that holds {}, not only texts", name, item.kind())};
        texts.push_back(*item.text());
    }
    return texts;
}

std::vector<std::string> accepted_field(const DataValue& record, const std::vector<std::string>& names) {
    const std::string& name = name_of_field(record, names);
    const DataValue& value = field(record, name);
    if (value.text()) return {*value.text()};
    if (value.list() && value.list()->empty()) throw RecordProblem{fmt::format("has a field '{}' without a text in its list", name)};
    if (!value.list()) wrong_kind(name, value, "a text or a list of texts");
    return texts_field(record, name);
}

std::string optional_text(const DataValue& record, const std::string& name) {
    const DataValue* value = record.find(name);
    if (!value || value->nothing()) return "";
    if (!value->text()) wrong_kind(name, *value, "a text");
    return *value->text();
}

void add_new(std::vector<std::string>& texts, const std::string& text) {
    if (std::find(texts.begin(), texts.end(), text) == texts.end()) texts.push_back(text);
}

void for_each_part(const DataValue::List& parts, const std::string& kind, Emit& emit, const std::function<void(const DataValue& part, const std::string& name)>& convert) {
    for (size_t i = 0; i < parts.size(); ++i) {
        const std::string name = fmt::format("{} {}", kind, i + 1);
        try {
            if (!parts[i].object()) throw RecordProblem{std::string("is ") + parts[i].kind() + ", not an object"};
            convert(parts[i], name);
        } catch (const RecordProblem& problem) {
            emit.malformed(fmt::format("({}) {}", name, problem.what));
        }
    }
}

std::string letter(size_t index) { return index < 26 ? std::string(1, static_cast<char>('A' + index)) : std::to_string(index + 1); }

void set_choices(DataValue& record, const std::vector<std::string>& options, const std::vector<std::string>& letters, size_t right) {
    if (right >= options.size()) throw RecordProblem{fmt::format("names answer {} of {} options", right + 1, options.size())};
    record.set("options", DataValue(options));
    record.set("letters", DataValue(letters));
    record.set("answer", options[right]);
    record.set("letter", letters[right]);
}

}  // namespace flanmoe

// toml++ is used here and in config/toml.cpp. A table's lines are kept beside it in the same shape, under "" the line of the table itself.
#include "data/toml_value.hpp"

#include "core/error.hpp"
#include "core/file.hpp"
#include "core/nearest.hpp"
#include "data/strings.hpp"
#include "data/text_files.hpp"

#include <toml++/toml.h>
#include <xxhash.h>

#include <algorithm>
#include <utility>

namespace flanmoe {

namespace {

struct Read {
    DataValue value, lines;
};

Read read(const toml::node& node, const std::string& file) {
    const auto line = static_cast<int64_t>(node.source().begin.line);
    if (const auto* v = node.as_string()) return {v->get(), line};
    if (const auto* v = node.as_integer()) return {int64_t{v->get()}, line};
    if (const auto* v = node.as_floating_point()) return {v->get(), line};
    if (const auto* v = node.as_boolean()) return {v->get(), line};
    if (const toml::array* array = node.as_array()) {
        DataValue::List values, lines;
        for (const toml::node& item : *array) {
            Read one = read(item, file);
            values.push_back(std::move(one.value));
            lines.push_back(std::move(one.lines));
        }
        return {std::move(values), std::move(lines)};
    }
    if (const toml::table* table = node.as_table()) {
        DataValue values{DataValue::Object{}}, lines{DataValue::Object{{"", line}}};
        for (const auto& [key, item] : *table) {
            Read one = read(item, file);
            values.set(key.str(), std::move(one.value));
            lines.set(key.str(), std::move(one.lines));
        }
        return {std::move(values), std::move(lines)};
    }
    fail(Exit::usage, "{}:{}: dates and times have no meaning here; write it as a text, in quotes", file, line);
}

void substitute_in(DataValue& value, const std::string& pattern, const std::string& path, const std::string& stem) {
    if (const std::string* text = std::as_const(value).text()) {
        value = replaced(*text == pattern ? path : *text, "{file}", stem);
    } else if (DataValue::List* list = value.list()) {
        for (DataValue& item : *list) substitute_in(item, pattern, path, stem);
    } else if (DataValue::Object* object = value.object()) {
        for (DataValue::Member& member : *object) substitute_in(member.value, pattern, path, stem);
    }
}

}  // namespace

Declaration::Declaration(const std::filesystem::path& path) : file_(path.string()) {
    const std::string text = read_file(path);
    try {
        Read all = read(toml::parse(text, file_), file_);
        table_ = std::move(all.value);
        lines_ = std::move(all.lines);
    } catch (const toml::parse_error& error) {
        fail(Exit::usage, "{}:{}: not valid TOML: {}", file_, error.source().begin.line, std::string(error.description()));
    }
}

uint64_t Declaration::hash() const {
    const std::string text = table_.json();
    return XXH3_64bits(text.data(), text.size());
}

std::string Declaration::where(const std::string& key) const {
    const DataValue* line = lines_.find(key);
    while (line && line->list() && !line->list()->empty()) line = &line->list()->front();
    if (line && line->object()) line = line->find("");
    return line && line->integer() ? fmt::format("{}:{}", file_, *line->integer()) : file_;
}

void Declaration::wrong(const std::string& key, const std::string& wanted) const {
    fail(Exit::usage, "{}: {} must be {}, not {}", where(key), key, wanted, table_.find(key)->kind());
}

DataValue Declaration::any(const std::string& key) {
    known_.push_back(key);
    const DataValue* value = table_.find(key);
    return value ? *value : DataValue();
}

std::string Declaration::text(const std::string& key, const std::string& otherwise) {
    const DataValue value = any(key);
    if (value.nothing()) return otherwise;
    if (!value.text()) wrong(key, "a text");
    return *value.text();
}

int64_t Declaration::integer(const std::string& key, int64_t otherwise, int64_t least) {
    const DataValue value = any(key);
    if (value.nothing()) return otherwise;
    if (!value.integer() || *value.integer() < least) fail(Exit::usage, "{}: {} must be an integer of at least {}, not {}", where(key), key, least, value.as_text());
    return *value.integer();
}

double Declaration::number(const std::string& key, double otherwise, double low, double high) {
    const DataValue value = any(key);
    if (value.nothing()) return otherwise;
    const double number = value.real() ? *value.real() : value.integer() ? static_cast<double>(*value.integer()) : low - 1;
    if (!(number >= low && number <= high)) fail(Exit::usage, "{}: {} must be a number from {} to {}, not {}", where(key), key, low, high, value.as_text());
    return number;
}

bool Declaration::truth(const std::string& key, bool otherwise) {
    const DataValue value = any(key);
    if (value.nothing()) return otherwise;
    if (!value.boolean()) wrong(key, "true or false");
    return *value.boolean();
}

std::vector<std::string> Declaration::texts(const std::string& key) {
    const DataValue value = any(key);
    if (value.nothing()) return {};
    if (value.text()) return {*value.text()};
    if (!value.list()) wrong(key, "a text or a list of texts");
    std::vector<std::string> all;
    for (const DataValue& item : *value.list()) {
        if (!item.text()) fail(Exit::usage, "{}: {} must be a list of texts, but holds {}", where(key), key, item.kind());
        all.push_back(*item.text());
    }
    return all;
}

Declaration Declaration::table(const std::string& key) {
    Declaration inner;
    inner.file_ = file_;
    inner.table_ = any(key);
    if (inner.table_.nothing())
        inner.table_ = DataValue::Object{};
    else if (!inner.table_.object())
        wrong(key, "a table");
    if (const DataValue* lines = lines_.find(key)) inner.lines_ = *lines;
    return inner;
}

std::vector<Declaration> Declaration::tables(const std::string& key) {
    std::vector<Declaration> all;
    const DataValue value = any(key);
    if (value.nothing()) return all;
    if (!value.list()) wrong(key, fmt::format("tables ([[{}]])", key));
    const DataValue* lines = lines_.find(key);
    for (size_t i = 0; i < value.list()->size(); ++i) {
        Declaration inner;
        inner.file_ = file_;
        inner.table_ = (*value.list())[i];
        if (!inner.table_.object()) wrong(key, fmt::format("tables ([[{}]])", key));
        inner.lines_ = (*lines->list())[i];
        all.push_back(std::move(inner));
    }
    return all;
}

std::vector<std::string> Declaration::keys() {
    std::vector<std::string> all;
    for (const DataValue::Member& member : *table_.object()) all.push_back(member.name);
    known_.insert(known_.end(), all.begin(), all.end());
    return all;
}

void Declaration::finish() const {
    for (const DataValue::Member& member : *table_.object())
        if (std::find(known_.begin(), known_.end(), member.name) == known_.end())
            fail(Exit::usage, "{}: unknown key {}{}; there are: {}", where(member.name), member.name, suggestion(member.name, known_), joined(known_, ", "));
}

void Declaration::substitute(const std::string& pattern, const std::string& path, const std::string& stem) { substitute_in(table_, pattern, path, stem); }

Declaration Declaration::with(const Declaration& other) const {
    Declaration both = *this;
    for (const DataValue::Member& member : *other.table_.object()) {
        both.table_.set(member.name, member.value);
        if (const DataValue* line = other.lines_.find(member.name)) both.lines_.set(member.name, *line);
    }
    return both;
}

}  // namespace flanmoe

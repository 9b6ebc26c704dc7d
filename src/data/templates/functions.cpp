// See the header. Rules are those of Jinja 3.1 and of Python's own types; one table says which arguments are understood.
#include "data/templates/functions.hpp"

#include "data/readers/reader.hpp"
#include "data/strings.hpp"
#include "data/templates/characters.hpp"
#include "data/templates/operators.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <optional>

namespace flanmoe::templates {

namespace {

[[noreturn]] void refuse(const std::string& what) { throw RecordProblem{what}; }

const std::string& text_of(const DataValue& value, const std::string& who) {
    if (!value.text()) refuse(fmt::format("gives '{}' {} where a text is needed", who, value.kind()));
    return *value.text();
}

const DataValue::List& list_of(const DataValue& value, const std::string& who) {
    if (!value.list()) refuse(fmt::format("gives '{}' {} where a list is needed", who, value.kind()));
    return *value.list();
}

int64_t integer_of(const DataValue* value, const std::string& who, int64_t otherwise) {
    if (!value) return otherwise;
    if (!value->integer()) refuse(fmt::format("gives '{}' {} where an integer is needed", who, value->kind()));
    return *value->integer();
}

struct Signature {
    const char* name;
    size_t least;                         // arguments
    std::vector<const char*> parameters;  // those understood, in order
    bool by_name = true;                  // whether they may be named
};

const std::vector<Signature> filters = {
    {"join", 0, {"d"}},          {"length", 0, {}},     {"count", 0, {}},      {"first", 0, {}},
    {"last", 0, {}},             {"lower", 0, {}},      {"upper", 0, {}},      {"capitalize", 0, {}},
    {"title", 0, {}},            {"trim", 0, {"chars"}}, {"string", 0, {}},     {"list", 0, {}},
    {"int", 0, {"default"}},     {"float", 0, {"default"}}, {"choice", 0, {}}, {"reverse", 0, {}},
    {"round", 0, {"precision"}}, {"default", 0, {"default_value", "boolean"}}, {"replace", 2, {"old", "new", "count"}},
    {"sort", 0, {"reverse", "case_sensitive", "attribute"}},                   {"unique", 0, {"case_sensitive", "attribute"}},
    {"map", 0, {"filter", "its first argument", "its second argument", "its third argument"}},
};
const std::vector<Signature> methods = {
    {"join", 1, {"iterable"}, false}, {"split", 0, {"sep", "maxsplit"}},       {"index", 1, {"value"}, false},  {"lower", 0, {}},  {"upper", 0, {}},
    {"capitalize", 0, {}},            {"title", 0, {}},                        {"strip", 0, {"chars"}, false}, {"lstrip", 0, {"chars"}, false}, {"rstrip", 0, {"chars"}, false},
    {"replace", 2, {"old", "new", "count"}, false}, {"startswith", 1, {"prefix"}, false}, {"endswith", 1, {"suffix"}, false}, {"append", 1, {"value"}, false},
    {"count", 1, {"value"}, false},   {"items", 0, {}},                        {"keys", 0, {}},                {"values", 0, {}}, {"get", 1, {"key", "default"}, false},
};
const std::vector<Signature> functions = {{"range", 1, {"start", "stop"}, false}, {"zip", 1, {"1", "2", "3", "4", "5", "6"}, false}};

const Signature* find(const std::vector<Signature>& all, const std::string& name) {
    const auto found = std::find_if(all.begin(), all.end(), [&](const Signature& s) { return name == s.name; });
    return found == all.end() ? nullptr : &*found;
}

std::vector<std::string> names_of(const std::vector<Signature>& all) {
    std::vector<std::string> names;
    for (const Signature& s : all) names.emplace_back(s.name);
    return names;
}

std::string replacement(const std::string& text, const DataValue* from, const DataValue* to, const DataValue* count) {
    if (!from || !to) refuse("gives 'replace' other than two texts");
    const std::string &old = text_of(*from, "replace"), &fresh = text_of(*to, "replace");
    if (old.empty()) refuse("replaces '' by something");
    const int64_t most = count && !count->nothing() ? integer_of(count, "replace", -1) : -1;
    if (most < 0) return replaced(text, old, fresh);
    std::string out;
    size_t at = 0;
    for (int64_t done = 0; done < most; ++done) {
        const size_t found = text.find(old, at);
        if (found == std::string::npos) break;
        out += text.substr(at, found - at) + fresh;
        at = found + old.size();
    }
    return out + text.substr(at);
}

std::string join(const DataValue::List& items, const std::string& between) {
    std::string out;
    for (size_t i = 0; i < items.size(); ++i) out += (i ? between : "") + written(items[i]);
    return out;
}

DataValue split_text(const std::string& text, const Arguments& a) {
    const DataValue* mark = a.find(0, "sep");
    const int64_t most = integer_of(a.find(1, "maxsplit"), "split", -1);
    std::vector<std::string> parts;
    if (!mark || mark->nothing()) {
        parts = split_at_space(text, most);
    } else {
        if (text_of(*mark, "split").empty()) refuse("splits a text at ''");
        parts = split(text, *mark->text());
        while (most >= 0 && static_cast<int64_t>(parts.size()) > most + 1) {
            const std::string last = std::move(parts.back());
            parts.pop_back();
            parts.back() += *mark->text() + last;
        }
    }
    return DataValue(parts);
}

DataValue length_of(const DataValue& value) {
    if (value.text()) return static_cast<int64_t>(characters(*value.text()).size());
    if (value.list()) return static_cast<int64_t>(value.list()->size());
    if (value.object()) return static_cast<int64_t>(value.object()->size());
    refuse(fmt::format("asks for the length of {}", value.kind()));
}

// Items of a list, characters of a text, names of an object.
DataValue::List items(const DataValue& value, const std::string& who) {
    if (value.list()) return *value.list();
    DataValue::List all;
    if (value.text()) {
        for (const char32_t c : characters(*value.text())) all.emplace_back(templates::text_of(std::u32string(1, c)));
        return all;
    }
    if (!value.object()) refuse(fmt::format("gives '{}' {} where a list is needed", who, value.kind()));
    for (const DataValue::Member& member : *value.object()) all.emplace_back(member.name);
    return all;
}

DataValue to_integer(const DataValue& value, const Arguments& a) {
    int64_t whole = 0;
    double real = 0;
    if (python_int(value, whole)) return whole;
    if (python_float(value, real)) {
        python_int(DataValue(real), whole);
        return whole;
    }
    const DataValue* otherwise = a.find(0, "default");
    return otherwise ? *otherwise : DataValue(0);
}

// Member of an item, by a name without points.
const DataValue& attribute_of(const DataValue& item, const DataValue& name, const std::string& who) {
    if (text_of(name, who).find('.') != std::string::npos) refuse(fmt::format("gives '{}' the attribute '{}'; attributes of attributes are not supported", who, *name.text()));
    const DataValue* member = item.find(*name.text());
    if (!member) refuse(fmt::format("gives '{}' the attribute '{}', which an item lacks", who, *name.text()));
    return *member;
}

DataValue mapped(const DataValue& value, const Arguments& a, RandomStream& random) {
    DataValue::List all;
    const DataValue *attribute = a.find(SIZE_MAX, "attribute"), *otherwise = a.find(SIZE_MAX, "default");
    if (!attribute) {
        if (a.values.empty()) refuse("gives 'map' neither a filter nor attribute=");
        const std::string& filter = text_of(a.values[0], "map");
        std::vector<std::string> names;
        for (const auto& keyword : a.keywords) names.push_back(keyword.first);
        if (!known_filter(filter)) refuse(fmt::format("maps with the filter '{}', which there is not", filter));
        if (const std::string wrong = refusal_of_arguments("filter", filter, a.values.size() - 1, names); !wrong.empty()) refuse("maps: " + wrong);
        for (const DataValue& item : items(value, "map")) all.push_back(apply_filter(filter, item, {{a.values.begin() + 1, a.values.end()}, a.keywords}, random));
        return all;
    }
    for (const DataValue& item : items(value, "map")) all.push_back(otherwise && !item.find(text_of(*attribute, "map")) ? *otherwise : attribute_of(item, *attribute, "map"));
    return all;
}

// What sort and unique compare: the item or its attribute, without case unless it counts.
DataValue key_of(const DataValue& item, const DataValue* attribute, bool case_sensitive, const char* who) {
    const DataValue& value = attribute && !attribute->nothing() ? attribute_of(item, *attribute, who) : item;
    return value.text() && !case_sensitive ? DataValue(lower(*value.text())) : value;
}

bool truth_of(const DataValue* value) { return value && value->truth(); }

DataValue sorted(const DataValue::List& all, const Arguments& a) {
    std::vector<std::pair<DataValue, size_t>> keys;
    for (size_t i = 0; i < all.size(); ++i) keys.emplace_back(key_of(all[i], a.find(2, "attribute"), truth_of(a.find(1, "case_sensitive")), "sort"), i);
    const bool down = truth_of(a.find(0, "reverse"));
    std::stable_sort(keys.begin(), keys.end(), [&](const auto& x, const auto& y) { return down ? less(y.first, x.first) : less(x.first, y.first); });
    DataValue::List out;
    for (const auto& key : keys) out.push_back(all[key.second]);
    return out;
}

DataValue without_repeats(const DataValue::List& all, const Arguments& a) {
    DataValue::List once, keys;
    for (const DataValue& item : all) {
        DataValue key = key_of(item, a.find(1, "attribute"), truth_of(a.find(0, "case_sensitive")), "unique");
        if (std::find(keys.begin(), keys.end(), key) != keys.end()) continue;
        keys.push_back(std::move(key));
        once.push_back(item);
    }
    return once;
}

DataValue list_filter(const std::string& name, const DataValue& value, const Arguments& a, RandomStream& random) {
    if (name == "join") {
        const DataValue* between = a.find(0, "d");
        return join(items(value, name), between ? text_of(*between, name) : "");
    }
    if (name == "map") return mapped(value, a, random);
    DataValue::List all = items(value, name);
    if (name == "list") return all;
    if (name == "sort") return sorted(all, a);
    if (name == "unique") return without_repeats(all, a);
    if (name == "reverse") {
        std::reverse(all.begin(), all.end());
        return value.text() ? DataValue(join(all, "")) : DataValue(all);
    }
    if (name != "first" && name != "last" && name != "choice") refuse(fmt::format("uses the filter '{}', which there is not", name));
    if (all.empty()) refuse(fmt::format("takes the {} of an empty list", name));
    return name == "first" ? all.front() : name == "last" ? all.back() : all[random.below(all.size())];
}

DataValue object_method(const std::string& name, const DataValue& object, const Arguments& a) {
    if (!object.object()) refuse(fmt::format("calls '{}' of {}", name, object.kind()));
    if (name == "get") {
        const DataValue* member = object.find(text_of(a.values[0], name));
        return member ? *member : a.values.size() > 1 ? a.values[1] : DataValue();
    }
    DataValue::List all;
    for (const DataValue::Member& m : *object.object()) all.push_back(name == "items" ? DataValue(DataValue::List{m.name, m.value}) : name == "keys" ? DataValue(m.name) : m.value);
    return all;
}

}  // namespace

const DataValue* Arguments::find(size_t place, const char* name) const {
    if (place < values.size()) return &values[place];
    for (const auto& [keyword, value] : keywords)
        if (keyword == name) return &value;
    return nullptr;
}

bool known_filter(const std::string& name) { return find(filters, name) != nullptr; }
bool known_method(const std::string& name) { return find(methods, name) != nullptr; }
bool known_function(const std::string& name) { return find(functions, name) != nullptr; }
std::vector<std::string> filter_names() { return names_of(filters); }
std::vector<std::string> method_names() { return names_of(methods); }

std::string refusal_of_arguments(const std::string& kind, const std::string& name, size_t values, const std::vector<std::string>& names) {
    const Signature* s = find(kind == "filter" ? filters : kind == "method" ? methods : functions, name);
    if (!s) return fmt::format("there is no {} '{}'", kind, name);
    if (kind == "filter" && name == "map" && (values > 0 || (std::find(names.begin(), names.end(), "attribute") != names.end() && names.size() <= 2))) {
        if (values > 0) return "";  // checked with those of the filter that it applies
        for (const std::string& argument : names)
            if (argument != "attribute" && argument != "default") return fmt::format("the argument '{}' of the filter 'map' is not supported beside attribute", argument);
        return "";
    }
    if (values > s->parameters.size()) return fmt::format("the {} '{}' takes {} arguments here, not {}", kind, name, s->parameters.size(), values);
    size_t given = values;
    for (size_t i = 0; i < names.size(); ++i) {
        const auto found = std::find_if(s->parameters.begin(), s->parameters.end(), [&](const char* p) { return names[i] == p; });
        if (!s->by_name || found == s->parameters.end()) return fmt::format("the argument '{}' of the {} '{}' is not supported", names[i], kind, name);
        if (static_cast<size_t>(found - s->parameters.begin()) < values || std::find(names.begin(), names.begin() + static_cast<std::ptrdiff_t>(i), names[i]) != names.begin() + static_cast<std::ptrdiff_t>(i))
            return fmt::format("the argument '{}' of the {} '{}' is given twice", names[i], kind, name);
        ++given;
    }
    if (given < s->least) return fmt::format("the {} '{}' needs {} arguments, not {}", kind, name, s->least, given);
    return "";
}

DataValue apply_filter(const std::string& name, const DataValue& value, const Arguments& a, RandomStream& random) {
    if (name == "length" || name == "count") return length_of(value);
    if (name == "default") {
        const DataValue* otherwise = a.find(0, "default_value");
        return !value.truth() && truth_of(a.find(1, "boolean")) ? (otherwise ? *otherwise : DataValue("")) : value;
    }
    if (name == "string") return written(value);
    if (name == "int") return to_integer(value, a);
    if (name == "float") {
        double number = 0;
        const DataValue* otherwise = a.find(0, "default");
        return python_float(value, number) ? DataValue(number) : otherwise ? *otherwise : DataValue(0.0);
    }
    if (name == "round") {
        const int64_t digits = integer_of(a.find(0, "precision"), name, 0);
        if (digits < 0) refuse("rounds to tens; 'round' has places behind the point here");
        return rounded(value, digits);
    }
    if (name == "lower") return lower(written(value));
    if (name == "upper") return upper(written(value));
    if (name == "capitalize") return capitalized(written(value));
    if (name == "title") return words_titled(written(value));
    if (name == "trim") {
        const DataValue* chars = a.find(0, "chars");
        return stripped(written(value), chars && !chars->nothing() ? &text_of(*chars, name) : nullptr);
    }
    if (name == "replace") return replacement(written(value), a.find(0, "old"), a.find(1, "new"), a.find(2, "count"));
    return list_filter(name, value, a, random);
}

DataValue apply_method(const std::string& name, const DataValue& object, const Arguments& a) {
    if (name == "get" || name == "items" || name == "keys" || name == "values") return object_method(name, object, a);
    if (name == "index" || name == "count") {
        const DataValue::List& list = list_of(object, name);
        if (name == "count") return static_cast<int64_t>(std::count(list.begin(), list.end(), a.values[0]));
        const auto found = std::find(list.begin(), list.end(), a.values[0]);
        if (found == list.end()) refuse(fmt::format("looks for '{}' in a list that lacks it", a.values[0].as_text()));
        return static_cast<int64_t>(found - list.begin());
    }
    const std::string& text = text_of(object, name);
    if (name == "join") {
        for (const DataValue& item : items(a.values[0], name)) text_of(item, name);
        return join(items(a.values[0], name), text);
    }
    if (name == "split") return split_text(text, a);
    if (name == "lower") return lower(text);
    if (name == "upper") return upper(text);
    if (name == "capitalize") return capitalized(text);
    if (name == "title") return titled(text);
    if (name == "strip" || name == "lstrip" || name == "rstrip")
        return stripped(text, a.values.empty() || a.values[0].nothing() ? nullptr : &text_of(a.values[0], name), name != "rstrip", name != "lstrip");
    if (name == "replace") return replacement(text, a.find(0, "old"), a.find(1, "new"), a.find(2, "count"));
    const std::string& part = text_of(a.values[0], name);
    return name == "startswith" ? text.starts_with(part) : text.ends_with(part);
}

DataValue apply_function(const std::string& name, const Arguments& a) {
    DataValue::List all;
    if (name == "range") {
        const int64_t from = a.values.size() > 1 ? integer_of(&a.values[0], name, 0) : 0, to = integer_of(&a.values.back(), name, 0);
        if (to > from && static_cast<uint64_t>(to) - static_cast<uint64_t>(from) > 100000) refuse("asks for a range of more than 100,000 numbers");
        for (int64_t i = from; i < to; ++i) all.emplace_back(i);
        return all;
    }
    std::vector<DataValue::List> lists;
    for (const DataValue& list : a.values) lists.push_back(items(list, name));
    size_t length = SIZE_MAX;
    for (const DataValue::List& list : lists) length = std::min(length, list.size());
    for (size_t i = 0; i < length; ++i) {
        DataValue::List row;
        for (const DataValue::List& list : lists) row.push_back(list[i]);
        all.emplace_back(std::move(row));
    }
    return all;
}

DataValue item_of(const DataValue& value, const DataValue& place) {
    if (place.text()) {
        const DataValue* member = value.find(*place.text());
        if (!member) refuse(fmt::format("asks for '{}', which the record does not have there", *place.text()));
        return *member;
    }
    if (!place.integer()) {
        if (const bool* truth = place.boolean()) return item_of(value, DataValue(int64_t{*truth}));
        refuse(fmt::format("takes {} as the place in a list", place.kind()));
    }
    if (value.object()) refuse(fmt::format("asks an object for {}; names of members are texts here", *place.integer()));
    const int64_t length = *length_of(value).integer(), at = *place.integer() < 0 ? *place.integer() + length : *place.integer();
    if (at < 0 || at >= length) refuse(fmt::format("asks for item {} of {}", *place.integer(), length));
    if (value.list()) return (*value.list())[static_cast<size_t>(at)];
    return slice_of(value, at, at + 1);
}

DataValue slice_of(const DataValue& value, const DataValue& from, const DataValue& to) {
    const int64_t length = *length_of(value).integer();
    const auto bound = [&](const DataValue& place, int64_t open) {
        if (place.nothing()) return open;
        if (!place.integer()) refuse(fmt::format("takes {} as the bound of a slice", place.kind()));
        return std::clamp<int64_t>(*place.integer() < 0 ? *place.integer() + length : *place.integer(), 0, length);
    };
    const int64_t first = bound(from, 0), last = std::max(first, bound(to, length));
    if (const DataValue::List* list = value.list()) return DataValue(DataValue::List(list->begin() + first, list->begin() + last));
    const std::u32string all = characters(text_of(value, "slice"));
    return templates::text_of(std::u32string_view(all).substr(static_cast<size_t>(first), static_cast<size_t>(last - first)));
}

}  // namespace flanmoe::templates

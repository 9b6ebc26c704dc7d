// Of configs: toml++ is used here and in data/toml_value.cpp (tasks and mixtures).
#include "config/toml.hpp"

#include "core/error.hpp"
#include "core/nearest.hpp"

#include <toml++/toml.h>

#include <algorithm>
#include <set>
#include <utility>

namespace flanmoe {

namespace {

std::string place(const std::string& name, const toml::source_region& source) { return fmt::format("{}:{}", name, source.begin.line); }

// What other programs call options of ours.
constexpr std::pair<const char*, const char*> other_names[] = {{"top_k", "k"}, {"num_experts", "experts"}, {"batch_size", "batch_rows"}, {"lr", "learning_rate"}, {"num_heads", "heads"}};

// The same section's option that other programs call so; empty if there is none.
std::string known_elsewhere(const std::string& key, const std::vector<std::string>& keys) {
    const size_t name = key.rfind('.') + 1;
    for (const auto& [theirs, ours] : other_names)
        if (const std::string mine = key.substr(0, name) + ours; key.substr(name) == theirs && std::find(keys.begin(), keys.end(), mine) != keys.end()) return mine;
    return "";
}

[[noreturn]] void unknown_key(const std::string& where, const std::string& key) {
    std::vector<std::string> keys;
    for (const Option& option : options()) keys.push_back(option.key);
    const std::string elsewhere = known_elsewhere(key, keys);
    std::string hint = elsewhere.empty() ? suggestion(key, keys) : " (did you mean " + elsewhere + "?)";
    if (hint.empty()) {  // right name, wrong section
        const std::string name = key.substr(key.rfind('.') + 1);
        for (const std::string& candidate : keys)
            if (candidate.substr(candidate.rfind('.') + 1) == name) {
                hint = " (did you mean " + candidate + "?)";
                break;
            }
    }
    fail(Exit::usage, "{}: unknown key {}{}; `flanmoe config --options` lists them all", where, key, hint);
}

Scalar scalar(const toml::node& node, const std::string& key, const std::string& where) {
    if (const auto* b = node.as_boolean()) return b->get();
    if (const auto* i = node.as_integer()) return i->get();
    if (const auto* d = node.as_floating_point()) return d->get();
    if (const auto* s = node.as_string()) return s->get();
    fail(Exit::usage, "{}: {} holds a value of a kind that no option has; options are booleans, numbers, strings and lists of them", where, key);
}

Value value_of(const toml::node& node, const std::string& key, const std::string& where) {
    Value value;
    value.where = where;
    if (const auto* array = node.as_array()) {
        value.list = true;
        for (const toml::node& item : *array) value.items.push_back(scalar(item, key, where));
    } else {
        value.items.push_back(scalar(node, key, where));
    }
    return value;
}

bool is_section(const std::string& path) {
    for (const Option& option : options())
        if (option.key.compare(0, path.size() + 1, path + ".") == 0) return true;
    return false;
}

std::vector<std::string> section_names() {
    std::set<std::string> names;
    for (const Option& option : options()) names.insert(option.key.substr(0, option.key.rfind('.')));
    return {names.begin(), names.end()};
}

void walk(const toml::table& table, const std::string& prefix, const std::string& name, Settings& settings) {
    for (const auto& [raw_key, node] : table) {
        const std::string key = prefix + std::string(raw_key.str());
        const std::string where = place(name, node.source());
        if (const toml::table* inner = node.as_table()) {
            if (!is_section(key) && !find_option(key))
                fail(Exit::usage, "{}: unknown section [{}]{}; `flanmoe config --options` lists them all", where, key, suggestion(key, section_names()));
            if (find_option(key)) fail(Exit::usage, "{}: {} must be {}, not a table", where, key, type_text(*find_option(key)));
            walk(*inner, key + ".", name, settings);
        } else {
            if (!find_option(key)) unknown_key(where, key);
            settings[key] = value_of(node, key, where);
        }
    }
}

bool takes_strings(const Option& option) {
    Config scratch;
    const Field field = option.at(scratch);
    return !option.names.empty() || std::holds_alternative<std::string*>(field) || std::holds_alternative<std::vector<std::string>*>(field);
}

}  // namespace

void read_toml(const std::string& text, const std::string& name, Settings& settings) {
    try {
        walk(toml::parse(text, name), "", name, settings);
    } catch (const toml::parse_error& error) {
        fail(Exit::usage, "{}: not valid TOML: {}", place(name, error.source()), std::string(error.description()));
    }
}

void read_setting(const std::string& setting, Settings& settings) {
    const std::string where = "--set " + setting;
    const size_t equals = setting.find('=');
    if (equals == std::string::npos) fail(Exit::usage, "{}: expected section.key=value", where);
    const std::string key = setting.substr(0, equals), text = setting.substr(equals + 1);
    const Option* option = find_option(key);
    if (!option) unknown_key(where, key);
    try {
        const toml::table table = toml::parse("value = " + text);
        // More than one key means that the text held line breaks and other assignments: a string, if anything.
        if (table.size() == 1) {
            settings[key] = value_of(*table.get("value"), key, where);
            return;
        }
    } catch (const toml::parse_error&) {
        if (!takes_strings(*option)) fail(Exit::usage, "{}: {} must be {}", where, key, type_text(*option));
    }
    settings[key] = Value{{text}, false, where};
}

}  // namespace flanmoe

// simdjson's DOM parser, hidden from the rest of the program.
#include "data/json_lines.hpp"

#include <simdjson.h>

namespace flanmoe {

struct JsonLine::State {
    simdjson::dom::parser parser;
    simdjson::dom::object object;
};

JsonLine::JsonLine() : state_(std::make_unique<State>()) {}
JsonLine::~JsonLine() = default;

std::string JsonLine::parse(std::string_view line) {
    simdjson::dom::element element;
    if (const auto error = state_->parser.parse(line.data(), line.size()).get(element))
        return std::string("is not valid JSON (") + simdjson::error_message(error) + ")";
    if (element.get_object().get(state_->object)) return "is not a JSON object";
    return {};
}

JsonLine::Field JsonLine::field(std::string_view key) const {
    simdjson::dom::element element;
    if (state_->object.at_key(key).get(element) || element.is_null()) return {};
    std::string_view text;
    if (!element.get_string().get(text)) return {Kind::text, {std::string(text)}};
    simdjson::dom::array array;
    if (element.get_array().get(array)) return {Kind::other, {}};
    Field field{Kind::list, {}};
    for (simdjson::dom::element item : array) {
        if (item.get_string().get(text)) return {Kind::other, {}};
        field.texts.emplace_back(text);
    }
    return field;
}

std::vector<std::string> JsonLine::keys() const {
    std::vector<std::string> keys;
    for (const auto& pair : state_->object) keys.emplace_back(pair.key);
    return keys;
}

}  // namespace flanmoe

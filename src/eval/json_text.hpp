// JSON as text. What models write may hold anything: what is not UTF-8 is replaced.
#pragma once

#include <nlohmann/json.hpp>

#include <string>

namespace flanmoe {

inline std::string json_text(const nlohmann::ordered_json& json, int indent = -1) { return json.dump(indent, ' ', false, nlohmann::ordered_json::error_handler_t::replace); }

}  // namespace flanmoe

// Reading TOML into a flat list of keys and values, with the line of each.
#pragma once

#include "config/options.hpp"

#include <map>
#include <string>

namespace flanmoe {

/// "section.key" -> value; later readings overwrite earlier ones.
using Settings = std::map<std::string, Value>;

/// Adds the values of a TOML text; `name` stands for the file in messages. Exit::usage for malformed TOML and for keys that the table lacks.
void read_toml(const std::string& text, const std::string& name, Settings& settings);
/// Adds one "section.key=value"; the value is TOML, or a bare string where the option takes strings or names.
void read_setting(const std::string& setting, Settings& settings);

}  // namespace flanmoe

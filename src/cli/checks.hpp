// Ranges of numbers on the command line whose refusals are short; CLI11's own name the largest double in full.
#pragma once

#include <CLI/CLI.hpp>

#include <cstdlib>
#include <string>

namespace flanmoe::cli {

inline const CLI::Validator above_zero([](const std::string& text) { return std::strtod(text.c_str(), nullptr) > 0 ? std::string() : text + " is not above 0"; }, "", "above zero");
inline const CLI::Validator not_negative([](const std::string& text) { return std::strtod(text.c_str(), nullptr) >= 0 ? std::string() : text + " is below 0"; }, "", "not negative");

}  // namespace flanmoe::cli

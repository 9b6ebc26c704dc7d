// Plain tables for terminals: aligned columns, a line under the head, numbers and sizes that people can read.
#pragma once

#include "core/memory.hpp"  // human_bytes

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace flanmoe::cli {

enum class Align { left, right };

class Table {
public:
    explicit Table(std::vector<std::pair<std::string, Align>> columns) : columns_(std::move(columns)) {}
    void add(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }
    /// UTF-8 text; every line ends in a line feed, none in blanks.
    std::string text() const;

private:
    std::vector<std::pair<std::string, Align>> columns_;
    std::vector<std::vector<std::string>> rows_;
};

std::string thousands(int64_t number);                           ///< 1,234,567
std::string four_places(const std::optional<double>& number);    ///< 0.1235; - for none

}  // namespace flanmoe::cli

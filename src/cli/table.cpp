#include "cli/table.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace flanmoe::cli {

namespace {

// Code points: good enough for what we print.
size_t width(const std::string& text) {
    return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0u) != 0x80u; }));
}

}  // namespace

std::string Table::text() const {
    std::vector<size_t> widths;
    for (size_t c = 0; c < columns_.size(); ++c) {
        widths.push_back(width(columns_[c].first));
        for (const std::vector<std::string>& row : rows_) widths[c] = std::max(widths[c], c < row.size() ? width(row[c]) : 0);
    }
    std::string text;
    const auto line = [&](auto cell) {
        std::string row;
        for (size_t c = 0; c < columns_.size(); ++c) {
            const std::string content = cell(c);
            const std::string blanks(widths[c] - width(content), ' ');
            if (c > 0) row += "  ";
            row += columns_[c].second == Align::left ? content + blanks : blanks + content;
        }
        row.erase(row.find_last_not_of(' ') + 1);
        text += row + "\n";
    };
    line([&](size_t c) { return columns_[c].first; });
    size_t total = 0;
    for (const size_t w : widths) total += w + 2;
    for (size_t i = 2; i < total; ++i) text += "─";
    text += "\n";
    for (const std::vector<std::string>& row : rows_) line([&](size_t c) { return c < row.size() ? row[c] : std::string(); });
    return text;
}

std::string thousands(int64_t number) {
    std::string digits = fmt::format("{}", number);
    for (int64_t i = static_cast<int64_t>(digits.size()) - 3; i > (number < 0 ? 1 : 0); i -= 3) digits.insert(static_cast<size_t>(i), ",");
    return digits;
}

std::string four_places(const std::optional<double>& number) { return number ? fmt::format("{:.4f}", *number) : "-"; }

}  // namespace flanmoe::cli

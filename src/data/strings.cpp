// See the header.
#include "data/strings.hpp"

#include <algorithm>

namespace flanmoe {

std::string_view trim(std::string_view text) {
    const size_t first = text.find_first_not_of(ascii_blanks);
    return first == std::string_view::npos ? std::string_view() : text.substr(first, text.find_last_not_of(ascii_blanks) - first + 1);
}

std::string trimmed(std::string_view text) { return std::string(trim(text)); }

std::vector<std::string> split(std::string_view text, std::string_view mark) {
    std::vector<std::string> parts;
    for (size_t begin = 0;;) {
        const size_t end = text.find(mark, begin);
        parts.emplace_back(text.substr(begin, end == std::string_view::npos ? end : end - begin));
        if (end == std::string_view::npos) return parts;
        begin = end + mark.size();
    }
}

std::string replaced(std::string_view text, std::string_view from, std::string_view to) {
    std::string out;
    for (size_t begin = 0;;) {
        const size_t end = text.find(from, begin);
        out += text.substr(begin, end == std::string_view::npos ? end : end - begin);
        if (end == std::string_view::npos) return out;
        out += to;
        begin = end + from.size();
    }
}

std::u32string code_points(std::string_view text) {
    std::u32string points;
    points.reserve(text.size());
    for (size_t i = 0; i < text.size();) {
        const auto byte = static_cast<unsigned char>(text[i]);
        const size_t length = byte < 0x80 ? 1 : byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : byte >= 0xc0 ? 2 : 0;
        const auto follows = [](char c) { return (static_cast<unsigned char>(c) & 0xc0) == 0x80; };
        if (length == 0 || i + length > text.size() || !std::all_of(text.begin() + i + 1, text.begin() + i + length, follows)) {
            points.push_back(U'\ufffd');
            ++i;
            continue;
        }
        char32_t point = length == 1 ? byte : byte & (0x7fu >> length);
        for (size_t k = 1; k < length; ++k) point = point << 6 | (static_cast<unsigned char>(text[i + k]) & 0x3fu);
        points.push_back(point);
        i += length;
    }
    return points;
}

void append_utf8(std::string& text, char32_t point) {
    const auto put = [&](char32_t byte) { text.push_back(static_cast<char>(byte)); };
    const auto tail = [&](int shift) { put(0x80 | (point >> shift & 0x3f)); };
    if (point < 0x80) put(point);
    else if (point < 0x800) put(0xc0 | point >> 6), tail(0);
    else if (point < 0x10000) put(0xe0 | point >> 12), tail(6), tail(0);
    else put(0xf0 | point >> 18), tail(12), tail(6), tail(0);
}

}  // namespace flanmoe

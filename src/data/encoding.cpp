// UTF-8 is checked by simdjson at several GB/s; only text that fails is scanned again for the place of the error.
#include "data/encoding.hpp"

#include "core/error.hpp"
#include "data/strings.hpp"

#include <simdjson.h>

#include <array>
#include <cctype>

namespace flanmoe {

namespace {

// Windows-1252 differs from Latin-1 in bytes 80 to 9f; 0 marks the undefined ones (source: the Unicode consortium's CP1252 mapping table).
constexpr std::array<uint16_t, 32> cp1252_high = {0x20ac, 0,      0x201a, 0x0192, 0x201e, 0x2026, 0x2020, 0x2021, 0x02c6, 0x2030, 0x0160,
                                                  0x2039, 0x0152, 0,      0x017d, 0,      0,      0x2018, 0x2019, 0x201c, 0x201d, 0x2022,
                                                  0x2013, 0x2014, 0x02dc, 0x2122, 0x0161, 0x203a, 0x0153, 0,      0x017e, 0x0178};

// Length of the valid character at `at`, 0 if there is none (Unicode standard, table 3-7).
size_t character_length(std::string_view bytes, size_t at) {
    const auto byte = [&](size_t i) { return at + i < bytes.size() ? static_cast<unsigned char>(bytes[at + i]) : 0u; };
    const auto tail = [&](size_t i) { return (byte(i) & 0xc0) == 0x80; };
    const uint32_t first = byte(0), second = byte(1);
    if (first < 0x80) return 1;
    if (first >= 0xc2 && first <= 0xdf) return tail(1) ? 2 : 0;
    if (first >= 0xe0 && first <= 0xef) {
        const bool in_range = (first != 0xe0 || second >= 0xa0) && (first != 0xed || second <= 0x9f);
        return tail(1) && tail(2) && in_range ? 3 : 0;
    }
    if (first >= 0xf0 && first <= 0xf4) {
        const bool in_range = (first != 0xf0 || second >= 0x90) && (first != 0xf4 || second <= 0x8f);
        return tail(1) && tail(2) && tail(3) && in_range ? 4 : 0;
    }
    return 0;
}

}  // namespace

Encoding parse_encoding(std::string_view name) {
    std::string key;
    for (char c : name)
        if (c != '-' && c != '_') key += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    if (key == "utf8") return Encoding::utf8;
    if (key == "latin1" || key == "iso88591") return Encoding::latin1;
    if (key == "cp1252" || key == "windows1252") return Encoding::cp1252;
    fail(Exit::usage, "unknown encoding '{}'; choose utf-8, latin-1 or cp1252", name);
}

int64_t find_invalid_utf8(std::string_view bytes) {
    if (simdjson::validate_utf8(bytes.data(), bytes.size())) return -1;
    size_t at = 0;
    while (at < bytes.size()) {
        const size_t length = character_length(bytes, at);
        if (length == 0) return static_cast<int64_t>(at);
        at += length;
    }
    return -1;
}

std::string to_utf8(std::string_view bytes, Encoding encoding, int64_t& invalid) {
    invalid = -1;
    if (encoding == Encoding::utf8) {
        invalid = find_invalid_utf8(bytes);
        return std::string(bytes.substr(0, invalid < 0 ? bytes.size() : static_cast<size_t>(invalid)));
    }
    std::string text;
    text.reserve(bytes.size() + bytes.size() / 8);
    for (size_t i = 0; i < bytes.size(); ++i) {
        uint32_t code = static_cast<unsigned char>(bytes[i]);
        if (encoding == Encoding::cp1252 && code >= 0x80 && code < 0xa0) {
            code = cp1252_high[code - 0x80];
            if (code == 0) {
                invalid = static_cast<int64_t>(i);
                return text;
            }
        }
        append_utf8(text, code);
    }
    return text;
}

}  // namespace flanmoe

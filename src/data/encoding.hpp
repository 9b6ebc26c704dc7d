// Text encodings: everything inside the program is UTF-8; other files are converted, and invalid ones are refused with the place.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace flanmoe {

enum class Encoding : uint8_t { utf8, latin1, cp1252 };

/// "utf-8", "latin-1" or "cp1252" (case and hyphens do not matter; "iso-8859-1" and "windows-1252" too). Exit::usage otherwise.
Encoding parse_encoding(std::string_view name);

/// Offset of the first byte that is not part of valid UTF-8 (no overlong forms, no surrogates, at most U+10FFFF); -1 if all is valid.
int64_t find_invalid_utf8(std::string_view bytes);

/// The text as UTF-8. Latin-1 always converts; cp1252 has five undefined bytes (81, 8d, 8f, 90, 9d). On an invalid byte the result is what came
/// before it, and `invalid` is its offset, otherwise -1.
std::string to_utf8(std::string_view bytes, Encoding encoding, int64_t& invalid);

}  // namespace flanmoe

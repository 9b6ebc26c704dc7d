// Small operations on texts that readers, templates, declarations and evaluation share.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace flanmoe {

constexpr std::string_view ascii_blanks = " \t\r\n\v\f";

/// Without ASCII white space at both ends: a copy, or a part of the text.
std::string trimmed(std::string_view text);
std::string_view trim(std::string_view text);
/// Every `from`, which is not empty, becomes `to`, from the left; what has been put in is not looked at again.
std::string replaced(std::string_view text, std::string_view from, std::string_view to);
/// What stands between the marks, which are not empty: one part more than there are marks.
std::vector<std::string> split(std::string_view text, std::string_view mark);

/// Code points of UTF-8; a byte that belongs to none gives U+FFFD.
std::u32string code_points(std::string_view text);
void append_utf8(std::string& text, char32_t point);

}  // namespace flanmoe

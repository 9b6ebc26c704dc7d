// Texts by their characters, with Python's rules: case, white space, stripping, splitting.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace flanmoe::templates {

/// Code points of valid UTF-8, and back.
std::u32string characters(std::string_view text);
std::string text_of(std::u32string_view characters);

/// One letter in lower case; whether it is a letter or digit, or a mark that belongs to one.
char32_t lower_letter(char32_t c);
bool is_of_word(char32_t c);

/// str.upper(), str.lower(), str.capitalize(), str.title(), and the filter title, which begins a word behind white space, hyphens and opening brackets only.
/// RecordProblem for the hundred letters whose other case is several letters (save ß).
std::string upper(std::string_view text);
std::string lower(std::string_view text);
std::string capitalized(std::string_view text);
std::string titled(std::string_view text);
std::string words_titled(std::string_view text);

/// str.strip(): of white space, or of any of the characters.
std::string stripped(std::string_view text, const std::string* any_of, bool left = true, bool right = true);
/// str.split(): at runs of white space, at most `most` times (-1: any number).
std::vector<std::string> split_at_space(std::string_view text, int64_t most);

}  // namespace flanmoe::templates

// Letters, blanks and cases of Unicode's characters: the tables are those of the C library's UTF-8 locale, white space is Python's.
#pragma once

#include <cstddef>
#include <string_view>

namespace flanmoe::unicode {

/// What Python's str.isspace() takes for white space.
bool is_space(char32_t c);
/// Exit::missing_input where the system lacks the locale C.UTF-8, as of all that follow.
bool is_letter(char32_t c);
bool is_alphanumeric(char32_t c);
/// One letter for one letter; where the other case is several, the letter as it is, or its first.
char32_t upper(char32_t c);
char32_t lower(char32_t c);
/// Lower case of a character of a text: a sigma that ends a word has a form of its own.
char32_t lower_at(std::u32string_view text, size_t at);

}  // namespace flanmoe::unicode

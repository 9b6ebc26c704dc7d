// See the header.
#include "data/unicode.hpp"

#include "core/error.hpp"

#include <locale.h>
#include <wctype.h>

namespace flanmoe::unicode {

namespace {

locale_t table() {
    static const locale_t locale = [] {
        const locale_t found = ::newlocale(LC_CTYPE_MASK, "C.UTF-8", static_cast<locale_t>(nullptr));
        if (!found) fail(Exit::missing_input, "this system has no locale C.UTF-8, which has the cases of letters; install the C library's locales (libc-bin)");
        return found;
    }();
    return locale;
}

}  // namespace

bool is_space(char32_t c) {
    return (c >= 9 && c <= 13) || (c >= 28 && c <= 32) || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
           c == 0x205f || c == 0x3000;
}

bool is_letter(char32_t c) { return ::iswalpha_l(static_cast<wint_t>(c), table()) != 0; }
bool is_alphanumeric(char32_t c) {
    if (c < 0x80) return (c >= U'0' && c <= U'9') || (c >= U'A' && c <= U'Z') || (c >= U'a' && c <= U'z');
    return ::iswalnum_l(static_cast<wint_t>(c), table()) != 0;
}
char32_t upper(char32_t c) { return static_cast<char32_t>(::towupper_l(static_cast<wint_t>(c), table())); }

char32_t lower(char32_t c) {
    if (c < 0x80) return c >= U'A' && c <= U'Z' ? c + 32 : c;
    return static_cast<char32_t>(::towlower_l(static_cast<wint_t>(c), table()));
}

char32_t lower_at(std::u32string_view text, size_t at) {
    const char32_t c = text[at];
    const bool ends = c == 0x3a3 && at > 0 && is_letter(text[at - 1]) && (at + 1 == text.size() || !is_letter(text[at + 1]));
    return ends ? 0x3c2 : lower(c);
}

}  // namespace flanmoe::unicode

// See the header. Letters and their cases are those of data/unicode.hpp; where Python's full mappings are longer, they are refused.
#include "data/templates/characters.hpp"

#include "core/error.hpp"
#include "data/readers/reader.hpp"
#include "data/strings.hpp"
#include "data/unicode.hpp"

namespace flanmoe::templates {

namespace {

using unicode::is_space;

bool among(char32_t c, std::initializer_list<std::pair<char32_t, char32_t>> ranges) {
    for (const auto& [first, last] : ranges)
        if (c >= first && c <= last) return true;
    return false;
}

// Letters whose upper case is several letters (Unicode's SpecialCasing; all characters compared with Python 3.11, which has Unicode 14, too).
bool has_long_upper(char32_t c) {
    return among(c, {{0x149, 0x149}, {0x1f0, 0x1f0}, {0x390, 0x390}, {0x3b0, 0x3b0}, {0x587, 0x587}, {0x1e96, 0x1e9a}, {0x1f50, 0x1f50}, {0x1f52, 0x1f52}, {0x1f54, 0x1f54}, {0x1f56, 0x1f56},
                     {0x1f80, 0x1faf}, {0x1fb2, 0x1fb4}, {0x1fb6, 0x1fb7}, {0x1fbc, 0x1fbc}, {0x1fc2, 0x1fc4}, {0x1fc6, 0x1fc7}, {0x1fcc, 0x1fcc}, {0x1fd2, 0x1fd3}, {0x1fd6, 0x1fd7},
                     {0x1fe2, 0x1fe4}, {0x1fe6, 0x1fe7}, {0x1ff2, 0x1ff4}, {0x1ff6, 0x1ff7}, {0x1ffc, 0x1ffc}, {0xfb00, 0xfb06}, {0xfb13, 0xfb17}});
}

[[noreturn]] void refuse(char32_t c) {
    throw RecordProblem{fmt::format("changes the case of '{}', whose other case is several letters; there is no rule for that here", text_of(std::u32string(1, c)))};
}

bool is_cased(char32_t c) { return c == 0xdf || has_long_upper(c) || unicode::upper(c) != c || unicode::lower(c) != c; }

void add_upper(char32_t c, std::u32string& out) {
    if (has_long_upper(c)) refuse(c);
    if (c == 0xdf)
        out += U"SS";
    else
        out += unicode::upper(c);
}

// A letter that begins a word: the same, save for those that have a case of their own for that.
void add_title(char32_t c, std::u32string& out) {
    if (among(c, {{0x10d0, 0x10fa}, {0x10fd, 0x10ff}}))
        out += c;
    else if (c == 0xdf || among(c, {{0x1c4, 0x1cc}, {0x1f1, 0x1f3}}))
        refuse(c);
    else
        add_upper(c, out);
}

void add_lower(const std::u32string& text, size_t at, std::u32string& out) {
    if (text[at] == 0x130) refuse(text[at]);
    out += unicode::lower_at(text, at);
}

}  // namespace

std::u32string characters(std::string_view text) { return code_points(text); }

std::string text_of(std::u32string_view characters) {
    std::string text;
    for (const char32_t c : characters) append_utf8(text, c);
    return text;
}

char32_t lower_letter(char32_t c) { return unicode::lower(c); }

bool is_of_word(char32_t c) {
    // Combining marks, and the vowel signs and viramas of Indic scripts (not their stops).
    return unicode::is_alphanumeric(c) || among(c, {{0x300, 0x36f}, {0x900, 0x963}, {0x966, 0x96f}, {0x971, 0xdf3}, {0xe30, 0xe4e}});
}

std::string upper(std::string_view text) {
    std::u32string out;
    for (const char32_t c : characters(text)) add_upper(c, out);
    return text_of(out);
}

std::string lower(std::string_view text) {
    const std::u32string all = characters(text);
    std::u32string out;
    for (size_t i = 0; i < all.size(); ++i) add_lower(all, i, out);
    return text_of(out);
}

std::string capitalized(std::string_view text) {
    const std::u32string all = characters(text);
    std::u32string out;
    for (size_t i = 0; i < all.size(); ++i) i == 0 ? add_title(all[i], out) : add_lower(all, i, out);
    return text_of(out);
}

std::string titled(std::string_view text) {
    const std::u32string all = characters(text);
    std::u32string out;
    for (size_t i = 0; i < all.size(); ++i) i > 0 && is_cased(all[i - 1]) ? add_lower(all, i, out) : add_title(all[i], out);
    return text_of(out);
}

std::string words_titled(std::string_view text) {
    const std::u32string all = characters(text);
    const auto divides = [](char32_t c) { return is_space(c) || std::u32string_view(U"-({[<").find(c) != std::u32string_view::npos; };
    std::u32string out;
    for (size_t i = 0; i < all.size(); ++i) i == 0 || divides(all[i - 1]) ? add_upper(all[i], out) : add_lower(all, i, out);
    return text_of(out);
}

std::string stripped(std::string_view text, const std::string* any_of, bool left, bool right) {
    const std::u32string all = characters(text), set = any_of ? characters(*any_of) : std::u32string();
    const auto goes = [&](char32_t c) { return any_of ? set.find(c) != std::u32string::npos : is_space(c); };
    size_t first = 0, last = all.size();
    while (left && first < last && goes(all[first])) ++first;
    while (right && last > first && goes(all[last - 1])) --last;
    return text_of(std::u32string_view(all).substr(first, last - first));
}

std::vector<std::string> split_at_space(std::string_view text, int64_t most) {
    const std::u32string all = characters(text);
    std::vector<std::string> parts;
    for (size_t at = 0;;) {
        while (at < all.size() && is_space(all[at])) ++at;
        if (at == all.size()) return parts;
        size_t end = at;
        while (end < all.size() && !is_space(all[end])) ++end;
        if (most >= 0 && static_cast<int64_t>(parts.size()) == most) {
            parts.push_back(text_of(std::u32string_view(all).substr(at)));  // the rest, with all white space inside and behind
            return parts;
        }
        parts.push_back(text_of(std::u32string_view(all).substr(at, end - at)));
        at = end;
    }
}

}  // namespace flanmoe::templates

// See the header. Text is compared as bytes of UTF-8; only digits, signs and letter case of other scripts are looked at as code points.
#include "eval/answers.hpp"

#include "data/strings.hpp"
#include "eval/text_metrics.hpp"

#include <algorithm>
#include <array>
#include <optional>

namespace flanmoe {

namespace {

bool digit(char c) { return c >= '0' && c <= '9'; }
/// Whether a letter beside it is part of a longer word; bytes of other scripts are.
bool word(char c) { return digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '\'' || static_cast<unsigned char>(c) >= 0x80; }
char upper(char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c; }

/// Lower case, single blanks, no full stop at the end, no quotes or marks of a list around it.
std::string folded(std::string_view text) {
    text = trim(text);
    if (text.starts_with("- ")) text = trim(text.substr(2));
    if (text.ends_with('.')) text = trim(text.substr(0, text.size() - 1));
    if (text.size() > 1 && text.front() == '"' && text.back() == '"') text = trim(text.substr(1, text.size() - 2));
    std::string result;
    for (const char c : lower_case(text)) {
        const bool blank = ascii_blanks.find(c) != std::string_view::npos;
        if (!blank) result += c;
        else if (!result.ends_with(' ')) result += ' ';
    }
    return result;
}

/// What stands behind the last "answer is"; nothing if the phrase is not there.
std::optional<std::string_view> behind_phrase(std::string_view output) {
    constexpr std::string_view phrase = "ANSWER IS";
    for (size_t at = output.size(); at-- > 0;) {
        if (at + phrase.size() > output.size()) continue;
        if (!std::equal(phrase.begin(), phrase.end(), output.begin() + static_cast<std::ptrdiff_t>(at), [](char a, char b) { return a == upper(b); })) continue;
        std::string_view rest = trim(output.substr(at + phrase.size()));
        if (rest.starts_with(':')) rest = trim(rest.substr(1));
        return rest;
    }
    return std::nullopt;
}

std::string_view first_line(std::string_view text) {
    text = trim(text);
    return trim(text.substr(0, text.find('\n')));
}

std::string_view answer_line(std::string_view output) { return first_line(behind_phrase(output).value_or(output)); }

/// The place of the option whose letter stands at `at` in brackets: "(b)".
std::optional<size_t> bracketed(std::string_view text, size_t at, size_t options) {
    if (at + 2 >= text.size() || text[at] != '(' || text[at + 2] != ')') return std::nullopt;
    const int place = upper(text[at + 1]) - 'A';
    return place >= 0 && static_cast<size_t>(place) < options ? std::optional(static_cast<size_t>(place)) : std::nullopt;
}

/// The same of a capital letter that stands alone.
std::optional<size_t> alone(std::string_view text, size_t at, size_t options) {
    const int place = text[at] - 'A';
    if (place < 0 || static_cast<size_t>(place) >= options) return std::nullopt;
    if ((at > 0 && word(text[at - 1])) || (at + 1 < text.size() && word(text[at + 1]))) return std::nullopt;
    return static_cast<size_t>(place);
}

std::string letter_of(size_t place) { return std::string(1, static_cast<char>('A' + place)); }

std::optional<size_t> option_of(std::string_view text, const std::vector<std::string>& choices) {
    const std::string wanted = folded(text);
    for (size_t i = 0; i < choices.size(); ++i)
        if (folded(choices[i]) == wanted) return i;
    return std::nullopt;
}

std::string letter_answer(std::string_view output, const std::vector<std::string>& choices) {
    const size_t options = choices.size();
    if (const auto behind = behind_phrase(output)) {
        if (const auto place = option_of(first_line(*behind), choices)) return letter_of(*place);
        for (size_t at = 0; at < behind->size(); ++at) {
            if (const auto place = bracketed(*behind, at, options)) return letter_of(*place);
            if (const auto place = alone(*behind, at, options)) return letter_of(*place);
        }
        return "";
    }
    const std::string_view text = trim(output);
    if (text.empty()) return "";
    const bool ends = text.size() == 1 || std::string_view(").:,\n").find(text[1]) != std::string_view::npos;
    if (const auto place = alone(text, 0, options); place && ends) return letter_of(*place);
    for (size_t at = 0; at < text.size(); ++at)
        if (const auto place = bracketed(text, at, options)) return letter_of(*place);
    const auto place = option_of(first_line(text), choices);
    return place ? letter_of(*place) : "";
}

/// ASCII digits for those of other scripts, and a hyphen for the sign.
std::string plain_digits(std::string_view text) {
    // First digits of scripts whose ten digits follow each other, in the Basic Multilingual Plane.
    constexpr std::array<char32_t, 14> zeros = {0x660, 0x6f0, 0x966, 0x9e6, 0xa66, 0xae6, 0xb66, 0xbe6, 0xc66, 0xce6, 0xd66, 0xe50, 0xed0, 0xff10};
    std::string result;
    for (const char32_t point : code_points(text)) {
        const auto zero = std::find_if(zeros.begin(), zeros.end(), [&](char32_t z) { return point >= z && point < z + 10; });
        if (zero != zeros.end()) result += static_cast<char>('0' + (point - *zero));
        else if (point >= 0x1d7ce && point <= 0x1d7ff) result += static_cast<char>('0' + (point - 0x1d7ce) % 10);  // mathematical styles
        else if (point == 0x2212) result += '-';
        else if (point == 0xff0c || point == 0x66c) result += ',';
        else if (point == 0xff0e || point == 0x66b) result += '.';
        else append_utf8(result, point);
    }
    return result;
}

/// A number that begins at `at` ("1,234.50", ".5", "-3", "-$3"), in its shortest form; `at` moves behind it. "" if there is none.
std::string number_at(std::string_view text, size_t& at) {
    size_t i = at;
    const bool minus = text[i] == '-' && (i == 0 || !word(text[i - 1]));
    if (minus) ++i;
    if (minus && i < text.size() && text[i] == '$') ++i;
    std::string whole, fraction;
    const auto group = [&](size_t comma) {  // a comma and exactly three digits
        for (size_t k = 1; k <= 3; ++k)
            if (comma + k >= text.size() || !digit(text[comma + k])) return false;
        return comma + 4 >= text.size() || !digit(text[comma + 4]);
    };
    while (i < text.size() && (digit(text[i]) || (text[i] == ',' && !whole.empty() && group(i)))) {
        if (digit(text[i])) whole += text[i];
        ++i;
    }
    if (i + 1 < text.size() && text[i] == '.' && digit(text[i + 1]))
        for (++i; i < text.size() && digit(text[i]); ++i) fraction += text[i];
    if (whole.empty() && fraction.empty()) return "";
    at = i;
    whole.erase(0, std::min(whole.find_first_not_of('0'), whole.size()));
    while (fraction.ends_with('0')) fraction.pop_back();
    const std::string magnitude = (whole.empty() ? "0" : whole) + (fraction.empty() ? "" : "." + fraction);
    return (minus && magnitude != "0" ? "-" : "") + magnitude;
}

std::vector<std::string> numbers_in(std::string_view text) {
    const std::string plain = plain_digits(text);
    std::vector<std::string> numbers;
    for (size_t at = 0; at < plain.size();) {
        std::string number = number_at(plain, at);
        if (number.empty()) ++at;
        else numbers.push_back(std::move(number));
    }
    return numbers;
}

std::string number_answer(std::string_view output) {
    if (const auto behind = behind_phrase(output))
        if (const auto numbers = numbers_in(*behind); !numbers.empty()) return numbers.front();
    const auto numbers = numbers_in(output);
    return numbers.empty() ? "" : numbers.back();
}

std::string yes_no_answer(std::string_view output) {
    const auto behind = behind_phrase(output);
    const std::string text = lower_case(behind.value_or(output));
    std::string last;
    bool first = true;
    for (size_t i = 0; i < text.size();) {
        size_t end = i;
        while (end < text.size() && word(text[end])) ++end;
        const std::string_view found = std::string_view(text).substr(i, end - i);
        const std::string answer = found == "yes" || found == "true" ? "yes" : found == "no" || found == "false" ? "no" : "";
        if (!answer.empty() && (behind || first)) return answer;
        if (!answer.empty()) last = answer;
        if (end > i) first = false;
        i = std::max(end, i + 1);
    }
    return last;
}

std::string option_answer(std::string_view output, const std::vector<std::string>& choices) {
    const std::string_view line = answer_line(output);
    if (const auto place = option_of(line, choices)) return choices[*place];
    const auto place = bracketed(line, 0, choices.size());
    return place ? choices[*place] : "";
}

}  // namespace

const char* rule_name(AnswerRule rule) {
    constexpr const char* names[] = {"letter", "number", "yes_no", "option", "text", "span"};
    return names[static_cast<size_t>(rule)];
}

std::string extract_answer(AnswerRule rule, std::string_view output, std::string_view stop, const std::vector<std::string>& choices) {
    if (!stop.empty()) output = output.substr(0, output.find(stop, std::min(output.find_first_not_of(ascii_blanks), output.size())));
    switch (rule) {
        case AnswerRule::letter: return letter_answer(output, choices);
        case AnswerRule::number: return number_answer(output);
        case AnswerRule::yes_no: return yes_no_answer(output);
        case AnswerRule::option: return option_answer(output, choices);
        case AnswerRule::text: return folded(answer_line(output));
        case AnswerRule::span: break;
    }
    return std::string(answer_line(output));
}

std::string canonical_answer(AnswerRule rule, std::string_view answer, const std::vector<std::string>& choices) {
    answer = trim(answer);
    if (rule == AnswerRule::letter) return bracketed(answer, 0, 26) ? std::string(1, upper(answer[1])) : std::string(answer);
    if (rule == AnswerRule::number) {
        const std::string plain = plain_digits(answer);
        size_t at = plain.starts_with('$') ? 1 : 0;
        const std::string number = at < plain.size() ? number_at(plain, at) : "";
        return at == plain.size() ? number : "";
    }
    if (rule == AnswerRule::yes_no) return yes_no_answer(answer);
    if (rule == AnswerRule::option) return option_of(answer, choices) ? choices[*option_of(answer, choices)] : "";
    return rule == AnswerRule::text ? folded(answer) : std::string(answer);
}

}  // namespace flanmoe

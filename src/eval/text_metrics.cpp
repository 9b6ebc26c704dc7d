// Text is taken apart into code points.
#include "eval/text_metrics.hpp"

#include "core/error.hpp"
#include "data/strings.hpp"
#include "data/unicode.hpp"

#include <algorithm>
#include <cstdint>
#include <map>

namespace flanmoe {

namespace {

bool is_word_character(char32_t c) { return c == U'_' || unicode::is_alphanumeric(c); }

bool is_ascii_punctuation(char32_t c) { return (c >= 33 && c <= 47) || (c >= 58 && c <= 64) || (c >= 91 && c <= 96) || (c >= 123 && c <= 126); }

std::u32string lower(const std::u32string& text) {
    std::u32string result;
    result.reserve(text.size());
    for (size_t i = 0; i < text.size(); ++i) {
        if (text[i] == 0x130) result += U"i\u0307";  // capital I with a dot: i and the dot
        else result.push_back(unicode::lower_at(text, i));
    }
    return result;
}

bool is_article(const std::u32string& text, size_t begin, size_t end) {
    const std::u32string_view word(text.data() + begin, end - begin);
    return word == U"a" || word == U"an" || word == U"the";
}

// Replaces each article that stands between word boundaries by a blank.
void blank_articles(std::u32string& text) {
    for (size_t begin = 0; begin < text.size();) {
        size_t end = begin;
        while (end < text.size() && is_word_character(text[end])) ++end;
        if (end > begin && is_article(text, begin, end)) std::fill(text.begin() + static_cast<std::ptrdiff_t>(begin), text.begin() + static_cast<std::ptrdiff_t>(end), U' ');
        begin = std::max(end, begin + 1);
    }
}

using Bag = std::map<std::string, int64_t>;

int64_t common(const Bag& a, const Bag& b) {
    int64_t count = 0;
    for (const auto& [word, n] : a) {
        const auto found = b.find(word);
        if (found != b.end()) count += std::min(n, found->second);
    }
    return count;
}

Bag grams(const std::vector<std::string>& tokens, size_t n) {
    Bag bag;
    for (size_t i = 0; i + n <= tokens.size(); ++i) {
        std::string gram = tokens[i];
        for (size_t k = 1; k < n; ++k) gram += ' ' + tokens[i + k];
        ++bag[gram];
    }
    return bag;
}

// F measure from what two sequences have in common and their lengths.
double f_measure(int64_t both, size_t predicted, size_t wanted) {
    if (both == 0) return 0;
    const double precision = static_cast<double>(both) / static_cast<double>(predicted), recall = static_cast<double>(both) / static_cast<double>(wanted);
    return 2 * precision * recall / (precision + recall);
}

double rouge_n(const std::vector<std::string>& prediction, const std::vector<std::string>& target, size_t n) {
    if (prediction.size() < n || target.size() < n) return 0;
    return f_measure(common(grams(prediction, n), grams(target, n)), prediction.size() - n + 1, target.size() - n + 1);
}

int64_t longest_common_subsequence(const std::vector<std::string>& a, const std::vector<std::string>& b) {
    std::vector<int64_t> above(b.size() + 1, 0), row(b.size() + 1, 0);
    for (const std::string& word : a) {
        for (size_t j = 0; j < b.size(); ++j) row[j + 1] = word == b[j] ? above[j] + 1 : std::max(above[j + 1], row[j]);
        std::swap(above, row);
    }
    return above.back();
}

double token_f1(const std::vector<std::string>& prediction, const std::vector<std::string>& target) {
    if (prediction.empty() || target.empty()) return prediction.empty() && target.empty();
    return f_measure(common(grams(prediction, 1), grams(target, 1)), prediction.size(), target.size());
}

}  // namespace

std::string lower_case(std::string_view text) {
    std::string result;
    for (const char32_t c : lower(code_points(text))) append_utf8(result, c);
    return result;
}

std::vector<std::string> normalized_words(std::string_view text) {
    std::u32string points = lower(code_points(text));
    std::erase_if(points, is_ascii_punctuation);
    blank_articles(points);
    std::vector<std::string> words;
    bool inside = false;
    for (const char32_t c : points) {
        if (unicode::is_space(c)) {
            inside = false;
            continue;
        }
        if (!inside) words.emplace_back();
        inside = true;
        append_utf8(words.back(), c);
    }
    return words;
}

std::string normalized(std::string_view text) {
    std::string joined;
    for (const std::string& word : normalized_words(text)) joined += (joined.empty() ? "" : " ") + word;
    return joined;
}

std::vector<std::string> rouge_tokens(std::string_view text) {
    std::vector<std::string> tokens;
    bool inside = false;
    for (const char32_t c : lower(code_points(text))) {
        const bool token = (c >= U'a' && c <= U'z') || (c >= U'0' && c <= U'9');
        if (token && !inside) tokens.emplace_back();
        if (token) tokens.back().push_back(static_cast<char>(c));
        inside = token;
    }
    return tokens;
}

TextScores score_text(std::string_view prediction, const std::vector<std::string>& targets) {
    require(!targets.empty(), "at least one accepted answer");
    const std::vector<std::string> words = normalized_words(prediction), tokens = rouge_tokens(prediction);
    TextScores best;
    for (const std::string& target : targets) {
        const std::vector<std::string> target_words = normalized_words(target), target_tokens = rouge_tokens(target);
        best.exact_match = std::max(best.exact_match, words == target_words ? 1.0 : 0.0);
        best.f1 = std::max(best.f1, token_f1(words, target_words));
        best.rouge1 = std::max(best.rouge1, rouge_n(tokens, target_tokens, 1));
        best.rouge2 = std::max(best.rouge2, rouge_n(tokens, target_tokens, 2));
        best.rouge_l = std::max(best.rouge_l, f_measure(longest_common_subsequence(tokens, target_tokens), tokens.size(), target_tokens.size()));
    }
    return best;
}

}  // namespace flanmoe

#include "eval/token_class.hpp"

#include "data/strings.hpp"

#include <algorithm>
#include <charconv>
#include <set>
#include <string>

namespace flanmoe {

namespace {

constexpr std::string_view blank = "\xe2\x96\x81";  // U+2581, which SentencePiece writes for a space

const std::set<std::string, std::less<>>& stop_words() {
    static const std::set<std::string, std::less<>> words = {
        "a",     "about", "after", "all",  "also",  "am",    "an",    "and",   "any",   "are",   "as",    "at",   "be",    "because", "been", "before", "being", "between", "both",
        "but",   "by",    "can",   "could", "did",  "do",    "does",  "doing", "down",  "during", "each", "few",  "for",   "from",    "had",  "has",    "have",  "he",      "her",
        "here",  "hers",  "him",   "his",  "how",   "i",     "if",    "in",    "into",  "is",    "it",    "its",  "just",  "me",      "more", "most",   "must",  "my",      "no",
        "nor",   "not",   "of",    "off",  "on",    "once",  "only",  "or",    "other", "our",   "ours",  "out",  "over",  "own",     "same", "she",    "should", "so",     "some",
        "such",  "than",  "that",  "the",  "their", "theirs", "them", "then",  "there", "these", "they",  "this", "those", "through", "to",   "too",    "under", "until",   "up",
        "us",    "very",  "was",   "we",   "were",  "what",  "when",  "where", "which", "while", "who",   "whom", "whose", "why",     "will", "with",   "would", "you",     "your",  "yours"};
    return words;
}

bool is_ascii_letter_or_digit(unsigned char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

// Latin-1, general and CJK punctuation and blanks among the code points of two or three bytes.
bool is_punctuation(uint32_t code) { return (code >= 0xa0 && code <= 0xbf) || (code >= 0x2000 && code <= 0x206f) || (code >= 0x3000 && code <= 0x303f); }

// Neither letter nor digit: ASCII, and beyond it the blocks above.
bool without_letters(std::string_view text) {
    const std::u32string points = code_points(text);
    return std::all_of(points.begin(), points.end(), [](char32_t c) { return c < 0x80 ? !is_ascii_letter_or_digit(static_cast<unsigned char>(c)) : is_punctuation(c); });
}

}  // namespace

TokenClass class_of_piece(std::string_view piece) {
    int byte = 0;
    const auto digits = piece.size() == 6 && piece.starts_with("<0x") && piece.ends_with(">") ? piece.substr(3, 2) : std::string_view();
    if (!digits.empty() && std::from_chars(digits.begin(), digits.end(), byte, 16).ptr == digits.end()) {
        return byte < 0x80 && !is_ascii_letter_or_digit(static_cast<unsigned char>(byte)) ? TokenClass::formatting : TokenClass::other;
    }
    if (piece.size() > 2 && piece.starts_with("<") && piece.ends_with(">") && !without_letters(piece)) return TokenClass::special;
    const bool begins_word = piece.starts_with(blank);
    std::string text;
    while (!piece.empty()) {
        const bool is_blank = piece.starts_with(blank);
        if (!is_blank) text += static_cast<char>(piece[0] >= 'A' && piece[0] <= 'Z' ? piece[0] - 'A' + 'a' : piece[0]);
        piece.remove_prefix(is_blank ? blank.size() : 1);
    }
    if (without_letters(text)) return TokenClass::formatting;
    return begins_word && stop_words().contains(text) ? TokenClass::stop_word : TokenClass::other;
}

std::vector<TokenClass> token_classes(const Tokenizer& tokenizer, int64_t vocabulary) {
    std::vector<TokenClass> classes(static_cast<size_t>(vocabulary), TokenClass::special);
    for (int64_t id = 0; id < std::min(vocabulary, tokenizer.size()); ++id) classes[static_cast<size_t>(id)] = class_of_piece(tokenizer.piece(static_cast<int32_t>(id)));
    for (const int32_t id : {tokenizer.pad_id(), tokenizer.eos_id(), tokenizer.unk_id()})
        if (id >= 0 && id < vocabulary) classes[static_cast<size_t>(id)] = TokenClass::special;
    for (int64_t k = 0; k < tokenizer.sentinels(); ++k) classes[static_cast<size_t>(tokenizer.sentinel(k))] = TokenClass::special;
    return classes;
}

}  // namespace flanmoe

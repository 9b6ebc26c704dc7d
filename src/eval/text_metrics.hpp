// How well a text answers: exact match and token F1 as SQuAD defines them, ROUGE-1, ROUGE-2 and ROUGE-L as the package rouge-score computes them without
// a stemmer. Text is UTF-8. Of several accepted targets each metric takes its best.
//
// Exact match and F1 compare normalised texts: lower case, ASCII punctuation removed, then the words "a", "an" and "the" removed, white space made single
// blanks. ROUGE compares tokens: runs of ASCII letters and digits of the lower-cased text; everything else separates.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace flanmoe {

/// Each in [0, 1].
struct TextScores {
    double exact_match = 0;
    double f1 = 0;  ///< of the bags of words; two empty texts count 1
    double rouge1 = 0, rouge2 = 0;  ///< F measure of the bags of n-grams
    double rouge_l = 0;             ///< F measure of the longest common subsequence of tokens
};

/// Lower case of all scripts: one character for one, and of those that have no such form only U+0130; a capital sigma that ends a word becomes the final form.
std::string lower_case(std::string_view text);
/// Words of a text after SQuAD's normalisation.
std::vector<std::string> normalized_words(std::string_view text);
/// The same, joined by single blanks.
std::string normalized(std::string_view text);
std::vector<std::string> rouge_tokens(std::string_view text);

/// Scores of one prediction; `targets` must not be empty.
TextScores score_text(std::string_view prediction, const std::vector<std::string>& targets);

}  // namespace flanmoe

// Kinds of tokens, for asking which of them experts take and which they leave behind.
//
// By the piece alone: formatting is what holds neither letter nor digit (newlines, blanks, punctuation), also as a byte piece; special is what no text holds
// (padding and start, end mark, unknown, sentinels); a stop word is a piece that begins a word and spells one of a fixed list of English function words; all
// else is other. A piece that begins a longer word ("a" of "a-corn") cannot be told from the word by itself and counts as the word.
#pragma once

#include "data/tokenizer.hpp"

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

namespace flanmoe {

enum class TokenClass : uint8_t { formatting, special, stop_word, other };
constexpr size_t token_class_count = 4;
constexpr std::array<const char*, token_class_count> token_class_names = {"formatting", "special", "stop word", "other"};

/// Class of a SentencePiece piece ("▁the", "\n", "<0x0A>", "</s>").
TokenClass class_of_piece(std::string_view piece);
/// Class of every id below `vocabulary`; ids beyond the tokenizer's, padding, end mark and unknown are special.
std::vector<TokenClass> token_classes(const Tokenizer& tokenizer, int64_t vocabulary);

}  // namespace flanmoe

// Training of a SentencePiece unigram vocabulary with T5's settings.
#pragma once

#include "data/text_files.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace flanmoe {

struct VocabularyOptions {
    int64_t size = 32000;            ///< pieces, special ones included, sentinels not
    double coverage = 0.9995;        ///< share of the text's characters that get a piece of their own
    bool byte_fallback = false;      ///< unknown characters become 256 byte pieces instead of the unknown piece
    bool split_digits = false;       ///< every digit is a piece
    int64_t sentences = 2'000'000;   ///< lines to learn from, drawn evenly from the text; 0 = all
    int64_t seed = 0;                ///< of that draw
};

/// Sentences to learn from: lines of the documents, drawn evenly; long ones are cut at white space so that none is too long for SentencePiece.
/// Exit::bad_data if there is no text at all.
std::vector<std::string> sample_sentences(DocumentReader& reader, int64_t count, int64_t seed);

/// The bytes of spiece.model. The same sentences and options give the same bytes on any number of cores. pad 0, eos 1, unk 2, no bos, nmt_nfkc.
/// Exit::usage if the text is too small for the size asked.
std::string train_vocabulary(const std::vector<std::string>& sentences, const VocabularyOptions& options);

}  // namespace flanmoe

// What the tests of data share: a temporary folder, synthetic English-like text, a small vocabulary learnt from it.
#pragma once

#include "checkpoint/temporary_folder.hpp"
#include "core/error.hpp"
#include "core/random.hpp"
#include "data/tokenizer.hpp"
#include "data/vocabulary.hpp"
#include "failure.hpp"

#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

namespace flanmoe::testing {

using flanmoe::TemporaryFolder;

inline void write_bytes(const std::filesystem::path& path, std::string_view bytes) {
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << bytes;
}

/// Sentences over a few hundred words made of syllables; the same for the same seed.
inline std::string synthetic_text(int64_t sentences, uint64_t seed) {
    static const std::vector<std::string> syllables = {"the",   "ri",  "ver",   "old",   "mil",  "ler",  "car", "ries",  "sev", "en",
                                                       "bas",   "ket", "of",    "bread", "to",   "mar",  "a",   "young", "far", "mer",
                                                       "count", "her", "sheep", "fore",  "rain", "come", "o",   "hill"};
    RandomStream random(RandomKey{seed, 0, 0, Purpose::sampling});
    std::string text;
    for (int64_t s = 0; s < sentences; ++s) {
        const auto length = 4 + random.below(10);
        for (uint64_t w = 0; w < length; ++w) {
            RandomStream word(RandomKey{99, static_cast<uint32_t>(random.below(300)), 0, Purpose::sampling});
            if (w) text += ' ';
            for (uint64_t parts = 1 + word.below(3); parts > 0; --parts) text += syllables[word.below(syllables.size())];
        }
        text += s % 7 == 6 ? ".\n" : ". ";
    }
    return text;
}

/// A vocabulary of 120 pieces from synthetic text, trained once a run of the tests.
inline std::shared_ptr<const Tokenizer> small_tokenizer() {
    static const std::shared_ptr<const Tokenizer> tokenizer = [] {
        std::vector<std::string> sentences;
        for (uint64_t seed = 0; seed < 200; ++seed) sentences.push_back(synthetic_text(6, seed));
        VocabularyOptions options;
        options.size = 120;
        return std::make_shared<const Tokenizer>(train_vocabulary(sentences, options));
    }();
    return tokenizer;
}

}  // namespace flanmoe::testing

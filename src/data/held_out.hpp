// Held-out protocol: which evaluation items occur in what is trained on.
//
// Texts are compared as sequences of words: lower case, letters and digits only, so that case, spacing and punctuation do not matter (an apostrophe or a comma between
// thousands divides no word; characters of scripts without spaces, as Chinese and Thai, are words of their own). An item is found exactly if
// all of its words stand one behind another in a training text, and by n-grams if any 13 of them do (the length is an option; 13 is that of GPT-3's and PaLM's
// contamination studies). Items of fewer than 5 words are too common to mean anything: they are counted, not looked for.
#pragma once

#include "data/mixture_file.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace flanmoe {

/// Lower-case words of letters and digits of any script.
std::vector<std::string> overlap_words(std::string_view text);

/// Evaluation items, to be looked for in texts.
class HeldOutIndex {
public:
    explicit HeldOutIndex(int64_t ngram = 13) : ngram_(ngram) {}

    /// False if the item is too short to be looked for.
    bool add(int64_t item, std::string_view text);

    struct Match {
        int64_t item = 0;
        bool exact = false;  ///< the whole item stands in the text
    };
    /// Items that the text holds, each once, in order.
    std::vector<Match> find(std::string_view text) const;

private:
    struct Place {
        int64_t item;
        int64_t words;    ///< of the whole item, if this is its begin; otherwise 0
        uint64_t whole;   ///< hash of all of them
    };
    int64_t ngram_;
    std::unordered_multimap<uint64_t, Place> places_;
    std::vector<int64_t> short_lengths_;  ///< of items shorter than an n-gram, each once
};

/// What of the held-out tasks stands in a mixture.
struct Overlaps {
    struct Pair {
        std::string held_out, trained;        ///< names of tasks
        int64_t exact = 0, ngram = 0;         ///< matches of a record and an item (exactly; by n-grams alone)
        std::string item, record;             ///< places of the first exact one, else of the first
    };
    struct Items {
        std::string task;
        int64_t items = 0, too_short = 0, malformed = 0, exact = 0, ngram = 0;
        std::vector<std::string> kin = {};  ///< tasks of the mixture that are derived from the same source: of translations and new wordings no words need match
        bool compared() const { return items > too_short; }
    };
    struct Place {
        std::string item;  ///< "anatomy_test.csv:18"
        bool exact = false;
    };
    std::vector<std::string> missing;           ///< files of held-out splits that are not there, and were not compared
    std::vector<std::string> files;             ///< those that were compared
    std::vector<Pair> pairs;                    ///< those with an overlap
    std::vector<Items> items;                   ///< one a held-out task
    std::vector<Place> places;                  ///< of the items that were found
    std::vector<std::vector<int64_t>> records;  ///< of every task of the mixture the records that hold an item, ascending
    int64_t found() const;                      ///< records in all

    std::string json() const;
    /// Exit::bad_data with `origin` for what is no such report.
    static Overlaps from_json(const std::string& text, const std::string& origin);
};

/// Reads both sides. Of held-out items the first of the fields question, input, inputs, sentence, premise (with hypothesis) and context that is long enough; of the mixture's records the whole
/// of the first template that asks, and the sentences of pairs.
Overlaps find_overlaps(const MixtureFile& mixture);
/// The same, kept in the folder `cache` ("" = not kept) under a hash of all that it depends on: declarations, paths and bytes of both sides, splits, n-gram.
Overlaps cached_overlaps(const MixtureFile& mixture, const std::filesystem::path& cache);

}  // namespace flanmoe

// Spelling and letters. Letters stand alone, so that each is a piece of its own and the model must know how words are written.
#include "data/toyworld/family.hpp"

#include <algorithm>

namespace flanmoe::toyworld {

namespace {

std::string spelled(const std::string& word) {
    std::vector<std::string> out;
    for (const char c : word) out.emplace_back(1, c);
    return join(out);
}

/// A change of each of a few short words.
template <class Change>
Instance each_word(Draw& d, size_t count, Change change) {
    const auto given = d.sample(short_words, count);
    std::vector<std::string> changed;
    for (const std::string& word : given) changed.push_back(change(word));
    return {{join(given)}, join(changed), {}};
}

Instance spell(Draw& d) {
    const auto two = d.sample(short_words, 2);
    const size_t asked = d.below(2);
    return {{asked ? "second" : "first", join(two)}, spelled(two[asked]), {}};
}

Instance read_letters(Draw& d) {
    const auto two = d.sample(short_words, 2);
    return {{spelled(two[0]) + ", " + spelled(two[1])}, join(two), {}};
}

Instance first_letters(Draw& d) {
    return each_word(d, 3, [](const std::string& w) { return w.substr(0, 1); });
}
Instance last_letters(Draw& d) {
    return each_word(d, 3, [](const std::string& w) { return w.substr(w.size() - 1); });
}
Instance word_lengths(Draw& d) {
    return each_word(d, 3, [](const std::string& w) { return std::to_string(w.size()); });
}

Instance next_letters(Draw& d) {
    std::vector<std::string> given, next;
    for (int i = 0; i < 3; ++i) {
        const size_t at = d.below(25);
        given.emplace_back(letters[at]);
        next.emplace_back(letters[at + 1]);
    }
    return {{join(given)}, join(next), {}};
}

Instance sort_letters(Draw& d) {
    auto given = d.sample(letters, 4);
    const std::string shown = join(given);
    std::sort(given.begin(), given.end());
    return {{shown}, join(given), {}};
}

Instance reverse_letters(Draw& d) {
    auto given = d.sample(letters, 4);
    const std::string shown = join(given);
    std::reverse(given.begin(), given.end());
    return {{shown}, join(given), {}};
}

}  // namespace

std::vector<Family> letter_families() {
    return {
        {"spell", Role::seen, {"spell the {0} word: {1}.", "{1}: spell the {0} one.", "how is the {0} word written: {1}?"}, spell},
        {"read_letters", Role::seen, {"read the letters: {0}.", "which words are spelled {0}?", "{0} as two words?"}, read_letters},
        {"first_letters", Role::seen, {"first letters of {0}?", "{0}: each first letter?", "with which letters begin {0}?"}, first_letters},
        {"last_letters", Role::seen, {"last letters of {0}?", "{0}: each last letter?", "with which letters end {0}?"}, last_letters},
        {"word_lengths",
         Role::seen,
         {"how many letters has each: {0}?", "count the letters of each word: {0}.", "{0}: the length of each?"},
         word_lengths},
        {"next_letters", Role::seen, {"the next letter after each: {0}.", "which letters follow {0}?", "{0}, each one letter later?"}, next_letters},
        {"sort_letters", Role::seen, {"sort the letters: {0}.", "letters {0} from a to z?", "put the letters in order: {0}."}, sort_letters},
        {"reverse_letters", Role::heldout, {"reverse the letters: {0}.", "say the letters backwards: {0}."}, reverse_letters},
    };
}

}  // namespace flanmoe::toyworld

// Lists of words: order, selection, editing.
#include "data/toyworld/family.hpp"

#include <algorithm>
#include <array>

namespace flanmoe::toyworld {

namespace {

/// The pool of words that lists are made of: one kind of things at random.
std::vector<std::string> words(Draw& d, size_t count) {
    const size_t pool = d.below(std::size(kinds) + 2);
    return d.sample(pool < std::size(kinds) ? kinds[pool].members : pool == std::size(kinds) ? Words(things) : Words(adjectives), count);
}

Instance reverse_words(Draw& d) {
    const size_t count = 3 + d.below(2);
    auto list = words(d, count);
    const std::string given = join(list);
    std::reverse(list.begin(), list.end());
    return {{given}, join(list), {}};
}

Instance sort_words(Draw& d) {
    auto list = words(d, 3);
    const std::string given = join(list);
    std::sort(list.begin(), list.end());
    return {{given}, join(list), {}};
}

Instance remove_word(Draw& d) {
    auto list = words(d, 4);
    const std::string given = join(list);
    const size_t gone = d.below(list.size());
    const std::string word = list[gone];
    list.erase(list.begin() + static_cast<std::ptrdiff_t>(gone));
    return {{word, given}, join(list), {}};
}

Instance replace_word(Draw& d) {
    auto list = words(d, 4);
    const std::string fresh = list.back();
    list.pop_back();
    const std::string given = join(list);
    const size_t place = d.below(list.size());
    const std::string old = list[place];
    list[place] = fresh;
    return {{old, fresh, given}, join(list), {}};
}

Instance nth_item(Draw& d) {
    const size_t count = 4 + d.below(2);
    const auto list = words(d, count);
    const size_t asked = d.below(count + 1);
    return {{asked == count ? "last" : std::string(ordinals[asked]), join(list)}, asked == count ? list.back() : list[asked], {}};
}

Instance missing(Draw& d) {
    auto list = words(d, 4);
    const std::string all = join(list);
    d.shuffle(list);
    const std::string gone = list.back();
    list.pop_back();
    return {{all, join(list)}, gone, {}};
}

Instance find_kind(Draw& d) {
    const auto chosen = d.indices(std::size(kinds), 4);
    std::vector<std::string> list;
    for (const size_t kind : chosen) list.push_back(d.pick(kinds[kind].members));
    const std::string answer = list[0];
    d.shuffle(list);
    return {{std::string(kinds[chosen[0]].name), join(list, ", ")}, answer, list};
}

Instance common(Draw& d) {
    const auto list = words(d, 5);
    std::vector<std::string> left = {list[0], list[1], list[2]}, right = {list[0], list[3], list[4]};
    d.shuffle(left);
    d.shuffle(right);
    return {{join(left), join(right)}, list[0], {}};
}

Instance repeat(Draw& d) {
    const auto list = words(d, 2);
    const int times = d.between(2, 3);
    return {{times == 2 ? "twice" : "three times", join(list)},
            times == 2 ? join({join(list), join(list)}) : join({join(list), join(list), join(list)}),
            {}};
}

Instance pattern_next(Draw& d) {
    const size_t period = 2 + d.below(2);
    const auto list = words(d, period);
    const size_t length = 5 + d.below(2);
    std::vector<std::string> shown;
    for (size_t i = 0; i < length; ++i) shown.push_back(list[i % period]);
    return {{join(shown)}, list[length % period], {}};
}

Instance swap_ends(Draw& d) {
    auto list = words(d, 4);
    const std::string given = join(list);
    std::swap(list.front(), list.back());
    return {{given}, join(list), {}};
}

Instance unique_words(Draw& d) {
    auto list = words(d, 3);
    const std::string unique = join(list);
    list.push_back(list[d.below(3)]);
    return {{join(list)}, unique, {}};
}

}  // namespace

std::vector<Family> list_families() {
    return {
        {"reverse_words", Role::seen, {"reverse: {0}.", "say backwards: {0}.", "{0} in reverse order?"}, reverse_words},
        {"sort_words", Role::seen, {"sort by the alphabet: {0}.", "put in order from a to z: {0}.", "{0} in order of the alphabet?"}, sort_words},
        {"remove_word", Role::seen, {"remove {0} from: {1}.", "leave out {0}: {1}.", "{1} without {0}?"}, remove_word},
        {"replace_word", Role::seen, {"replace {0} by {1}: {2}.", "write {1} for {0}: {2}.", "{2} with {1} instead of {0}?"}, replace_word},
        {"nth_item", Role::seen, {"the {0} word of: {1}?", "which is the {0} word in: {1}?", "{1}: say the {0} word."}, nth_item},
        {"missing", Role::seen, {"missing from the second list: {0}; {1}?", "of {0} only {1} came. which did not?", "{0} less {1} leaves?"}, missing},
        {"find_kind", Role::seen, {"which is a kind of {0}: {1}?", "find the {0} among {1}.", "{1}: which is the {0}?"}, find_kind},
        {"common", Role::seen, {"which word is in both: {0}; {1}?", "find the common word: {0}; {1}.", "{0} and {1} share which word?"}, common},
        {"repeat", Role::seen, {"say {0}: {1}.", "write {0} the words {1}.", "{1}, {0}?"}, repeat},
        {"pattern_next", Role::seen, {"which word comes next: {0}?", "go on: {0}.", "{0} and then?"}, pattern_next},
        {"swap_ends", Role::heldout, {"swap the first and the last word: {0}.", "{0} with first and last word in reverse order?"}, swap_ends},
        {"unique_words", Role::heldout, {"each word only one time: {0}.", "leave out the repeated word: {0}."}, unique_words},
    };
}

}  // namespace flanmoe::toyworld

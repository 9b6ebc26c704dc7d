// Arithmetic, comparison, counting, number words, sequences and the calendar. Numbers stay below 31, one piece each in a small vocabulary.
#include "data/toyworld/family.hpp"

#include <algorithm>
#include <array>

namespace flanmoe::toyworld {

namespace {

std::string text(int number) { return std::to_string(number); }

/// The same word-by-word change of a few numbers: `change` gets each.
template <class Change>
Instance each_number(Draw& d, int low, int high, size_t count, Change change) {
    std::vector<std::string> given, changed;
    for (size_t i = 0; i < count; ++i) {
        const int number = d.between(low, high);
        given.push_back(text(number));
        changed.push_back(std::string(change(number)));
    }
    return {{join(given)}, join(changed), {}};
}

Instance add_pairs(Draw& d) {
    const int a = d.between(1, 9), b = d.between(1, 9), c = d.between(1, 9), e = d.between(1, 9);
    return {{text(a) + " + " + text(b), text(c) + " + " + text(e)}, text(a + b) + ' ' + text(c + e), {}};
}

Instance add_story(Draw& d) {
    const std::string who = d.pick(people), what = d.pick(countables);
    const int a = d.between(1, 12), b = d.between(1, 12);
    return {{who, text(a), what, text(b)}, text(a + b), {}};
}

Instance take_story(Draw& d) {
    const std::string who = d.pick(people), what = d.pick(countables);
    const int a = d.between(3, 20), b = d.between(1, a - 1);
    return {{who, text(a), what, text(b)}, text(a - b), {}};
}

Instance price(Draw& d) {
    const std::string who = d.pick(people), what = d.pick(things);
    const int each = d.between(2, 6), count = d.between(2, 5);
    return {{who, what, text(each), text(count)}, text(each * count), {}};
}

Instance largest(Draw& d) {
    const auto numbers = d.numbers(0, 30, 3);
    return {{join(numbers, ", ")}, text(*std::max_element(numbers.begin(), numbers.end())), {}};
}

Instance smallest(Draw& d) {
    const auto numbers = d.numbers(0, 30, 3);
    return {{join(numbers, ", ")}, text(*std::min_element(numbers.begin(), numbers.end())), {}};
}

Instance owners(Draw& d, bool more) {
    const auto who = d.sample(people, 2);
    const auto count = d.numbers(1, 20, 2);
    const std::string what = d.pick(countables);
    return {{who[0] + " has " + text(count[0]) + ' ' + what + " and " + who[1] + " has " + text(count[1]) + '.'},
            who[(count[0] > count[1]) == more ? 0 : 1],
            {}};
}
Instance who_has_more(Draw& d) { return owners(d, true); }
Instance who_has_fewer(Draw& d) { return owners(d, false); }

Instance count_word(Draw& d) {
    const auto word = d.sample(fruits, 3);
    const int times = d.between(1, 5), others = d.between(0, 6 - times);
    std::vector<std::string> list(static_cast<size_t>(times), word[0]);
    for (int i = 0; i < others; ++i) list.push_back(word[1 + d.below(2)]);
    d.shuffle(list);
    return {{word[0], join(list)}, text(times), {}};
}

Instance twice(Draw& d) {
    return each_number(d, 1, 15, 3, [](int n) { return text(2 * n); });
}
Instance next_numbers(Draw& d) {
    return each_number(d, 0, 29, 3, [](int n) { return text(n + 1); });
}
Instance number_words_of(Draw& d) {
    return each_number(d, 0, 20, 3, [](int n) { return number_words[static_cast<size_t>(n)]; });
}
Instance parity(Draw& d) {
    return each_number(d, 0, 30, 3, [](int n) { return n % 2 ? "odd" : "even"; });
}

Instance digits_of(Draw& d) {
    Instance other = number_words_of(d);
    std::swap(other.fields[0], other.target);
    return other;
}

Instance sequence_next(Draw& d) {
    const int step = d.between(1, 5);
    const bool down = d.coin();
    const int start = d.between(0, 30 - 4 * step);
    std::vector<int> numbers;
    for (int i = 0; i < 4; ++i) numbers.push_back(down ? 30 - start - i * step : start + i * step);
    const std::string who = d.pick(people);
    return {{who, join(numbers)}, text(numbers.back() + (down ? -step : step)), {}};
}

Instance sort_numbers(Draw& d) {
    auto numbers = d.numbers(0, 30, 4);
    const std::string given = join(numbers);
    const bool up = d.coin();
    std::sort(numbers.begin(), numbers.end());
    if (!up) std::reverse(numbers.begin(), numbers.end());
    return {{up ? "up" : "down", given}, join(numbers), {}};
}

Instance days_later(Draw& d) {
    const std::string who = d.pick(people), place = d.pick(places);
    const size_t start = d.below(7), later = 1 + d.below(4);
    return {{who, place, std::string(days[start]), text(static_cast<int>(later))}, std::string(days[(start + later) % 7]), {days, days + 7}};
}

Instance calendar_next(Draw& d) {
    const size_t first = d.below(12), day = d.below(7), second = d.below(12);
    return {{std::string(months[first]) + ", " + std::string(days[day]) + ", " + std::string(months[second])},
            std::string(months[(first + 1) % 12]) + ' ' + std::string(days[(day + 1) % 7]) + ' ' + std::string(months[(second + 1) % 12]),
            {}};
}

Instance first_month(Draw& d) {
    const auto three = d.indices(12, 3);
    std::vector<std::string> names;
    for (const size_t m : three) names.emplace_back(months[m]);
    return {{join(names, ", ")}, std::string(months[*std::min_element(three.begin(), three.end())]), names};
}

}  // namespace

std::vector<Family> number_families() {
    return {
        {"add_pairs", Role::seen, {"{0} and {1}?", "add: {0}, {1}.", "what is {0}, and what is {1}?"}, add_pairs},
        {"add_story",
         Role::seen,
         {"{0} has {1} {2} and gets {3} more. how many?", "{0} finds {1} {2}, then {3} more. the sum?", "to {1} {2} {0} adds {3}. how many now?"},
         add_story},
        {"take_story",
         Role::seen,
         {"{0} has {1} {2} and gives {3} away. how many left?", "of {1} {2} {0} eats {3}. what is left?",
          "{0} had {1} {2} and lost {3}. how many now?"},
         take_story},
        {"price", Role::seen, {"one {1} costs {2} coins. {0} buys {3}. the price?", "{0} pays {2} coins for each {1}. what do {3} cost?"}, price},
        {"largest", Role::seen, {"which is the largest: {0}?", "find the largest of {0}.", "{0}: the largest number?"}, largest},
        {"smallest", Role::heldout, {"which is the smallest: {0}?", "find the smallest of {0}."}, smallest},
        {"who_has_more", Role::seen, {"{0} who has more?", "compare: {0} name who has more.", "{0} question: who has more?"}, who_has_more},
        {"who_has_fewer", Role::heldout, {"{0} who has fewer?", "compare: {0} name who has fewer."}, who_has_fewer},
        {"count_word", Role::seen, {"how often is {0} in: {1}?", "count {0}: {1}.", "{1}: how many times {0}?"}, count_word},
        {"double", Role::seen, {"double each: {0}.", "twice each of {0}?", "two times each number: {0}."}, twice},
        {"next_numbers", Role::seen, {"add one to each: {0}.", "the next number after each: {0}.", "one more than each of {0}?"}, next_numbers},
        {"number_words", Role::seen, {"write in words: {0}.", "say the numbers {0}.", "{0} in words?"}, number_words_of},
        {"digits", Role::seen, {"write in digits: {0}.", "which numbers are {0}?", "{0} in digits?"}, digits_of},
        {"parity", Role::seen, {"odd or even, each: {0}?", "tell odd from even: {0}.", "{0}: is each odd or even?"}, parity},
        {"sequence_next", Role::seen, {"{0} counts {1}. what comes next?", "go on for {0}: {1}.", "{0} writes {1} and then?"}, sequence_next},
        {"sort_numbers", Role::seen, {"sort {0}: {1}.", "put in order, going {0}: {1}.", "{1} sorted {0}?"}, sort_numbers},
        {"days_later",
         Role::seen,
         {"{0} left the {1} on {2} and came {3} days later. which day?", "on {2} {0} waits {3} days in the {1}. which day is it then?"},
         days_later},
        {"calendar_next", Role::seen, {"what follows each of {0}?", "the next month or day after each: {0}.", "after {0} come?"}, calendar_next},
        {"first_month",
         Role::seen,
         {"which month comes first: {0}?", "find the first month in the year: {0}.", "{0}: which is first in the year?"},
         first_month},
    };
}

}  // namespace flanmoe::toyworld

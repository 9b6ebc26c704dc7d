#include "data/toyworld/draw.hpp"

#include <algorithm>
#include <numeric>

namespace flanmoe::toyworld {

namespace {

/// FNV-1a, 32 bits: stable numbers from names.
uint32_t name_hash(Word name) {
    uint32_t hash = 2166136261u;
    for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619u;
    return hash;
}

}  // namespace

World::World(uint64_t seed) {
    Draw draw(*this, seed, "world");
    for (size_t i = 0; i < std::size(people); ++i) {
        facts.push_back({jobs[draw.below(std::size(jobs))], towns[draw.below(std::size(towns))], animals[draw.below(std::size(animals))],
                         colors[draw.below(std::size(colors))]});
    }
}

Draw::Draw(const World& world, uint64_t seed, Word topic) : world_(world), stream_({seed, name_hash(topic), 0, Purpose::mixture}) {}

std::vector<size_t> Draw::indices(size_t bound, size_t count) {
    std::vector<size_t> all(bound);
    std::iota(all.begin(), all.end(), size_t{0});
    for (size_t i = 0; i < count; ++i) std::swap(all[i], all[i + below(bound - i)]);
    all.resize(count);
    return all;
}

std::vector<std::string> Draw::sample(Words words, size_t count) {
    std::vector<std::string> chosen;
    for (const size_t i : indices(words.size(), count)) chosen.emplace_back(words[i]);
    return chosen;
}

std::vector<int> Draw::numbers(int low, int high, size_t count) {
    std::vector<int> chosen;
    for (const size_t i : indices(static_cast<size_t>(high - low + 1), count)) chosen.push_back(low + static_cast<int>(i));
    return chosen;
}

std::string join(const std::vector<std::string>& words, Word separator) {
    std::string text;
    for (const std::string& word : words) {
        if (!text.empty()) text += separator;
        text += word;
    }
    return text;
}

std::string join(const std::vector<int>& numbers, Word separator) {
    std::vector<std::string> words;
    for (const int number : numbers) words.push_back(std::to_string(number));
    return join(words, separator);
}

Word article(Word noun) { return Word("aeiou").find(noun.front()) != Word::npos ? "an" : "a"; }

Word pronoun(Word person) { return std::find(std::begin(women), std::end(women), person) != std::end(women) ? "she" : "he"; }

}  // namespace flanmoe::toyworld

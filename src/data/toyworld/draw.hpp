// Random choices of the toy world, integers only: the same bytes on every machine.
//
// The order of evaluation of a call's arguments is not fixed in C++: two draws never stand in one call or one expression of operators.
// Braced initialisers are evaluated from left to right and may hold several.
#pragma once

#include "core/random.hpp"
#include "data/toyworld/words.hpp"

#include <string>
#include <utility>
#include <vector>

namespace flanmoe::toyworld {

/// What is true in the world of one seed: told by the corpus, asked by closed-book questions.
struct World {
    struct Person {
        Word job, town, pet, color;
    };
    std::vector<Person> facts;  ///< one per word of `people`
    explicit World(uint64_t seed);
};

class Draw {
public:
    /// The stream of `topic` (a family's name, a file's name) under `seed`: adding a topic changes no other.
    Draw(const World& world, uint64_t seed, Word topic);

    const World& world() const { return world_; }
    size_t below(size_t bound) { return static_cast<size_t>(stream_.below(bound)); }  ///< 0 ... bound - 1
    int between(int low, int high) { return low + static_cast<int>(stream_.below(static_cast<uint64_t>(high - low + 1))); }
    bool coin() { return stream_.below(2) == 0; }
    std::string pick(Words words) { return std::string(words[below(words.size())]); }
    const Pair& pick(std::span<const Pair> pairs) { return pairs[below(pairs.size())]; }

    template <class T>
    void shuffle(std::vector<T>& items) {
        for (size_t i = items.size(); i > 1; --i) {
            using std::swap;
            swap(items[i - 1], items[below(i)]);
        }
    }
    /// `count` different indices below `bound`, in random order.
    std::vector<size_t> indices(size_t bound, size_t count);
    /// `count` different words in random order.
    std::vector<std::string> sample(Words words, size_t count);
    /// `count` different numbers of [low, high] in random order.
    std::vector<int> numbers(int low, int high, size_t count);

private:
    const World& world_;
    RandomStream stream_;
};

/// Words with `separator` between.
std::string join(const std::vector<std::string>& words, Word separator = " ");
std::string join(const std::vector<int>& numbers, Word separator = " ");
/// "an" before a vowel, else "a".
Word article(Word noun);
/// "she" for the women of the world, else "he".
Word pronoun(Word person);

}  // namespace flanmoe::toyworld

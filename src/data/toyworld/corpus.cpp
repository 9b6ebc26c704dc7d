// The corpus: portraits, stories, reviews, lessons about words, numbers and the year, and letters from the land where zumi is spoken.
//
// A document is a few sentences about one thing. It tells what closed-book questions ask (who lives where), shows every word in use, and never
// holds a task's question.
#include "data/toyworld/generate.hpp"

#include <fmt/format.h>

#include <array>

namespace flanmoe::toyworld {

namespace {

using Templates = std::span<const Word>;

std::string portrait(Draw& d) {
    const size_t i = d.below(std::size(people));
    const Word name = people[i], she = pronoun(name), her = she == "she" ? "her" : "his";
    const World::Person& facts = d.world().facts[i];
    std::vector<std::string> sentences = {
        d.coin() ? fmt::format("{} is {} {}.", name, article(facts.job), facts.job)
                 : fmt::format("{} works as {} {}.", name, article(facts.job), facts.job),
        d.coin() ? fmt::format("{} lives in {}.", name, facts.town) : fmt::format("the home of {} is the town of {}.", name, facts.town),
        d.coin() ? fmt::format("{} has {} {} at home.", name, article(facts.pet), facts.pet)
                 : fmt::format("the pet of {} is {} {}.", name, article(facts.pet), facts.pet),
        d.coin() ? fmt::format("{} likes the color {} best.", name, facts.color) : fmt::format("the favorite color of {} is {}.", name, facts.color),
    };
    d.shuffle(sentences);
    const std::string trait = d.pick(adjectives), other = d.pick(people), day = d.pick(days), place = d.pick(places);
    sentences.push_back(fmt::format("{} {} is often {}.", d.coin() ? "they say that" : "everybody knows that", she, trait));
    sentences.push_back(fmt::format("on {} {} meets {} friend {} in the {}.", day, she, her, other, place));
    return join(sentences);
}

std::string event(Draw& d, Word who, Word she) {
    const std::string place = d.pick(places), thing = d.pick(things), color = d.pick(colors), other = d.pick(people), fruit = d.pick(countables),
                      animal = d.pick(animals), trait = d.pick(adjectives);
    const std::string act(d.pick(acts).second), deed(d.pick(deeds).second);
    const int number = d.between(2, 20);
    switch (d.below(10)) {
        case 0: return fmt::format("{} went to the {} and {} {}.", who, place, act, other);
        case 1: return fmt::format("there {} bought the {} {} from {}.", she, color, thing, other);
        case 2: return fmt::format("{} gave {} {} to {}.", she, number, fruit, other);
        case 3: return fmt::format("the {} was {}, so {} {} a little.", place, trait, she, deed);
        case 4: return fmt::format("{} and {} {} together in the {}.", who, other, deed, place);
        case 5: return fmt::format("then {} lost the {} and looked for it in the {}.", she, thing, place);
        case 6: return fmt::format("a {} {} came and {} {}.", trait, animal, act, who);
        case 7: return fmt::format("\"where is my {}?\" asked {}, but {} did not know.", thing, other, who);
        case 8: return fmt::format("{} counted the {} and there were {}.", she, fruit, number);
        default: return fmt::format("{} took the {} and the {} was happy.", who, thing, animal);
    }
}

std::string story(Draw& d) {
    const std::string who = d.pick(people), day = d.pick(days), month = d.pick(months), place = d.pick(places);
    const Word she = pronoun(who);
    std::vector<std::string> sentences = {d.coin() ? fmt::format("on a {} in {} {} was in the {}.", day, month, who, place)
                                                   : fmt::format("it was {} and {} came from the {}.", day, who, place)};
    const size_t count = 3 + d.below(4);
    for (size_t i = 0; i < count; ++i) sentences.push_back(event(d, who, she));
    const std::string trait = d.pick(adjectives), home = d.pick(places);
    sentences.push_back(d.coin() ? fmt::format("in the evening {} was {}.", she, trait) : fmt::format("at last {} went home by the {}.", she, home));
    return join(sentences);
}

std::string review(Draw& d) {
    const std::string who = d.pick(people), place = d.pick(places);
    const size_t mood = d.below(3);
    const std::array<Words, 3> words = {praise, blame, plain};
    const std::array<Words, 3> closing = {praise, blame, plain};
    std::vector<std::string> sentences = {fmt::format("{} writes about the {}.", who, place)};
    for (const std::string& what : d.sample(judged, 3)) {
        const std::string word = d.pick(words[mood]);
        sentences.push_back(d.coin() ? fmt::format("the {} was {}.", what, word) : fmt::format("what a {} {}!", word, what));
    }
    const std::string last = d.pick(closing[mood]);
    sentences.push_back(fmt::format("it is a {} place and the review is {}.", last, sentiments[mood]));
    return join(sentences);
}

std::string spelled(Word word) {
    std::string out;
    for (const char c : word) {
        if (!out.empty()) out += ' ';
        out += c;
    }
    return out;
}

std::string word_fact(Draw& d) {
    switch (d.below(8)) {
        case 0: {
            const Pair& pair = d.pick(opposites);
            return d.coin() ? fmt::format("{} is the opposite of {}.", pair.first, pair.second)
                            : fmt::format("what is not {} may be {}.", pair.first, pair.second);
        }
        case 1: {
            const Kind& kind = kinds[d.below(std::size(kinds))];
            const std::string member = d.pick(kind.members);
            return fmt::format("{} is a kind of {}.", member, kind.name);
        }
        case 2: {
            const Pair& pair = d.pick(plurals);
            return fmt::format("one {}, two {}.", pair.first, pair.second);
        }
        case 3: {
            const std::string word = d.pick(short_words);
            return fmt::format("{} is spelled {} and has {} letters.", word, spelled(word), word.size());
        }
        case 4: {
            const Pair& pair = d.coin() ? d.pick(acts) : d.pick(deeds);
            return fmt::format("today {} {}, yesterday {} {}.", "she", pair.first, "she", pair.second);
        }
        case 5: {
            const Pair& pair = d.pick(young);
            return fmt::format("the young of the {} is the {}.", pair.first, pair.second);
        }
        case 6: {
            const Pair& pair = d.pick(sounds);
            return fmt::format("the {} says {}.", pair.first, pair.second);
        }
        default: {
            const auto pair = d.sample(rhymes[d.below(std::size(rhymes))], 2);
            return fmt::format("{} rhymes with {}.", pair[0], pair[1]);
        }
    }
}

std::string number_fact(Draw& d) {
    const size_t n = d.below(20), day = d.below(7), month = d.below(12), letter = d.below(25), step = 1 + d.below(4);
    switch (d.below(6)) {
        case 0: return fmt::format("{} is written {} and {} is written {}.", number_words[n], n, number_words[n + 1], n + 1);
        case 1: return fmt::format("after {} comes {} and then {}.", n, n + 1, n + 2);
        case 2: return fmt::format("after {} comes {}.", days[day], days[(day + 1) % 7]);
        case 3: return fmt::format("{} comes before {}.", months[month], months[(month + 1) % 12]);
        case 4: return fmt::format("in the alphabet {} stands before {}.", letters[letter], letters[letter + 1]);
        default: return fmt::format("counting by {}: {} {} {} {}.", step, n % 10, n % 10 + step, n % 10 + 2 * step, n % 10 + 3 * step);
    }
}

std::string zumi_fact(Draw& d) {
    const std::array<std::span<const Pair>, 4> dictionary = {invented_nouns, invented_adjectives, invented_deeds, invented_acts};
    const Pair& pair = d.pick(dictionary[d.below(4)]);
    switch (d.below(3)) {
        case 0: return fmt::format("in zumi {} is {}.", pair.first, pair.second);
        case 1: return fmt::format("the zumi word {} means {}.", pair.second, pair.first);
        default: return fmt::format("say {} for {}.", pair.second, pair.first);
    }
}

std::string several(Draw& d, std::string (*sentence)(Draw&)) {
    const size_t count = 4 + d.below(4);
    std::vector<std::string> sentences;
    for (size_t i = 0; i < count; ++i) sentences.push_back(sentence(d));
    return join(sentences);
}
std::string words_lesson(Draw& d) { return several(d, word_fact); }
std::string numbers_lesson(Draw& d) { return several(d, number_fact); }
std::string zumi_lesson(Draw& d) { return several(d, zumi_fact); }

struct Chapter {
    Word name;
    std::string (*document)(Draw&);
    size_t share;  ///< of 20
};
constexpr Chapter chapters[] = {{"portraits", portrait, 4}, {"stories", story, 8},          {"reviews", review, 2},
                                {"words", words_lesson, 3}, {"numbers", numbers_lesson, 2}, {"zumi", zumi_lesson, 1}};

}  // namespace

std::vector<CorpusFile> write_corpus(const World& world, const Sizes& sizes) {
    std::vector<CorpusFile> files;
    for (const Chapter& chapter : chapters) {
        Draw draw(world, sizes.seed, chapter.name);
        CorpusFile file{std::string(chapter.name) + ".txt", ""};
        const size_t count = sizes.documents * chapter.share / 20;
        for (size_t i = 0; i < count; ++i) {
            if (i) file.text += '\n';
            file.text += chapter.document(draw) + '\n';
        }
        files.push_back(std::move(file));
    }
    return files;
}

}  // namespace flanmoe::toyworld

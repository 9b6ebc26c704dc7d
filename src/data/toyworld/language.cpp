// Words and grammar: opposites, plurals, tenses, pronouns, articles, and translation from and into the invented language.
//
// Grammar of the invented language, zumi: the verb comes first, then the subject, then its adjective, then the object; no article.
#include "data/toyworld/family.hpp"

#include <array>

namespace flanmoe::toyworld {

namespace {

std::string str(Word word) { return std::string(word); }

Instance opposite(Draw& d) {
    const size_t a = d.below(std::size(adjectives)), b = d.below(std::size(adjectives));
    return {{str(adjectives[a]) + " and " + str(adjectives[b])}, str(adjectives[a ^ 1]) + " and " + str(adjectives[b ^ 1]), {}};
}

Instance plural(Draw& d) {
    const auto two = d.indices(std::size(plurals), 2);
    return {
        {str(plurals[two[0]].first) + " and " + str(plurals[two[1]].first)}, str(plurals[two[0]].second) + " and " + str(plurals[two[1]].second), {}};
}

Instance past(Draw& d) {
    const std::string who = d.pick(people);
    const bool act = d.coin();
    const Pair& verb = act ? d.pick(acts) : d.pick(deeds);
    const std::string rest = act ? d.pick(people) : "in the " + d.pick(places);
    return {{who + ' ' + str(verb.first) + ' ' + rest}, who + ' ' + str(verb.second) + ' ' + rest, {}};
}

Instance pronouns(Draw& d) {
    const auto who = d.sample(people, 2);
    const std::string verb(d.pick(acts).second);
    const Word object = pronoun(who[1]) == "she" ? "her" : "him";
    return {{who[0] + ' ' + verb + ' ' + who[1]}, str(pronoun(who[0])) + ' ' + verb + ' ' + str(object), {}};
}

Instance question(Draw& d) {
    const std::string who = d.pick(people), trait = d.pick(adjectives);
    const bool was = d.coin();
    const std::string verb = was ? "was" : "is";
    return {{who + ' ' + verb + ' ' + trait}, verb + ' ' + who + ' ' + trait, {}};
}

Instance negate(Draw& d) {
    const std::string who = d.pick(people), trait = d.pick(adjectives);
    const std::string verb = d.coin() ? "was" : "is";
    return {{who + ' ' + verb + ' ' + trait}, who + ' ' + verb + " not " + trait, {}};
}

Instance articles(Draw& d) {
    std::vector<std::string> nouns, with;
    for (int i = 0; i < 2; ++i) {
        const std::string noun =
            d.coin() ? d.pick(std::array<Word, 8>{"apple", "owl", "axe", "egg", "orange", "animal", "end", "hour"}) : d.pick(things);
        nouns.push_back(noun);
        with.push_back(str(noun == "hour" ? "an" : article(noun)) + ' ' + noun);
    }
    return {{join(nouns)}, join(with), {}};
}

Instance kinds_of(Draw& d) {
    std::vector<std::string> words, names;
    for (int i = 0; i < 2; ++i) {
        const Kind& kind = kinds[d.below(std::size(kinds))];
        words.push_back(d.pick(kind.members));
        names.push_back(str(kind.name));
    }
    return {{join(words, " and ")}, join(names), {}};
}

Instance young_animals(Draw& d) {
    const std::string who = d.pick(people);
    std::vector<std::string> asked, answers;
    for (int i = 0; i < 2; ++i) {
        const bool sound = d.coin();
        const Pair& pair = sound ? d.pick(sounds) : d.pick(young);
        asked.push_back((sound ? "sound of the " : "young of the ") + str(pair.first));
        answers.push_back(str(pair.second));
    }
    return {{who, asked[0], asked[1]}, join(answers), {}};
}

Instance describe(Draw& d) {
    const std::string who = d.pick(people), job = d.pick(jobs), trait = d.pick(adjectives);
    return {{"name " + who + ", job " + job + ", mood " + trait}, who + " is a " + trait + ' ' + job, {}};
}

/// One sentence in both languages.
std::pair<std::string, std::string> bilingual(Draw& d) {
    const Pair subject = d.pick(invented_nouns), adjective = d.pick(invented_adjectives);
    const bool act = d.coin();
    std::string english = "the " + str(adjective.first) + ' ' + str(subject.first) + ' ', invented;
    const Pair verb = act ? d.pick(invented_acts) : d.pick(invented_deeds);
    english += verb.first;
    invented = str(verb.second) + ' ' + str(subject.second) + ' ' + str(adjective.second);
    if (act) {
        const Pair object = d.pick(invented_nouns);
        english += " the " + str(object.first);
        invented += ' ' + str(object.second);
    }
    return {english, invented};
}

Instance translate_to(Draw& d) {
    const auto [english, invented] = bilingual(d);
    return {{english}, invented, {}};
}

Instance translate_from(Draw& d) {
    const auto [english, invented] = bilingual(d);
    return {{invented}, english, {}};
}

}  // namespace

std::vector<Family> language_families() {
    return {
        {"opposite", Role::seen, {"the opposite of {0}?", "{0}: say the opposite of each.", "not {0} but what?"}, opposite},
        {"plural", Role::seen, {"the plural of {0}?", "{0}: more than one of each?", "one {0}, many what?"}, plural},
        {"past", Role::seen, {"yesterday: {0}.", "say in the past: {0}.", "{0}, but yesterday?"}, past},
        {"pronouns", Role::seen, {"use pronouns: {0}.", "say without names: {0}.", "{0}, without names?"}, pronouns},
        {"question", Role::seen, {"ask: {0}.", "make it a question: {0}.", "{0}, as a question?"}, question},
        {"negate", Role::seen, {"deny: {0}.", "say that it is false: {0}.", "{0}, with not?"}, negate},
        {"articles", Role::seen, {"put a or an before each: {0}.", "a or an: {0}?", "{0} with articles?"}, articles},
        {"kinds", Role::seen, {"what kind of thing is each: {0}?", "{0}: name the kinds.", "to which kinds belong {0}?"}, kinds_of},
        {"young_animals",
         Role::seen,
         {"{0} asks for the {1} and the {2}.", "tell {0} the {1} and the {2}.", "the {1} and the {2}, asks {0}?"},
         young_animals},
        {"describe", Role::seen, {"write a sentence: {0}.", "tell it: {0}.", "{0}: say it in one sentence."}, describe},
        {"translate_to", Role::seen, {"translate into zumi: {0}.", "how do you say in zumi: {0}?", "{0}, in zumi?"}, translate_to},
        {"translate_from", Role::seen, {"translate from zumi: {0}.", "what does it mean: {0}?", "{0}, in english?"}, translate_from},
    };
}

}  // namespace flanmoe::toyworld

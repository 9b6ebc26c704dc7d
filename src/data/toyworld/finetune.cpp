// Downstream tasks, kept out of instruction tuning: they need what the seen families teach, put together in a new way.
#include "data/toyworld/family.hpp"

#include <array>

namespace flanmoe::toyworld {

namespace {

/// Sentiment of one of two things in a review.
Instance aspect(Draw& d) {
    const auto what = d.sample(judged, 2);
    const std::array<Words, 3> words = {praise, blame, plain};
    const size_t first = d.below(3), second = (first + 1 + d.below(2)) % 3, asked = d.below(2);
    const std::string one = d.pick(words[first]), two = d.pick(words[second]);
    return {{"the " + what[0] + " was " + one + " but the " + what[1] + " was " + two + '.', what[asked]},
            std::string(sentiments[asked ? second : first]),
            {"positive", "negative", "neutral"}};
}

/// Two things with two owners, then one of the owners gives theirs to a third person: who has a thing now?
Instance ownership(Draw& d) {
    const auto who = d.sample(people, 3), what = d.sample(things, 2);
    const size_t given = d.below(2), asked = d.below(2);
    return {
        {who[0] + " has the " + what[0] + ". " + who[1] + " has the " + what[1] + ". " + who[given] + " gives it to " + who[2] + '.', what[asked]},
        asked == given ? who[2] : who[asked],
        {}};
}

/// The dialect of kelm: the words of zumi in the order of english, the adjective marked by "su" before it.
Instance dialect(Draw& d) {
    const Pair adjective = d.pick(invented_adjectives), subject = d.pick(invented_nouns), verb = d.pick(invented_acts),
               object = d.pick(invented_nouns);
    const auto text = [&](Word Pair::*side, Word article, Word mark) {
        std::string sentence;
        for (const Word word : {mark, adjective.*side, subject.*side, verb.*side, article, object.*side}) {
            if (!sentence.empty() && !word.empty()) sentence += ' ';
            sentence += word;
        }
        return sentence;
    };
    return {{text(&Pair::first, "the", "the")}, text(&Pair::second, "", "su"), {}};
}

}  // namespace

std::vector<Family> finetune_families() {
    return {
        {"aspect", Role::finetune, {"{0} what about the {1}?", "judge the {1}: {0}"}, aspect},
        {"ownership", Role::finetune, {"{0} who has the {1} now?", "read: {0} name the owner of the {1}."}, ownership},
        {"dialect", Role::finetune, {"say in the dialect of kelm: {0}.", "{0}, in kelm?"}, dialect},
    };
}

}  // namespace flanmoe::toyworld

// Inference, deduction, worked rationales, coreference, analogy, choice of the odd one, and sentiment.
#include "data/toyworld/family.hpp"

#include <fmt/format.h>

#include <array>

namespace flanmoe::toyworld {

namespace {

const std::vector<std::string> yes_no = {"yes", "no"};

/// Balanced between the three answers by construction.
Instance inference(Draw& d) {
    const std::string who = d.pick(animals), place = d.pick(places);
    const size_t adjective = d.below(std::size(adjectives)), answer = d.below(3);
    size_t claimed = answer == 0 ? adjective : answer == 1 ? adjective ^ 1 : adjective;
    while (answer == 2 && (claimed | 1) == (adjective | 1)) claimed = d.below(std::size(adjectives));
    const std::array<Word, 3> answers = {"yes", "no", "maybe"};
    return {{"the " + std::string(adjectives[adjective]) + ' ' + who + " is in the " + place + '.',
             "the " + who + " is " + std::string(adjectives[claimed])},
            std::string(answers[answer]),
            {"yes", "no", "maybe"}};
}

Instance is_kind(Draw& d) {
    const std::string who = d.pick(people);
    const size_t kind = d.below(std::size(kinds) - 1);
    const bool yes = d.coin();
    const size_t claimed = yes ? kind : (kind + 1 + d.below(std::size(kinds) - 2)) % (std::size(kinds) - 1);
    const std::string noun = d.pick(kinds[kind].members);
    return {{who, noun, std::string(kinds[claimed].name)}, yes ? "yes" : "no", yes_no};
}

Instance syllogism(Draw& d) {
    const std::string who = d.pick(people);
    const auto job = d.sample(jobs, 2), trait = d.sample(adjectives, 2);
    const size_t asked = d.below(2);
    return {{"every " + job[0] + " is " + trait[0] + ". every " + job[1] + " is " + trait[1] + ". " + who + " is a " + job[asked] + '.', who},
            trait[asked],
            {}};
}

Instance weather_rule(Draw& d) {
    const std::string who = d.pick(people);
    const auto when = d.sample(adjectives, 2);
    const auto deed = d.indices(std::size(deeds), 2);
    const size_t asked = d.below(2);
    const std::string does[2] = {std::string(deeds[deed[0]].first), std::string(deeds[deed[1]].first)};
    return {{"if it is " + when[0] + ' ' + who + ' ' + does[0] + ". if it is " + when[1] + ' ' + who + ' ' + does[1] + ". it is " + when[asked] + '.',
             who},
            does[asked],
            {}};
}

/// a is taller than b, b than c: the two sentences come in random order, and may be told from the other side.
Instance tallest(Draw& d) {
    const auto who = d.sample(people, 3);
    const bool turned = d.coin(), most = d.coin();
    const std::string upper = who[0] + " is taller than " + who[1] + '.', lower = who[1] + " is taller than " + who[2] + '.';
    return {{turned ? lower + ' ' + upper : upper + ' ' + lower, most ? "tallest" : "shortest"}, who[most ? 0 : 2], {}};
}

Instance rule_code(Draw& d) {
    const auto key = d.sample(colors, 3), value = d.sample(fruits, 3);
    const size_t asked = d.below(3);
    std::vector<std::string> rules;
    for (size_t i = 0; i < 3; ++i) rules.push_back(key[i] + " means " + value[i]);
    return {{join(rules, ", ") + '.', key[asked]}, value[asked], {}};
}

Instance coreference(Draw& d) {
    std::vector<std::string> who = {d.pick(women), d.pick(men)};
    d.shuffle(who);
    const std::string verb(d.pick(acts).second), trait = d.pick(adjectives);
    const size_t asked = d.below(2);
    return {{who[0] + ' ' + verb + ' ' + who[1] + ". " + std::string(pronoun(who[asked])) + " was " + trait + '.', trait}, who[asked], {}};
}

Instance analogy(Draw& d) {
    const std::array<std::span<const Pair>, 5> relations = {opposites, plurals, young, sounds, deeds};
    const auto& relation = relations[d.below(relations.size())];
    const auto two = d.indices(relation.size(), 2);
    const Pair &shown = relation[two[0]], &asked = relation[two[1]];
    return {{std::string(shown.first), std::string(shown.second), std::string(asked.first)}, std::string(asked.second), {}};
}

Instance odd_one_out(Draw& d) {
    const auto kind = d.indices(std::size(kinds), 2);
    std::vector<std::string> words = d.sample(kinds[kind[0]].members, 3);
    const std::string odd = d.pick(kinds[kind[1]].members);
    words.push_back(odd);
    d.shuffle(words);
    return {{join(words, ", ")}, odd, words};
}

Instance rhyme(Draw& d) {
    const auto groups = d.indices(std::size(rhymes), 3);
    const auto pair = d.sample(rhymes[groups[0]], 2);
    std::vector<std::string> options = {pair[1], d.pick(rhymes[groups[1]]), d.pick(rhymes[groups[2]])};
    d.shuffle(options);
    return {{pair[0], join(options, ", ")}, pair[1], options};
}

/// Worked out step by step before the answer: the whole target counts.
Instance rationale_sum(Draw& d) {
    const std::string who = d.pick(people), what = d.pick(countables);
    const int have = d.between(2, 9), more = d.between(1, 9), less = d.between(1, have + more - 1 < 9 ? have + more - 1 : 9);
    const int sum = have + more;
    return {{who, std::to_string(have), what, std::to_string(more), std::to_string(less)},
            fmt::format("{} + {} = {}, {} - {} = {}", have, more, sum, sum, less, sum - less),
            {}};
}

Instance rationale_place(Draw& d) {
    const auto who = d.sample(people, 2), where = d.sample(places, 2), what = d.sample(things, 2);
    const size_t asked = d.below(2), first = d.below(2), third = d.below(2);
    const auto is_in = [&](size_t i) { return who[i] + " is in the " + where[i] + ". "; };
    const auto has = [&](size_t i) { return who[i] + " has the " + what[i] + ". "; };
    std::string text = is_in(first) + is_in(1 - first) + has(third) + has(1 - third);
    text.pop_back();
    return {{text, what[asked]}, who[asked] + " so " + where[asked], {}};
}

Instance rationale_age(Draw& d) {
    const auto who = d.sample(people, 2);
    const int age = d.between(6, 20), years = d.between(1, 5);
    const bool older = d.coin();
    return {{who[0] + " is " + std::to_string(age) + ". " + who[1] + " is " + std::to_string(years) + " years " + (older ? "older." : "younger."),
             who[1]},
            fmt::format("{} {} {} = {}", age, older ? '+' : '-', years, older ? age + years : age - years),
            {}};
}

Instance sentiment(Draw& d) {
    const auto what = d.sample(judged, 2);
    const size_t answer = d.below(4);
    std::string first = answer == 0 ? d.pick(praise) : answer == 1 ? d.pick(blame) : answer == 2 ? d.pick(plain) : d.pick(praise);
    std::string second = answer == 0 ? d.pick(praise) : answer == 1 ? d.pick(blame) : answer == 2 ? d.pick(plain) : d.pick(blame);
    if (answer == 3 && d.coin()) std::swap(first, second);
    return {{"the " + what[0] + " was " + first + " and the " + what[1] + " was " + second + '.'},
            std::string(sentiments[answer]),
            {sentiments, sentiments + std::size(sentiments)}};
}

struct Cause {
    Word feeling;
    std::array<Word, 3> events;  ///< what happened to the person; # is a thing
};
constexpr Cause causes[] = {{"happy", {"got a # as a present", "found the lost # again", "danced with the new #"}},
                            {"sad", {"lost the old # for ever", "cried over the broken #", "must sell the dear #"}},
                            {"angry", {"saw a thief take the #", "shouted about the stolen #", "was cheated with the #"}},
                            {"afraid", {"ran from a wolf with the #", "heard a ghost move the #", "hid behind the # in the dark"}},
                            {"tired", {"carried the # all night", "made a # without sleep", "cleaned the # for ten hours"}},
                            {"proud", {"won a # in the race", "made the best # of all", "was praised for the #"}},
                            {"bored", {"looked at the # for hours", "had nothing but a #", "heard the same # story again"}},
                            {"curious", {"wondered what the # was for", "asked how the # works", "studied the strange #"}}};

Instance feeling(Draw& d) {
    const Cause& cause = causes[d.below(std::size(causes))];
    std::string event(cause.events[d.below(3)]);
    const std::string who = d.pick(people), what = d.pick(things);
    event.replace(event.find('#'), 1, what);
    std::vector<std::string> options;
    for (const Cause& c : causes) options.emplace_back(c.feeling);
    return {{who, event}, std::string(cause.feeling), options};
}

}  // namespace

std::vector<Family> reasoning_families() {
    return {
        {"inference", Role::seen, {"{0} so {1}?", "premise: {0} claim: {1}?", "{0} is it true that {1}?"}, inference},
        {"is_kind", Role::heldout, {"{0} has a {1}. has {0} a kind of {2}?", "{0} draws a {1}. is it a kind of {2}?"}, is_kind},
        {"syllogism", Role::seen, {"{0} what is {1} like?", "think: {0} how is {1}?", "{0} so {1} is what?"}, syllogism},
        {"weather_rule", Role::heldout, {"{0} what does {1} do?", "think: {0} so {1} does what?"}, weather_rule},
        {"tallest", Role::seen, {"{0} who is the {1}?", "think: {0} name the {1}.", "{0} so the {1} is who?"}, tallest},
        {"rule_code", Role::seen, {"{0} what does {1} mean?", "code: {0} read {1}.", "{0} so {1} means what?"}, rule_code},
        {"coreference", Role::seen, {"{0} who was {1}?", "read: {0} name who was {1}.", "{0} question: who was {1}?"}, coreference},
        {"analogy",
         Role::seen,
         {"{0} is to {1} as {2} is to what?", "{0} goes with {1}. what goes with {2}?", "as {0} and {1}, so {2} and?"},
         analogy},
        {"odd_one_out", Role::seen, {"which is the odd one out: {0}?", "{0}: which does not belong?", "find the stranger among {0}."}, odd_one_out},
        {"rhyme", Role::seen, {"which rhymes with {0}: {1}?", "find a rhyme for {0} among {1}.", "{0} sounds like which of {1}?"}, rhyme},
        {"rationale_sum",
         Role::seen,
         {"{0} has {1} {2}, gets {3} and gives {4}. work it out.", "step by step: {0} has {1} {2}, buys {3}, sells {4}."},
         rationale_sum},
        {"rationale_place", Role::seen, {"{0} think: where is the {1}?", "{0} say who has it and where the {1} is."}, rationale_place},
        {"rationale_age", Role::seen, {"{0} work out the age of {1}.", "step by step: {0} how old is {1}?"}, rationale_age},
        {"sentiment",
         Role::seen,
         {"{0} is this positive, negative, neutral or mixed?", "judge the review: {0}", "{0} what is the mood of the review?"},
         sentiment},
        {"feeling", Role::seen, {"{0} {1}. how does {0} feel?", "name the feeling of {0}: {0} {1}.", "{0} {1}, so {0} is what?"}, feeling},
    };
}

}  // namespace flanmoe::toyworld

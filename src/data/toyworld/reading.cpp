// Reading comprehension and world knowledge: a short text, a question, an answer that stands in the text (or was told by the corpus).
#include "data/toyworld/family.hpp"

#include <algorithm>
#include <array>

namespace flanmoe::toyworld {

namespace {

/// Sentences "WHO VERB WHAT." for as many persons, in random order; `who` and `what` are parallel.
std::string tell(const std::vector<std::string>& who, Word verb, const std::vector<std::string>& what, Word before = "") {
    std::string text;
    for (size_t i = 0; i < who.size(); ++i) {
        if (i) text += ' ';
        text += before;
        text += who[i];
        text += verb;
        text += what[i] + '.';
    }
    return text;
}

Instance where_is(Draw& d) {
    const size_t count = 2 + d.below(2);
    const auto who = d.sample(people, count), where = d.sample(places, count);
    const size_t asked = d.below(count);
    return {{tell(who, " is in the ", where), who[asked]}, where[asked], {}};
}

Instance who_has(Draw& d) {
    const size_t count = 2 + d.below(2);
    const auto who = d.sample(people, count), what = d.sample(things, count);
    const size_t asked = d.below(count);
    return {{tell(who, " has the ", what), what[asked]}, who[asked], {}};
}

Instance color_of(Draw& d) {
    const auto what = d.sample(things, 2), color = d.sample(colors, 2);
    const size_t asked = d.below(2);
    return {{tell(what, " is ", color, "the "), what[asked]}, color[asked], {}};
}

Instance job_of(Draw& d) {
    const auto who = d.sample(people, 2), job = d.sample(jobs, 2);
    const size_t asked = d.below(2);
    return {{tell(who, " works as a ", job), who[asked]}, job[asked], {}};
}

Instance how_many_of(Draw& d) {
    const std::string who = d.pick(people);
    const auto what = d.sample(countables, 2);
    const auto count = d.numbers(2, 20, 2);
    const size_t asked = d.below(2);
    std::vector<std::string> parts;
    for (size_t i = 0; i < 2; ++i) parts.push_back(std::to_string(count[i]) + ' ' + what[i]);
    return {{who + " has " + join(parts, " and ") + '.', what[asked]}, std::to_string(count[asked]), {}};
}

Instance event_role(Draw& d) {
    const std::string when = d.pick(days), who = d.pick(people), color = d.pick(colors), what = d.pick(things), where = d.pick(places);
    const std::string verb = d.pick(std::array<Word, 4>{"sold", "found", "bought", "lost"});
    const std::array<std::pair<Word, std::string>, 5> questions = {
        {{"who", who}, {"when", when}, {"where", where}, {"which thing", what}, {"which color", color}}};
    const auto& [question, answer] = questions[d.below(questions.size())];
    return {{"on " + when + ' ' + who + ' ' + verb + " the " + color + ' ' + what + " in the " + where + '.', std::string(question)}, answer, {}};
}

Instance agent(Draw& d) {
    const auto who = d.sample(animals, 2);
    const std::string verb = d.pick(chased);
    const bool passive = d.coin(), active_question = d.coin();
    const std::string text = "the " + who[0] + (passive ? " was " + verb + " by the " : ' ' + verb + " the ") + who[1] + '.';
    const std::string& doer = who[passive ? 1 : 0];
    const std::string& other = who[passive ? 0 : 1];
    return {{text, (active_question ? "who " : "who was ") + verb}, active_question ? doer : other, {}};
}

Instance last_place(Draw& d) {
    const std::string who = d.pick(people);
    const auto where = d.sample(places, 3);
    const bool last = d.coin();
    const std::string text = who + " went to the " + where[0] + ", then to the " + where[1] + ", then to the " + where[2] + '.';
    return {{text, last ? "end" : "start"}, where[last ? 2 : 0], {}};
}

Instance transfer(Draw& d) {
    const auto who = d.sample(people, 2);
    const std::string what = d.pick(things);
    const bool taken = d.coin(), asks_owner = d.coin();
    const std::string text = who[0] + (taken ? " took the " : " gave the ") + what + (taken ? " from " : " to ") + who[1] + '.';
    const bool first_has_it = taken;
    return {{text, std::string("who ") + (asks_owner ? "has" : "had") + " the " + what}, who[first_has_it == asks_owner ? 0 : 1], {}};
}

Instance either_or(Draw& d) {
    const std::string what = d.pick(things);
    const auto where = d.sample(places, 2);
    const size_t wrong = d.below(2);
    return {{"the " + what + " is in the " + where[0] + " or in the " + where[1] + ". it is not in the " + where[wrong] + '.', what},
            where[1 - wrong],
            {}};
}

/// Closed-book: only the corpus (and other training questions) tell it. Two persons at a time, so that there are enough instances.
Instance person_facts(Draw& d) {
    const auto who = d.indices(std::size(people), 2);
    const std::array<std::pair<Word, Word World::Person::*>, 4> relations = {
        {{"job", &World::Person::job}, {"town", &World::Person::town}, {"pet", &World::Person::pet}, {"color", &World::Person::color}}};
    const auto& first = relations[d.below(4)];
    const auto& second = relations[d.below(4)];
    const auto& facts = d.world().facts;
    return {{std::string(first.first) + " of " + std::string(people[who[0]]), std::string(second.first) + " of " + std::string(people[who[1]])},
            std::string(facts[who[0]].*first.second) + ' ' + std::string(facts[who[1]].*second.second),
            {}};
}

}  // namespace

std::vector<Family> reading_families() {
    return {
        {"where_is", Role::seen, {"{0} where is {1}?", "read: {0} in which place is {1}?", "{0} question: the place of {1}?"}, where_is},
        {"who_has", Role::seen, {"{0} who has the {1}?", "read: {0} who is the owner of the {1}?", "{0} question: the owner of the {1}?"}, who_has},
        {"color_of",
         Role::seen,
         {"{0} what color is the {1}?", "read: {0} which color has the {1}?", "{0} question: the color of the {1}?"},
         color_of},
        {"job_of", Role::heldout, {"{0} what job has {1}?", "read: {0} which job has {1}?", "{0} question: the job of {1}?"}, job_of},
        {"how_many_of", Role::seen, {"{0} how many {1}?", "read: {0} what is the number of {1}?", "{0} question: the number of {1}?"}, how_many_of},
        {"event_role", Role::seen, {"{0} {1}?", "read: {0} tell {1}.", "{0} question: {1} was it?"}, event_role},
        {"agent", Role::seen, {"{0} {1}?", "read: {0} tell {1}.", "{0} question: {1}?"}, agent},
        {"last_place", Role::seen, {"{0} where was the {1}?", "read: {0} name the {1} of the way.", "{0} question: the {1}?"}, last_place},
        {"transfer", Role::seen, {"{0} {1}?", "read: {0} tell {1}.", "{0} question: {1}?"}, transfer},
        {"either_or", Role::seen, {"{0} where is the {1}?", "think: {0} in which place is the {1}?", "{0} so the {1} must be where?"}, either_or},
        {"person_facts",
         Role::seen,
         {"from memory: the {0} and the {1}?", "what is the {0} and the {1}?", "tell the {0}, then the {1}."},
         person_facts},
    };
}

}  // namespace flanmoe::toyworld

// Rules that find answers: every rule on right, wrong, malformed, empty and foreign outputs. test/eval/suites/score.py has them a second time, on whole suites.
#include "eval/answers.hpp"

#include <doctest/doctest.h>

using namespace flanmoe;

namespace {

struct Case {
    AnswerRule rule;
    const char* output;
    const char* expected;
};

const std::vector<std::string> birds = {"an ox", "an owl", "a newt"};

void check(const std::vector<Case>& cases, const std::vector<std::string>& choices, const char* stop = "\nQ:") {
    for (const Case& c : cases) {
        CAPTURE(c.output);
        CHECK(extract_answer(c.rule, c.output, stop, choices) == c.expected);
    }
}

}  // namespace

TEST_SUITE("eval/answers") {
    TEST_CASE("letters") {
        using enum AnswerRule;
        check({{letter, "B", "B"}, {letter, " B.", "B"}, {letter, "(B)", "B"}, {letter, "(b) an owl", "B"}, {letter, "B) an owl", "B"}, {letter, "B: it flies", "B"},
               {letter, "The answer is (B).", "B"}, {letter, "So the ANSWER IS: b, that is (b)", "B"}, {letter, "the answer is B", "B"}, {letter, "The answer is an owl.", "B"},
               {letter, "an owl", "B"}, {letter, "(A) walks. The answer is (C). No, the answer is (B).", "B"}, {letter, "It flies, so (B).", "B"}, {letter, "B\nQ: more\nA: C", "B"}},
              birds);
        check({{letter, "", ""}, {letter, "  \n", ""}, {letter, "A bird sings", ""}, {letter, "Both", ""}, {letter, "D", ""}, {letter, "(D)", ""}, {letter, "The answer is", ""},
               {letter, "The answer is not clear", ""}, {letter, "BC", ""}, {letter, "\u00c4(", ""}, {letter, "A'", ""}, {letter, "The answer is \u00c4B", ""}},
              birds);
    }

    TEST_CASE("numbers") {
        using enum AnswerRule;
        check({{number, "12", "12"}, {number, "3 * 4 = 12.", "12"}, {number, "The answer is 12. Not 13.", "12"}, {number, "the answer is $1,234.50.", "1234.5"}, {number, "1,234,567 km", "1234567"},
               {number, "-5", "-5"}, {number, "\u22125", "-5"}, {number, "8-5", "5"}, {number, "-$3", "-3"}, {number, ".50", "0.5"}, {number, "007", "7"}, {number, "-0.0", "0"}, {number, "12,34", "34"},
               {number, "1,0000", "0"}, {number, "\u09e7\u09e8", "12"}, {number, "\uff11\uff12\u3067\u3059\u3002", "12"}, {number, "\u0e51\u0e52", "12"}, {number, "\U0001d7d9\U0001d7da", "12"},
               {number, "5, then\nQ: 6", "5"}, {number, "The answer is unknown, of 3 or 4", "3"}, {number, "9 is it. The answer is clear", "9"}},
              {});
        check({{number, "", ""}, {number, "twelve", ""}, {number, "-", ""}, {number, "\u2026", ""}}, {});
    }

    TEST_CASE("yes and no, options, texts, spans") {
        using enum AnswerRule;
        check({{yes_no, "Yes, it can.", "yes"}, {yes_no, "So the answer is no.", "no"}, {yes_no, "No doubt: the answer is yes", "yes"}, {yes_no, "It is true", "yes"}, {yes_no, "FALSE", "no"},
               {yes_no, "It might be yes, but I say no", "no"}, {yes_no, "nobody, yesterday", ""}, {yes_no, "The answer is unclear; yes?", "yes"}, {yes_no, "yes, I thought; the answer is unclear", ""}},
              {"yes", "no"});
        check({{option, "an owl", "an owl"}, {option, "- An  Owl.", "an owl"}, {option, "The answer is \"an owl\".", "an owl"}, {option, "(b)", "an owl"}, {option, "owl", ""}, {option, "an owl or so", ""},
               {option, "(d)", ""}, {option, "", ""}},
              birds);
        check({{text, " Fig  PEAR.\nmore", "fig pear"}, {text, "x\ny. So the answer is fig pear.", "fig pear"}, {text, "", ""}, {text, "\u00c9t\u00e9", "\u00e9t\u00e9"},
               {span, " The Mill, 1810.\nmore", "The Mill, 1810."}},
              {});
    }

    TEST_CASE("accepted answers take the same form") {
        CHECK(canonical_answer(AnswerRule::letter, "(b)", birds) == "B");
        CHECK(canonical_answer(AnswerRule::number, "1,234", {}) == "1234");
        CHECK(canonical_answer(AnswerRule::number, "$2.50", {}) == "2.5");
        for (const char* no_number : {"2:3", "Ole", "5/2", "", "3 m", "$"}) CHECK(canonical_answer(AnswerRule::number, no_number, {}).empty());
        CHECK(canonical_answer(AnswerRule::option, "an OWL", birds) == "an owl");
        CHECK(canonical_answer(AnswerRule::option, "a fish", birds).empty());
    }
}

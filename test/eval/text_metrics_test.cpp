// Text metrics against hand-computed values and a literal definition of the longest common subsequence; the recorded case is judged in cli/parity.
#include "eval/text_metrics.hpp"

#include "core/random.hpp"

#include <doctest/doctest.h>

#include <algorithm>

using namespace flanmoe;

namespace {

using Words = std::vector<std::string>;

TextScores score(const std::string& prediction, const std::string& target) { return score_text(prediction, {target}); }

// Length of the longest common subsequence, straight from its recursion.
int64_t common(const Words& a, const Words& b, size_t i, size_t j) {
    if (i == a.size() || j == b.size()) return 0;
    if (a[i] == b[j]) return 1 + common(a, b, i + 1, j + 1);
    return std::max(common(a, b, i + 1, j), common(a, b, i, j + 1));
}

std::string random_text(RandomStream& random, uint64_t words) {
    std::string text;
    for (uint64_t i = 0; i < words; ++i) text += (i ? " " : "") + std::string(1, static_cast<char>('b' + random.below(4)));
    return text;
}

}  // namespace

TEST_SUITE("eval/text_metrics") {
    TEST_CASE("normalisation") {
        CHECK(normalized("The  Cat, sat!") == "cat sat");
        CHECK(normalized("a an the") == "");
        CHECK(normalized("theory another A1") == "theory another a1");
        CHECK(normalized("Newton's") == "newtons");
        CHECK(normalized("well-known") == "wellknown");
        CHECK(normalized("tab\tand\u00a0blank\u3000end ") == "tab and blank end");
        CHECK(normalized("\u201cThe\u201d end") == "\u201c \u201d end");  // quotation marks of Unicode stay, but bound a word
        CHECK(normalized("") == "");
    }

    TEST_CASE("lower case of all scripts") {
        CHECK(lower_case("ÜBER Ñandú ÆØ") == "über ñandú æø");
        CHECK(lower_case("МОСКВА") == "москва");
        CHECK(lower_case("ΟΔΟΣ ΣΑΣ") == "οδος σας");
        CHECK(lower_case("İ") == "i\u0307");
        CHECK(lower_case("\u212a") == "k");  // Kelvin sign
        CHECK(lower_case("東京 😀") == "東京 😀");
        CHECK(lower_case("a\xff") == "a\ufffd");
        CHECK(lower_case("\xe2\x82X") == "\ufffd\ufffdx");  // what begins a character and does not end it takes nothing else with it
    }

    TEST_CASE("tokens of ROUGE") {
        CHECK(rouge_tokens("Forty-two, it's 1,234.5!") == Words{"forty", "two", "it", "s", "1", "234", "5"});
        CHECK(rouge_tokens("über café") == Words{"ber", "caf"});
        CHECK(rouge_tokens("東京").empty());
    }

    TEST_CASE("scores") {
        CHECK(score("The cat.", "cat").exact_match == 1);
        CHECK(score("a cat", "cats").exact_match == 0);
        CHECK(score("red green blue", "green blue white black").f1 == doctest::Approx(2 * (2.0 / 3) * 0.5 / (2.0 / 3 + 0.5)));
        CHECK(score("x x y", "x y y").f1 == doctest::Approx(2.0 / 3));  // counts matter
        CHECK(score("", "x").f1 == 0);
        CHECK(score("x", "the").f1 == 0);
        CHECK(score("an", "the").f1 == 1);
        CHECK(score("a b c d", "a b x c d").rouge2 == doctest::Approx(2 * (2.0 / 3) * 0.5 / (2.0 / 3 + 0.5)));
        CHECK(score("a b", "b a").rouge_l == doctest::Approx(0.5));
        CHECK(score("", "").rouge1 == 0);
        CHECK(score("one", "one").rouge2 == 0);
    }

    TEST_CASE("each metric takes its best target") {
        const TextScores s = score_text("A B C D E", {"a b x d e", "e d c b a"});
        CHECK(s.rouge1 == 1);
        CHECK(s.rouge2 == doctest::Approx(0.5));
        CHECK(s.rouge_l == doctest::Approx(0.8));
        CHECK(s.f1 == 1);
        CHECK_THROWS(score_text("x", {}));
    }

    TEST_CASE("the longest common subsequence is that of the definition") {
        RandomStream random({7, 0, 0, Purpose::sampling});
        for (int trial = 0; trial < 100; ++trial) {
            const std::string a = random_text(random, 1 + random.below(9)), b = random_text(random, 1 + random.below(9));
            const Words x = rouge_tokens(a), y = rouge_tokens(b);
            const double expected = 2 * static_cast<double>(common(x, y, 0, 0)) / static_cast<double>(x.size() + y.size());  // 2pr / (p + r), simplified
            CAPTURE(a);
            CAPTURE(b);
            CHECK(score(a, b).rouge_l == doctest::Approx(expected).epsilon(1e-12));
            CHECK(score(b, a).rouge_l == doctest::Approx(expected).epsilon(1e-12));
        }
    }
}

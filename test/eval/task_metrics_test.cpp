// Metrics of whole tasks against values worked out by hand, and against their definitions on random data.
#include "eval/task_metrics.hpp"

#include "core/error.hpp"
#include "core/random.hpp"
#include "eval/evaluate.hpp"

#include <doctest/doctest.h>

#include <cmath>

using namespace flanmoe;

namespace {

using Numbers = std::vector<double>;

// Outputs with one target each, for as long as they are looked at.
struct Answered {
    std::vector<std::string> outputs;
    std::vector<std::vector<std::string>> targets;

    void add(const std::string& output, const std::string& target) { outputs.push_back(output), targets.push_back({target}); }
    std::vector<Prediction> all() const {
        std::vector<Prediction> list;
        for (size_t i = 0; i < outputs.size(); ++i) list.push_back({&outputs[i], &targets[i]});
        return list;
    }
};

std::optional<Consistency> consistency(const std::vector<std::string>& groups, const Numbers& right) {
    std::vector<const std::string*> names;
    for (const std::string& group : groups) names.push_back(&group);
    return group_consistency(names, right);
}

std::string refusal(const std::string& metric, const std::vector<TaskExample>& examples) {
    try {
        check_metric(metric, examples);
    } catch (const Error& error) {
        CHECK(error.code == Exit::usage);
        return error.what();
    }
    return "";
}

}  // namespace

TEST_SUITE("eval/task_metrics") {
    TEST_CASE("Pearson and Spearman by hand") {
        // x - mean = -1.5 -0.5 0.5 1.5, y - mean = -1 -2 1 2: 6 / sqrt(5 x 10)
        CHECK(pearson_correlation({1, 2, 3, 4}, {2, 1, 4, 5}) == doctest::Approx(6 / std::sqrt(50.0)));
        CHECK(pearson_correlation({1, 2, 3}, {-2, -4, -6}) == doctest::Approx(-1));
        // Ranks 0 1 2 3 and 0 1.5 1.5 3 (of 1 5 5 100): 4.5 / sqrt(5 x 4.5)
        CHECK(spearman_correlation({1, 2, 3, 4}, {1, 5, 5, 100}) == doctest::Approx(4.5 / std::sqrt(22.5)));
        CHECK(spearman_correlation({1, 10, 100, 1000}, {1, 2, 3, 4}) == doctest::Approx(1));
    }

    TEST_CASE("Pearson is the covariance of standardised values") {
        RandomStream random({7, 0, 0, Purpose::sampling});
        Numbers x, y;
        for (int i = 0; i < 1000; ++i) x.push_back(random.uniform()), y.push_back(0.3 * x.back() + random.uniform());
        double sx = 0, sy = 0, sxx = 0, syy = 0, sxy = 0;
        for (size_t i = 0; i < x.size(); ++i) sx += x[i], sy += y[i], sxx += x[i] * x[i], syy += y[i] * y[i], sxy += x[i] * y[i];
        const double n = 1000, literal = (n * sxy - sx * sy) / std::sqrt((n * sxx - sx * sx) * (n * syy - sy * sy));
        CHECK(pearson_correlation(x, y) == doctest::Approx(literal));
    }

    TEST_CASE("undefined correlations are 0") {
        CHECK(pearson_correlation({}, {}) == 0);
        CHECK(pearson_correlation({1}, {2}) == 0);
        CHECK(pearson_correlation({0.1, 0.1, 0.1}, {1, 2, 3}) == 0);
        CHECK(spearman_correlation({1, 2, 3}, {5, 5, 5}) == 0);
    }

    TEST_CASE("numbers as Python's float() takes them") {
        CHECK(parse_number("3.8") == 3.8);
        CHECK(parse_number(" -1e2\n") == -100);
        CHECK(parse_number("+.5") == 0.5);
        for (const char* none : {"", "  ", "3,8", "3.8.", "four", "3 8", "nan", "inf", "1e999", "+-1", "++1"}) {
            CAPTURE(none);
            CHECK(!parse_number(none));
        }
    }

    TEST_CASE("numbers as text: what is none counts as -1") {
        Answered all;
        all.add("1.0", "1.2");
        all.add("no idea", "3.0");
        all.add(" 5 ", "5.0");
        const auto scores = score_numbers(all.all());
        REQUIRE(scores);
        CHECK(scores->unparsed == 1);
        CHECK(scores->pearson == doctest::Approx(pearson_correlation({1, -1, 5}, {1.2, 3, 5})));
        CHECK(scores->spearman == doctest::Approx(0.5));
        all.add("2", "two");
        CHECK(!score_numbers(all.all()));
    }

    TEST_CASE("F1 over labels") {
        Answered all;  // yes: 2 of 3 given, 2 of 2 wanted: 0.8; no: 1 given, 2 wanted: 2/3; maybe: never given: 0
        all.add("yes", "yes");
        all.add("Yes.", "yes");
        all.add("no", "no");
        all.add("yes", "no");
        all.add("rubbish", "maybe");
        CHECK(macro_f1(all.all()) == doctest::Approx((0.8 + 2.0 / 3 + 0) / 3));
    }

    TEST_CASE("MultiRC's F1a: over the candidates of all questions together") {
        const std::vector<std::string> options = {"true", "false"}, others = {"false", "true"};
        const auto f1a = [&](const Answered& all, const std::vector<std::string>& groups, const std::vector<std::string>* last = nullptr) {
            std::vector<const std::string*> names;
            for (const std::string& group : groups) names.push_back(&group);
            std::vector<const std::vector<std::string>*> lists(groups.size(), &options);
            if (last) lists.back() = last;
            return candidates_f1(all.all(), lists, names);
        };
        Answered all;
        all.add("true", "true");    // a
        all.add(" True.", "false");
        all.add("false", "true");
        all.add("true", "true");    // b
        all.add("rubbish", "true");
        all.add("false", "false");
        // 2 true positives, 3 given, 4 wanted: 4/7; of the questions alone 1/2 and 2/3
        const auto found = f1a(all, {"a", "a", "a", "b", "b", "b"});
        REQUIRE(found);
        CHECK(found->f1 == doctest::Approx(4.0 / 7));
        // (2 - 4/7 x 4) / 7 and (2 - 4/7 x 3) / 7
        CHECK(found->variance == doctest::Approx(2 * std::pow(2.0 / 49, 2)));
        CHECK(!f1a(all, {"a", "b", "c", "d", "e", "f"}));
        CHECK(!f1a(all, {"a", "a", "a", "b", "b", ""}));
        CHECK(!f1a(all, {"a", "a", "a", "b", "b", "b"}, &others));
        Answered none;
        none.add("false", "false"), none.add("x", "false");
        CHECK(f1a(none, {"a", "a"})->f1 == 0);
    }

    TEST_CASE("consistency is of whole groups of two at least") {
        const auto found = consistency({"a", "b", "a", "b", "alone", ""}, {1, 1, 1, 0, 1, 0});
        REQUIRE(found);
        CHECK(found->groups == 2);
        CHECK(found->share() == 0.5);
        CHECK(!consistency({"a", "b", "", ""}, {1, 1, 1, 1}));
    }

    TEST_CASE("what a metric cannot be measured on is refused") {
        std::vector<TaskExample> examples(2);
        for (TaskExample& e : examples) e.inputs = "x", e.targets = {"1.0"}, e.file = "f", e.line = 3;
        CHECK(refusal("pearson", examples).empty());
        CHECK(refusal("exact_match", examples).empty());
        CHECK(refusal("accuracy", examples).find("needs options to choose from, an accepted answer among them, with every validation example, but f:3 has '1.0'") != std::string::npos);
        CHECK(refusal("consistency", examples).find("there are no two") != std::string::npos);
        examples[0].group = examples[1].group = "g";
        examples[0].options = examples[1].options = {"1.0", "2.0"};
        CHECK(refusal("consistency", examples).empty());
        CHECK(refusal("macro_f1", examples).empty());
        CHECK(refusal("f1a", examples).empty());
        examples[1].options = {"2.0", "1.0"};
        CHECK(refusal("f1a", examples).find("needs the same two options, the positive one first, and a group with every validation example, but f:3") != std::string::npos);
        examples[1].targets = {"one"};
        CHECK(refusal("spearman", examples).find("needs targets that are numbers, but f:3 has 'one'") != std::string::npos);
    }
}

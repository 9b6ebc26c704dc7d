// Scores: judging, chance, intervals against published and hand-computed values, averages, comparisons.
#include "eval/suites/scores.hpp"

#include "../../data/fixtures.hpp"
#include "eval/suites/compare.hpp"
#include "eval/suites/samples.hpp"

#include <cmath>
#include <fstream>

using namespace flanmoe;
using namespace flanmoe::testing;

namespace {

SuiteTask task_of(const std::string& name, size_t questions, size_t options) {
    SuiteTask task;
    task.suite = "mmlu", task.name = name, task.category = "other", task.rule = AnswerRule::letter;
    for (size_t q = 0; q < questions; ++q) {
        SuiteQuestion question{.id = name + std::to_string(q), .answers = {"B"}};
        for (size_t o = 0; o < options; ++o) question.options.push_back(std::string(1, static_cast<char>('A' + o))), question.choices.push_back("option " + std::to_string(o));
        task.questions.push_back(question);
    }
    return task;
}

std::vector<Sample> answered(const std::vector<SuiteTask>& tasks, const std::vector<std::string>& outputs) {
    std::vector<Sample> samples;
    for (size_t t = 0; t < tasks.size(); ++t)
        for (size_t q = 0; q < tasks[t].questions.size(); ++q) {
            Sample sample{.task = t, .question = q, .output = outputs[samples.size() % outputs.size()]};
            judge(tasks[t], sample);
            samples.push_back(sample);
        }
    return samples;
}

}  // namespace

TEST_SUITE("eval/suites/scores") {
    TEST_CASE("normalised scores of the footnote: 55 over 50 is 10, 45 is -10") {
        CHECK(normalized({55, 50, 60, 4}, 50).value == doctest::Approx(10));
        CHECK(normalized({45, 40, 50, 4}, 50).value == doctest::Approx(-10));
        CHECK(normalized({55, 50, 60, 4}, 50).low == doctest::Approx(0));
        CHECK(normalized({30, 20, 40, 4}, 0).value == doctest::Approx(30));
    }

    TEST_CASE("intervals: Wilson's of 8 in 10 and of 0 in 10, normal ones of means") {
        std::vector<double> values(10, 1.0);
        values[0] = values[1] = 0;
        const Estimate share = mean_of(values, true);  // 0.4901625, 0.9433178: Wilson's formula by hand
        CHECK(share.low == doctest::Approx(49.01625).epsilon(1e-6));
        CHECK(share.high == doctest::Approx(94.33178).epsilon(1e-6));
        CHECK(mean_of(std::vector<double>(10, 0.0), true).high == doctest::Approx(27.75328).epsilon(1e-6));
        const Estimate mean = mean_of(std::vector<Estimate>{{60, 0, 0, 9}, {80, 0, 0, 16}});
        CHECK(mean.value == 70);
        CHECK(mean.high - mean.value == doctest::Approx(1.959963984540054 * 2.5));
    }

    TEST_CASE("a task, its suite, perfect answers and guesses") {
        const std::vector<SuiteTask> tasks = {task_of("anatomy", 4, 4), task_of("virology", 8, 2)};
        const Scores perfect = score_samples(tasks, answered(tasks, {"The answer is (B)."}), Measure::generation);
        CHECK(perfect.suites[0].score.value == 100);
        CHECK(perfect.suites[0].normalized.value == 100);
        const std::vector<SuiteTask> four = {task_of("anatomy", 400, 4)};
        const Scores guess = score_samples(four, answered(four, {"A", "B", "C", "D"}), Measure::generation);
        CHECK(guess.suites[0].score.value == 25);
        CHECK(guess.suites[0].normalized.value == doctest::Approx(0));
        const Scores none = score_samples(tasks, answered(tasks, {""}), Measure::generation);
        CHECK(none.tasks[0].no_answer == 4);
        CHECK(none.suites[0].normalized.value == doctest::Approx((-100.0 / 3 - 100) / 2));  // below guessing stays negative
    }

    TEST_CASE("likelihood: in sum, per token, per byte; the score is what is asked for") {
        std::vector<SuiteTask> tasks = {task_of("anatomy", 1, 3)};
        tasks[0].questions[0].options = {"owl", "a very long option", "ox"};
        tasks[0].questions[0].answers = {"a very long option"};
        Sample sample{.option_log_p = {-3, -8, -4}, .option_tokens = {2, 3, 1}};
        judge(tasks[0], sample);
        CHECK(sample.values[static_cast<size_t>(Measure::likelihood)] == 0.0);  // owl
        CHECK(sample.values[static_cast<size_t>(Measure::per_token)] == 0.0);   // owl: -1.5
        CHECK(sample.values[static_cast<size_t>(Measure::per_byte)] == 1.0);    // -8 / 18
        CHECK(score_samples(tasks, {sample}, Measure::per_byte).tasks[0].score.value == 100);
        CHECK_THROWS_WITH_AS(score_samples(tasks, {sample}, Measure::generation), doctest::Contains("mmlu/anatomy direct is to be 'generation', which 1 of 1 questions lack"), Error);
    }

    TEST_CASE("a measure that is asked for and lacks is refused; without options it is not asked for") {
        std::vector<SuiteTask> tasks = {task_of("anatomy", 2, 2)};
        std::vector<Sample> samples = answered(tasks, {"B"});
        samples[0].option_log_p = {-1, -2}, judge(tasks[0], samples[0]);
        const auto refuses = [&](Measure measure, const char* part) { CHECK_THROWS_WITH_AS(score_samples(tasks, samples, measure), doctest::Contains(part), Error); };
        refuses(Measure::likelihood, "'likelihood', which 1 of 2 questions lack; give each of them option_log_p, or");
        samples[1].option_log_p = {-2, -1}, judge(tasks[0], samples[1]);
        CHECK(score_samples(tasks, samples, Measure::likelihood).tasks[0].score.value == 50);
        refuses(Measure::per_token, "'per_token', which 2 of 2 questions lack; give each of them option_log_p and option_tokens");
        for (SuiteQuestion& question : tasks[0].questions) question.options.clear();
        CHECK(score_samples(tasks, samples, Measure::per_token).tasks[0].main == Measure::generation);
    }

    TEST_CASE("a task whose answers count by F1") {
        std::vector<SuiteTask> tasks = {task_of("squad", 1, 0)};
        tasks[0].rule = AnswerRule::span, tasks[0].written = Measure::f1;
        tasks[0].questions[0].answers = {"the old red mill"};
        const Scores scores = score_samples(tasks, answered(tasks, {"red mill"}), Measure::generation);
        CHECK(scores.tasks[0].score.value == doctest::Approx(80));  // 2 of 2 words, 2 of 3
        CHECK(scores.tasks[0].measures[static_cast<size_t>(Measure::generation)]->value == 0);
        CHECK(prompt_line(tasks[0], {}).find("\"metric\":\"f1\"") != std::string::npos);
    }

    TEST_CASE("correlation of numbers as text, consistency of groups: of the whole task") {
        std::vector<SuiteTask> tasks = {task_of("sick", 5, 0)};
        tasks[0].rule = AnswerRule::span, tasks[0].numbers = true;
        for (size_t q = 0; q < 5; ++q) tasks[0].questions[q].answers = {fmt::format("{}.0", q + 1)}, tasks[0].questions[q].group = q < 2 ? "a" : q < 4 ? "b" : "";
        const Scores scores = score_samples(tasks, answered(tasks, {"1.0", "2.0", "3.0", "many", "5.0"}), Measure::generation);
        const TaskScore& score = scores.tasks[0];
        CHECK(score.score.value == doctest::Approx(80));  // exact match
        CHECK(score.unparsed == 1);
        CHECK(score.groups == 2);
        REQUIRE(score.whole.size() == 3);
        CHECK(score.whole[0].first == "pearson");
        // Answers 1 2 3 -1 5 less their mean 2: -1 0 1 -3 3; wanted -2 -1 0 1 2: 5 / sqrt(20 x 10)
        CHECK(score.whole[0].second.value == doctest::Approx(100 * 5 / std::sqrt(200.0)));
        CHECK(score.whole[1].second.value == doctest::Approx(40));  // ranks 2 3 4 1 5: 1 - 6 x (1 + 1 + 1 + 9 + 0) / (5 x 24)
        CHECK(score.whole[2].first == "consistency");
        CHECK(score.whole[2].second.value == 50);
        CHECK(scores_json(tasks, scores, "m").find("\"consistency\"") != std::string::npos);
        const Estimate r = correlation_estimate(0.8, 28, false);  // Fisher: tanh(1.098612 -+ 1.96 / 5)
        CHECK(r.low == doctest::Approx(60.855263));
        CHECK(r.high == doctest::Approx(90.343602));
        CHECK(correlation_estimate(0.8, 3, false).low == -100);
    }

    TEST_CASE("options that were cut are counted, also in what an interrupted evaluation keeps") {
        const std::vector<SuiteTask> tasks = {task_of("anatomy", 2, 2)};
        std::vector<Sample> samples = answered(tasks, {"B"});
        samples[1].options_cut = true;
        CHECK(parse_answers(answer_line("x", samples[1]) + answer_line("y", samples[0]), "memory").at("x").options_cut);
        const Scores scores = score_samples(tasks, samples, Measure::generation);
        CHECK(scores.tasks[0].options_cut == 1);
        CHECK(scores_json(tasks, scores, "m").find("\"options_cut\": 1") != std::string::npos);
    }

    TEST_CASE("answers that are none are refused with their line") {
        TemporaryFolder folder;
        const std::vector<SuiteTask> tasks = {task_of("anatomy", 2, 4)};
        const std::vector<AskedQuestion> asked = {{.task = 0, .question = 0}, {.task = 0, .question = 1}};
        int64_t missing = 0;
        const auto refuses = [&](const std::string& lines, const char* part, bool missing_wrong = false) {
            std::ofstream(folder.path() / "a.jsonl") << lines;
            missing = 0;
            CHECK_THROWS_WITH_AS(read_answers(folder.path() / "a.jsonl", tasks, asked, missing_wrong, missing), doctest::Contains(part), Error);
        };
        const std::string first = R"({"id": "anatomy0", "output": "B"})", second = R"({"id": "anatomy1", "output": ""})";
        refuses(first + "\n[]\n", "a.jsonl:2 is no JSON object");
        refuses(R"({"output": "B"})", "a.jsonl:1 has no field 'id'");
        refuses(R"({"id": "anatomy0"})", "neither a field 'output'");
        refuses(R"({"id": "anatomy0", "output": 3})", "of another kind");
        refuses(first + "\n" + first, "of a line before it");
        refuses(first, "1 of 2 questions have no answer, the first is 'anatomy1'");
        refuses(first + "\n" + second + "\n" + R"({"id": "x", "output": ""})", "'x' and 0 others are the ids of no question");
        refuses(first + "\n" + R"({"id": "anatomy1", "output": "", "option_log_p": [-1]})", "has 1 values in option_log_p, but 4 options");
        std::ofstream(folder.path() / "a.jsonl") << first;
        missing = 0;
        CHECK(read_answers(folder.path() / "a.jsonl", tasks, asked, true, missing).size() == 2);
        CHECK(missing == 1);
        std::ofstream(folder.path() / "a.jsonl") << R"({"id": "anatomy0", "option_log_p": [-4, -1, -4, -4], "option_tokens": [1, 1, 1, 1]})";
        missing = 0;
        CHECK(score_samples(tasks, read_answers(folder.path() / "a.jsonl", tasks, asked, true, missing), Measure::per_token).tasks[0].score.value == 50);  // wrong by every measure
        refuses(R"({"id": "anatomy0", "option_log_p": [-4, -1, -4, -4], "option_tokens": [1, 1]})", "has 2 values in option_tokens, but 4 options", true);
    }

    TEST_CASE("comparison: paired differences, by hand") {
        TemporaryFolder folder;
        const std::vector<SuiteTask> tasks = {task_of("anatomy", 4, 4), task_of("virology", 2, 4)};
        const auto write = [&](const char* name, const std::vector<std::string>& outputs, size_t count, const std::string& prompt = "") {
            const std::vector<Sample> samples = answered(tasks, outputs);
            std::filesystem::create_directories(folder.path() / name);
            std::ofstream file(folder.path() / name / "samples.jsonl");
            for (size_t i = 0; i < count; ++i) file << sample_line(tasks[samples[i].task], {.task = samples[i].task, .question = samples[i].question, .prompt = prompt}, samples[i], Measure::generation);
        };
        write("first", {"A", "A", "B", "B", "A", "B"}, 6);   // anatomy 2 of 4, virology 1 of 2
        write("second", {"B", "A", "B", "B", "B", "B"}, 6);  // 3 of 4, 2 of 2
        const Comparison both = compare_runs(folder.path() / "first", folder.path() / "second");
        REQUIRE(both.rows.size() == 3);
        CHECK(both.rows[0].difference.value == doctest::Approx(25));
        CHECK(both.rows[0].difference.variance == doctest::Approx(1e4 * 0.1875 / 4));  // differences 1, 0, 0, 0
        CHECK(both.rows[2].first == doctest::Approx(50));
        CHECK(both.rows[2].second == doctest::Approx(87.5));
        CHECK(both.rows[2].difference.value == doctest::Approx(37.5));
        CHECK(both.rows[2].difference.variance == doctest::Approx(1e4 * (0.1875 / 4 + 0.25 / 2) / 4));
        CHECK(compare_runs(folder.path() / "first", folder.path() / "first").rows[2].difference.high == 0);
        write("other", {"B"}, 6, "Answer this:");
        CHECK_THROWS_WITH_AS(compare_runs(folder.path() / "first", folder.path() / "other"), doctest::Contains("'anatomy0' has another prompt in"), Error);
        CHECK(compare_runs(folder.path() / "first", folder.path() / "other", true).other_prompts == 6);
        write("part", {"B"}, 3);
        CHECK(compare_runs(folder.path() / "first", folder.path() / "part").only_first == 3);
        CHECK_THROWS_WITH_AS(compare_runs(folder.path() / "first", folder.path() / "none"), doctest::Contains("is not there"), Error);
    }
}

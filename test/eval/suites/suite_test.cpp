// Suites: golden prompts byte by byte, exemplars, and what is wrong with files that are missing or malformed.
//
// golden/SUITE-MODE.txt (and -0.txt: without exemplars) holds prompts that were written out from the layouts named below and the files of test/data/suites (texts of our own):
//   mmlu direct: hendrycks/test, evaluate.py, gen_prompt and format_example; mmlu cot: jasonwei20/flan-2, mmlu-cot.json; bbh: suzgunmirac/BIG-Bench-Hard, cot-prompts;
//   reasoning: Wei et al. 2022, appendix, tables of full prompts; qa: google-research/FLAN, flan/templates.py, "arc" and "bool_q"; tydiqa: T5's preprocessors.squad with an
//   answer line of ours; mgsm: google-research/url-nlp, mgsm/exemplars.py.
#include "eval/suites/suite.hpp"

#include "../../data/fixtures.hpp"
#include "core/error.hpp"
#include "eval/suites/run.hpp"

#include <fstream>
#include <sstream>

using namespace flanmoe;
using namespace flanmoe::testing;

namespace {

const std::filesystem::path data = "test/data/suites";

SuiteSettings settings_of(const std::vector<std::string>& only) {
    SuiteSettings settings;
    settings.data = data;
    settings.only = only;
    return settings;
}

const std::vector<std::string> all_tasks = {"anatomy", "astronomy", "navigate", "date_understanding", "word_sorting", "sports_understanding", "gsm8k", "svamp", "asdiv", "strategyqa", "aqua",
                                            "arc_easy", "arc_challenge", "openbookqa", "commonsenseqa", "boolq", "english", "finnish", "swahili", "de", "en", "ja"};
std::vector<SuiteTask> all() { return build_suites({"mmlu", "bbh", "reasoning", "qa", "tydiqa", "mgsm"}, settings_of(all_tasks)); }

std::map<std::string, std::string> prompts_of(std::vector<SuiteTask> tasks) {
    std::map<std::string, std::string> prompts;
    for (const AskedQuestion& asked : ask(tasks, nullptr, {})) prompts[tasks[asked.task].questions[asked.question].id] = asked.prompt;
    return prompts;
}

/// id -> prompt of a file of "%%% id" lines, each followed by its prompt and a line feed.
std::map<std::string, std::string> golden(const std::string& name) {
    std::ifstream file("test/eval/suites/golden/" + name + ".txt");
    std::stringstream text;
    text << file.rdbuf();
    std::map<std::string, std::string> prompts;
    const std::string all = "\n" + text.str();
    for (size_t at = all.find("\n%%% "); at != std::string::npos;) {
        const size_t line = all.find('\n', at + 1), next = all.find("\n%%% ", line);
        const size_t end = next == std::string::npos ? all.size() - 1 : next;
        prompts[all.substr(at + 5, line - at - 5)] = all.substr(line + 1, end - line - 1);
        at = next;
    }
    return prompts;
}

void fails(const std::vector<std::string>& names, const SuiteSettings& settings, Exit code, const std::string& part) {
    try {
        build_suites(names, settings);
        FAIL_CHECK("no error that says " << part);
    } catch (const Error& error) {
        CHECK(error.code == code);
        CAPTURE(error.what());
        CHECK(std::string(error.what()).find(part) != std::string::npos);
    }
}

}  // namespace

TEST_SUITE("eval/suites") {
    TEST_CASE("golden prompts: each suite with its own number of exemplars and without any, at least three of every mode, and of every set of reasoning and qa") {
        SuiteSettings none = settings_of(all_tasks);
        none.shots = 0;
        const std::vector<std::string> names = {"mmlu", "bbh", "reasoning", "qa", "tydiqa", "mgsm"};
        const std::map<std::string, std::string> own_shots = prompts_of(all()), zero_shot = prompts_of(build_suites(names, none));
        std::map<std::string, size_t> seen;  // by suite and task
        for (const Suite& suite : suites())
            for (const PromptMode mode : suite.modes)
                for (const bool own : {true, false}) {
                    if (!own && suite.shots == 0) continue;
                    const std::string name = suite.name + "-" + mode_name(mode) + (own ? "" : "-0");
                    CAPTURE(name);
                    const auto expected = golden(name);
                    CHECK(expected.size() >= 3);
                    for (const auto& [id, prompt] : expected) {
                        CAPTURE(id);
                        const auto& prompts = own ? own_shots : zero_shot;
                        REQUIRE(prompts.contains(id));
                        CHECK(prompts.at(id) == prompt);
                        if (own) ++seen[id.substr(0, id.find('/', id.find('/') + 1))];
                    }
                }
        for (const char* task : {"reasoning/gsm8k", "reasoning/svamp", "reasoning/asdiv", "reasoning/strategyqa", "reasoning/aqua", "qa/arc_easy", "qa/arc_challenge", "qa/openbookqa", "qa/commonsenseqa", "qa/boolq"}) {
            CAPTURE(task);
            CHECK(seen[task] == 3);
        }
    }

    TEST_CASE("every suite names what it drops, chance and what counts") {
        std::map<std::string, const SuiteTask*> tasks;
        const std::vector<SuiteTask> built = all();
        for (const SuiteTask& task : built) tasks[task.suite + "/" + task.name + "/" + mode_name(task.mode)] = &task;
        CHECK(tasks.size() == 28);
        CHECK(tasks.at("reasoning/asdiv/cot")->dropped == std::map<std::string, int64_t>{{"answer is not one number", 2}});  // a ratio and a name
        CHECK_FALSE(tasks.at("mgsm/en/cot")->counts);
        CHECK_FALSE(tasks.at("tydiqa/english/direct")->counts);
        CHECK(tasks.at("mmlu/anatomy/direct")->category == "other");
        CHECK(tasks.at("bbh/sports_understanding/direct")->questions[0].options == std::vector<std::string>{"yes", "no"});  // not listed, but all answers are one of them
        CHECK(tasks.at("bbh/word_sorting/direct")->questions[0].options.empty());
        CHECK(tasks.at("bbh/date_understanding/direct")->questions[0].options == std::vector<std::string>{"(A)", "(B)", "(C)"});
        CHECK(tasks.at("mmlu/anatomy/direct")->questions[2].place.find("anatomy_test.csv") != std::string::npos);
        size_t subjects = 0;
        for (const Suite& suite : suites()) subjects += suite.modes.size();
        CHECK(subjects == 8);
    }

    TEST_CASE("shots: fewer, none, another seed, from a file of the user's") {
        SuiteSettings settings = settings_of({"gsm8k"});
        settings.shots = 2;
        CHECK(build_suites({"reasoning"}, settings)[0].shots.size() == 2);
        const std::vector<std::string> first = build_suites({"reasoning"}, settings)[0].shots;
        settings.seed = 3;
        CHECK(build_suites({"reasoning"}, settings)[0].shots != first);
        settings.shots = 0;
        CHECK(build_suites({"reasoning"}, settings)[0].prompt(build_suites({"reasoning"}, settings)[0].questions[0], 0).starts_with("Q: A goat"));
        TemporaryFolder folder;
        std::ofstream(folder.path() / "math.txt") << "Think.\n\nQ: 1 + 1?\nA: Two. The answer is 2.\n\nQ: 2 + 2?\nA: Four.\n\nReally four. The answer is 4.\n";
        settings.shots = -1;
        settings.exemplars["reasoning"] = folder.path();
        const SuiteTask named = build_suites({"reasoning"}, settings)[0];
        CHECK(named.head == "Think.\n\n");
        CHECK(named.shots == std::vector<std::string>{"Q: 1 + 1?\nA: Two. The answer is 2.\n\n", "Q: 2 + 2?\nA: Four.\n\nReally four. The answer is 4.\n\n"});
        settings.shots = 3;
        fails({"reasoning"}, settings, Exit::bad_data, "too few exemplars: 3 are wanted");
    }

    TEST_CASE("exemplars leave from the front until the prompt fits") {
        std::vector<SuiteTask> tasks = build_suites({"mmlu/direct"}, settings_of({"anatomy"}));
        const auto tokenizer = small_tokenizer();
        SuiteRunSettings run;
        const std::string whole = tasks[0].prompt(tasks[0].questions[0], 5), shorter = tasks[0].prompt(tasks[0].questions[0], 3);
        run.eval.max_inputs = static_cast<int64_t>(tokenizer->encode_with_sentinels(shorter).size()) + 1;
        std::vector<AskedQuestion> asked = ask(tasks, tokenizer.get(), run);
        CHECK(asked[0].shots == 3);
        CHECK(asked[0].prompt == shorter);
        CHECK(asked[0].prompt.starts_with("The following are multiple choice questions (with answers) about  anatomy.\n\nWhere is the smallest bone?"));
        run.eval.max_inputs = 5;
        CHECK_THROWS_WITH_AS(ask(tasks, tokenizer.get(), run), doctest::Contains("tokens without any exemplar, 4 fit"), Error);
        CHECK_THROWS_WITH_AS(ask(tasks, tokenizer.get(), run), doctest::Contains("mmlu/anatomy/direct/1 (test/data/suites/mmlu/test/anatomy_test.csv"), Error);
        run.eval.max_inputs = static_cast<int64_t>(tokenizer->encode_with_sentinels(tasks[0].prompt(tasks[0].questions[0], 0)).size()) + 1;
        run.drop_long = true;
        const size_t before = tasks[0].questions.size();
        asked = ask(tasks, tokenizer.get(), run);
        CHECK(asked.size() < before);
        CHECK(static_cast<size_t>(tasks[0].dropped.at("prompt longer than the context")) == before - asked.size());
    }

    TEST_CASE("settings that a suite would ignore are refused by name") {
        SuiteSettings settings = settings_of({"navigate"});
        settings.split = "val";
        fails({"bbh"}, settings, Exit::usage, "suite bbh has one set of questions, without splits, but --split is val");
        settings.only = {"gsm8k"};
        fails({"reasoning"}, settings, Exit::usage, "suite reasoning has one set of questions");
        settings.only = {"commonsenseqa"};
        CHECK(build_suites({"qa"}, settings)[0].questions[0].place.find("dev_rand_split.jsonl") != std::string::npos);
        settings.split = "test";
        fails({"qa"}, settings, Exit::usage, "commonsenseqa has no split 'test' with answers, it has: validation");
        settings.only = {"boolq"};
        fails({"qa"}, settings, Exit::usage, "boolq has no split 'test' with answers, it has: validation");
        settings.only = {"arc_easy"};
        CHECK(build_suites({"qa"}, settings)[0].questions[0].place.find("ARC-Easy-Test.jsonl") != std::string::npos);
        settings.split = "dev";
        fails({"qa"}, settings, Exit::missing_input, "ARC-Easy-Dev.jsonl is not there");
        settings.split = "train", settings.only = {"anatomy"};
        fails({"mmlu"}, settings, Exit::usage, "suite mmlu has no split 'train' with answers; it has: test, validation");
        settings.split = "test", settings.only = {"finnish"};
        fails({"tydiqa"}, settings, Exit::usage, "suite tydiqa has no split 'test' with answers; it has: validation");
        settings.split = "", settings.only = {"anatomy"}, settings.exemplars["mmlu"] = data / "mmlu/mmlu-cot.json";
        fails({"mmlu/direct"}, settings, Exit::usage, "mmlu-cot.json is for mmlu/cot, which is not asked for");
        CHECK(build_suites({"mmlu"}, settings).size() == 2);
        settings.exemplars = {{"tydiqa", data}};
        fails({"tydiqa"}, settings, Exit::usage, "suite tydiqa takes no exemplars from files");
        settings.exemplars.clear(), settings.malformed = MalformedPolicy::skip;
        fails({"configs/task/gsm8k.toml"}, settings, Exit::usage, "leave out --malformed");
    }

    TEST_CASE("a task file whose metric is f1 counts by F1") {
        TemporaryFolder folder;
        std::ofstream(folder.path() / "spans.jsonl") << R"({"id": 1, "question": "Where?", "answer": "in the old mill"})" << "\n";
        std::ofstream(folder.path() / "spans.toml") << "name = \"spans\"\nreader = \"jsonl\"\nmetric = \"f1\"\n[files]\ntest = [\"spans.jsonl\"]\n[[template]]\nname = \"plain\"\n"
                                                       "inputs = \"{{ question }}\"\ntargets = \"{{ answer }}\"\n";
        SuiteSettings settings;
        settings.data = folder.path();
        const std::vector<SuiteTask> tasks = build_suites({(folder.path() / "spans.toml").string()}, settings);
        Sample sample{.output = "in a mill"};
        judge(tasks[0], sample);
        const Scores scores = score_samples(tasks, {sample}, Measure::generation);
        CHECK(scores.tasks[0].main == Measure::f1);
        CHECK(scores.tasks[0].score.value == doctest::Approx(80));
    }

    TEST_CASE("TyDi QA books what it drops on the language") {
        TemporaryFolder folder;
        std::filesystem::create_directories(folder.path() / "tydiqa");
        const auto write = [&](const char* split, const std::string& questions) {
            std::ofstream(folder.path() / "tydiqa" / fmt::format("tydiqa-goldp-v1.1-{}.json", split)) << R"({"data": [{"paragraphs": [{"context": "c", "qas": [)" << questions << "]}]}]}";
        };
        const auto question = [](const std::string& id, const char* answers) { return fmt::format(R"({{"id": "{}", "question": "q", "answers": [{}]}})", id, answers); };
        const char* answer = R"({"text": "a"})";
        write("dev", question("arabic-1", answer) + "," + question("swahili-1", answer) + "," + question("swahili-2", "") + "," + question("swahili-3", "") + R"(, {"question": "q"}, )" + question("telugu-1", ""));
        write("train", question("arabic-7", answer) + "," + question("arabic-8", "") + "," + question("swahili-9", answer));
        SuiteSettings settings;
        settings.data = folder.path();
        fails({"tydiqa"}, settings, Exit::bad_data, "'swahili-2' has no answers");
        settings.malformed = MalformedPolicy::skip;
        const std::vector<SuiteTask> tasks = build_suites({"tydiqa"}, settings);
        REQUIRE(tasks.size() == 2);
        using Reasons = std::map<std::string, int64_t>;
        CHECK(tasks[0].dropped == Reasons{{"malformed exemplar", 1}, {"malformed, of a language that cannot be told", 1}, {"malformed, of the language telugu", 1}});
        CHECK(tasks[1].dropped == Reasons{{"malformed", 2}});
    }

    TEST_CASE("ids that come twice are refused with both places, or skipped and counted") {
        TemporaryFolder folder;
        std::filesystem::create_directories(folder.path() / "arc");
        const std::string line = R"({"id": "1", "question": {"stem": "Q", "choices": [{"text": "a", "label": "A"}]}, "answerKey": "A"})";
        std::ofstream(folder.path() / "arc/ARC-Easy-Test.jsonl") << line << "\n" << line << "\n";
        SuiteSettings settings = settings_of({"arc_easy"});
        settings.data = folder.path();
        fails({"qa"}, settings, Exit::bad_data, "ARC-Easy-Test.jsonl:2 has the id '1' of " + (folder.path() / "arc/ARC-Easy-Test.jsonl").string() + ":1; repair it, or skip");
        settings.malformed = MalformedPolicy::skip;
        const std::vector<SuiteTask> tasks = build_suites({"qa"}, settings);
        CHECK(tasks[0].questions.size() == 1);
        CHECK(tasks[0].dropped.at("malformed") == 1);
    }

    TEST_CASE("what is wrong is said in a sentence") {
        SuiteSettings nowhere = settings_of({});
        nowhere.data = "nowhere";
        for (const char* suite : {"mmlu/direct", "mmlu/cot", "bbh", "reasoning", "qa", "tydiqa", "mgsm"}) fails({suite}, nowhere, Exit::missing_input, "get it from");
        fails({"mmlu"}, settings_of({}), Exit::missing_input, "is not there; get it from github.com/hendrycks/test");  // 55 subjects are missing
        fails({"mmul"}, settings_of({}), Exit::usage, "did you mean mmlu?");
        fails({"qa/cot"}, settings_of({}), Exit::usage, "suite qa has no mode 'cot'");
        fails({"mmlu"}, settings_of({"anatomi"}), Exit::usage, "'anatomi'");
        SuiteSettings many = settings_of({"navigate"});
        many.shots = 4;
        fails({"bbh"}, many, Exit::bad_data, "too few exemplars: 4 are wanted");
        many.shots = 9;
        const std::pair<const char*, const char*> few[] = {{"mmlu/direct", "anatomy"}, {"mmlu/cot", "anatomy"}, {"mgsm", "de"}, {"tydiqa", "finnish"}, {"reasoning", "strategyqa"}};
        for (const auto& [suite, task] : few) many.only = {task}, fails({suite}, many, Exit::bad_data, "too few exemplars: 9 are wanted, ");
        many.only = {}, many.shots = 1000;
        fails({"configs/task/gsm8k.toml"}, many, Exit::bad_data, "too few exemplars: 1000 are wanted, its split train has");
        many.only = {"arc_easy"};
        fails({"qa"}, many, Exit::usage, "asks without exemplars");
        TemporaryFolder folder;
        std::filesystem::create_directories(folder.path() / "arc");
        std::ofstream(folder.path() / "arc/ARC-Easy-Test.jsonl") << R"({"id": "1", "question": {"stem": "Q", "choices": [{"text": "a", "label": "A"}]}, "answerKey": "B"})" << "\n";
        SuiteSettings bad = settings_of({"arc_easy"});
        bad.data = folder.path();
        fails({"qa"}, bad, Exit::bad_data, "answerKey 'B', which is none of its 1 choices");
        bad.malformed = MalformedPolicy::skip;
        fails({"qa"}, bad, Exit::bad_data, "has no question; dropped: 1 with 'malformed'");
        std::filesystem::create_directories(folder.path() / "mgsm");
        std::ofstream(folder.path() / "mgsm/exemplars.py") << "MGSM_EXEMPLARS = {\n 'de': {'1': {'q': 'Frage: x'\n";
        bad.only = {"de"};
        fails({"mgsm"}, bad, Exit::bad_data, "line 3");
    }
}

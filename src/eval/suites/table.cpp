// The table of suites, and the averages over them.
#include "core/error.hpp"
#include "core/nearest.hpp"
#include "data/text_files.hpp"
#include "eval/suites/source.hpp"

#include <algorithm>
#include <set>

namespace flanmoe {

const std::vector<Suite>& suites() {
    using enum PromptMode;
    static const std::vector<Suite> all = {
        {"mmlu", "57 subjects with four options, 5 shots; direct answers are also scored by likelihood", {direct, cot}, 5, {"test", "validation"}, {cot}, build_mmlu},
        {"bbh", "BIG-Bench-Hard: 27 sub-tasks of 23 tasks, 3 shots", {direct, cot}, 3, {}, {direct, cot}, build_bbh},
        {"reasoning", "GSM8K, SVAMP, ASDiv, StrategyQA (AQuA with --only), 8 shots with chains of thought", {cot}, 8, {}, {cot}, build_reasoning},
        {"qa", "ARC easy and challenge, OpenBookQA, CommonsenseQA, BoolQ, without exemplars", {direct}, 0, {"test", "validation"}, {}, build_qa},
        {"tydiqa", "TyDi QA, gold passages, 1 shot of the same language; exact match and F1, mean over the languages but English", {direct}, 1, {"validation"}, {}, build_tydiqa},
        {"mgsm", "GSM8K problems in eleven languages, 8 shots with chains of thought in that language; mean over the languages but English", {cot}, 8, {"test"}, {cot}, build_mgsm},
    };
    return all;
}

const std::vector<SuiteAverage>& suite_averages() {
    using enum PromptMode;
    static const std::vector<SuiteAverage> all = {
        {"flan-moe", "mean of four normalised scores: MMLU direct, BBH direct, reasoning, QA", {{"mmlu", direct}, {"bbh", direct}, {"reasoning", cot}, {"qa", direct}}},
        {"flan-palm", "mean of six normalised scores: MMLU and BBH direct and with chains of thought, TyDi QA, MGSM",
         {{"mmlu", direct}, {"mmlu", cot}, {"bbh", direct}, {"bbh", cot}, {"tydiqa", direct}, {"mgsm", cot}}},
    };
    return all;
}

const Suite& suite_named(const std::string& name) {
    for (const Suite& suite : suites())
        if (suite.name == name) return suite;
    std::vector<std::string> names;
    for (const Suite& suite : suites()) names.push_back(suite.name);
    for (const SuiteAverage& average : suite_averages()) names.push_back(average.name);
    fail(Exit::usage, "there is no suite '{}'{}; give a suite, with /direct or /cot for one mode, an average or a task file (.toml)", name, suggestion(name, names));
}

namespace {

using Wanted = std::vector<std::pair<std::string, PromptMode>>;  ///< suites and modes

/// The split under its one name; Exit::usage if the suite does not have it.
std::string split_of(const Suite& suite, const std::string& asked) {
    const std::string split = asked == "val" || asked == "dev" ? "validation" : asked;
    if (split.empty() || std::find(suite.splits.begin(), suite.splits.end(), split) != suite.splits.end()) return split;
    if (suite.splits.empty()) fail(Exit::usage, "suite {} has one set of questions, without splits, but --split is {}; leave it out", suite.name, asked);
    fail(Exit::usage, "suite {} has no split '{}' with answers; it has: {}", suite.name, asked, joined(suite.splits, ", "));
}

/// Exit::usage for exemplars that no suite which is asked for would read.
void check_exemplars(const Wanted& wanted, const SuiteSettings& settings) {
    for (const auto& [name, path] : settings.exemplars) {
        const Suite& suite = suite_named(name);
        if (suite.exemplar_modes.empty()) fail(Exit::usage, "suite {} takes no exemplars from files; leave out --exemplars {}={}", name, name, path.string());
        const auto reads = [&](const std::pair<std::string, PromptMode>& w) {
            return w.first == name && std::find(suite.exemplar_modes.begin(), suite.exemplar_modes.end(), w.second) != suite.exemplar_modes.end();
        };
        if (std::none_of(wanted.begin(), wanted.end(), reads))
            fail(Exit::usage, "--exemplars {}={} is for {}/{}, which is not asked for; leave it out, or name that suite with --suite", name, path.string(), name, mode_name(suite.exemplar_modes.back()));
    }
}

}  // namespace

std::vector<SuiteTask> build_suites(const std::vector<std::string>& names, const SuiteSettings& settings) {
    std::vector<SuiteTask> tasks;
    Wanted wanted;
    const auto want = [&](const std::string& suite, PromptMode mode) {
        if (std::find(wanted.begin(), wanted.end(), std::pair(suite, mode)) == wanted.end()) wanted.emplace_back(suite, mode);
    };
    for (const std::string& name : names) {
        if (name.ends_with(".toml")) {
            for (SuiteTask& task : build_task_file(name, settings)) tasks.push_back(std::move(task));
            continue;
        }
        const auto average = std::find_if(suite_averages().begin(), suite_averages().end(), [&](const SuiteAverage& a) { return a.name == name; });
        if (average != suite_averages().end()) {
            for (const auto& [suite, mode] : average->parts) want(suite, mode);
            continue;
        }
        const size_t slash = name.find('/');
        const Suite& suite = suite_named(name.substr(0, slash));
        const std::string mode = slash == std::string::npos ? "" : name.substr(slash + 1);
        bool found = false;
        for (const PromptMode m : suite.modes)
            if (mode.empty() || mode == mode_name(m)) want(suite.name, m), found = true;
        if (!found) fail(Exit::usage, "suite {} has no mode '{}'; it has {}{}", suite.name, mode, mode_name(suite.modes[0]), suite.modes.size() > 1 ? " and cot" : "");
    }
    check_exemplars(wanted, settings);
    for (const auto& [name, mode] : wanted) {
        const Suite& suite = suite_named(name);
        SuiteSettings own = settings;
        own.split = split_of(suite, settings.split);
        for (SuiteTask& task : suite.build(mode, own)) tasks.push_back(std::move(task));
    }
    for (const std::string& only : settings.only)
        if (std::none_of(tasks.begin(), tasks.end(), [&](const SuiteTask& t) { return only == t.name || only == t.suite + "/" + t.name; })) {
            std::vector<std::string> present;
            for (const SuiteTask& task : tasks) present.push_back(task.name);
            fail(Exit::usage, "--only names the task '{}', which no suite that is asked for has{}", only, suggestion(only, present));
        }
    std::set<std::string> names_of_tasks;
    for (const SuiteTask& task : tasks)
        if (!names_of_tasks.insert(fmt::format("{}/{}/{}", task.suite, task.name, mode_name(task.mode))).second)
            fail(Exit::usage, "two tasks are called {}/{}; give each of them another name", task.suite, task.name);
    if (tasks.empty()) fail(Exit::usage, "no suite is named; give some with --suite");
    return tasks;
}

std::vector<SuiteAverage> averages_of(const std::vector<SuiteTask>& tasks) {
    std::vector<SuiteAverage> found;
    for (const SuiteAverage& average : suite_averages())
        if (std::all_of(average.parts.begin(), average.parts.end(), [&](const auto& part) {
                return std::any_of(tasks.begin(), tasks.end(), [&](const SuiteTask& t) { return t.suite == part.first && t.mode == part.second; });
            }))
            found.push_back(average);
    return found;
}

}  // namespace flanmoe

// See the header.
#include "eval/suites/compare.hpp"

#include "core/error.hpp"
#include "core/file.hpp"
#include "data/strings.hpp"
#include "eval/json_text.hpp"

#include <algorithm>
#include <map>

namespace flanmoe {

namespace {

using Json = nlohmann::ordered_json;

struct Scored {
    std::string suite, task, mode, measure, answers, prompt;
    bool counted = true;
    double chance = 0, score = 0;  ///< in [0, 1]
};

std::map<std::string, Scored> read_samples(const std::filesystem::path& folder) {
    const std::filesystem::path path = folder / "samples.jsonl";
    if (!std::filesystem::exists(path)) fail(Exit::missing_input, "{} is not there; compare folders that eval --suite ... --out has written", path.string());
    const std::string text = read_file(path);
    std::map<std::string, Scored> samples;
    int64_t number = 0;
    for (const std::string& line : split(text, "\n")) {
        ++number;
        if (trim(line).empty()) continue;
        try {
            const Json json = Json::parse(line);
            const size_t choices = json.at("choices").size();
            samples[json.at("id")] = {json.at("suite"), json.at("task"), json.at("mode"), json.at("measure"), json.at("answers").dump(), json.at("prompt"), json.at("counted"),
                                      choices ? 1 / static_cast<double>(choices) : 0, json.at("score")};
        } catch (const Json::exception&) {
            fail(Exit::bad_data, "{}:{} is no sample of an evaluation; evaluate again into a new folder", path.string(), number);
        }
    }
    return samples;
}

/// The questions of a task in common.
struct Pairs {
    const Scored* of = nullptr;
    std::vector<double> first, second, differences;
    double chance = 0;
};

std::vector<Pairs> pair_up(const std::map<std::string, Scored>& first, const std::map<std::string, Scored>& second, bool other_prompts, Comparison& comparison) {
    std::map<std::string, Pairs> tasks;
    for (const auto& [id, a] : first) {
        const auto found = second.find(id);
        if (found == second.end()) {
            ++comparison.only_first;
            continue;
        }
        const Scored& b = found->second;
        if (a.answers != b.answers) fail(Exit::usage, "the question '{}' has other answers in {} than in {}; compare evaluations of the same data", id, comparison.first, comparison.second);
        if (a.measure != b.measure) fail(Exit::usage, "'{}' is scored by {} in {}, by {} in {}; give both evaluations the same --score", id, a.measure, comparison.first, b.measure, comparison.second);
        if (a.prompt != b.prompt && !other_prompts)
            fail(Exit::usage, "'{}' has another prompt in {} than in {}; compare evaluations with the same exemplars and context, or allow it (--other-prompts)", id, comparison.first, comparison.second);
        comparison.other_prompts += a.prompt != b.prompt;
        Pairs& pairs = tasks[a.suite + "/" + a.mode + "/" + a.task];
        pairs.of = &a;
        pairs.first.push_back(a.score), pairs.second.push_back(b.score), pairs.differences.push_back(b.score - a.score);
        pairs.chance += a.chance;
    }
    for (const auto& [id, b] : second) comparison.only_second += !first.contains(id);
    std::vector<Pairs> all;
    for (auto& [name, pairs] : tasks) {
        pairs.chance /= static_cast<double>(pairs.first.size());
        all.push_back(std::move(pairs));
    }
    return all;
}

ScoreDifference of_task(const Pairs& pairs) {
    return {pairs.of->suite, pairs.of->task, pairs.of->mode, static_cast<int64_t>(pairs.first.size()), mean_of(pairs.first, false).value, mean_of(pairs.second, false).value,
            mean_of(pairs.differences, false)};
}

/// `scale`: of each task's difference and scores, for normalised ones.
ScoreDifference of_tasks(const std::vector<const Pairs*>& tasks, bool normalise) {
    ScoreDifference whole{.suite = tasks[0]->of->suite, .task = "", .mode = tasks[0]->of->mode};
    std::vector<Estimate> parts;
    for (const Pairs* pairs : tasks) {
        ScoreDifference one = of_task(*pairs);
        const double chance = normalise && pairs->chance < 1 ? 100 * pairs->chance : 0;
        whole.items += one.items;
        whole.first += normalized({one.first}, chance).value / static_cast<double>(tasks.size());
        whole.second += normalized({one.second}, chance).value / static_cast<double>(tasks.size());
        const double scale = 100 / (100 - chance);
        parts.push_back({one.difference.value * scale, one.difference.low * scale, one.difference.high * scale, one.difference.variance * scale * scale});
    }
    whole.difference = mean_of(parts);
    return whole;
}

std::vector<const Pairs*> counting(const std::vector<Pairs>& tasks, const std::string& suite, const std::string& mode) {
    std::vector<const Pairs*> counted, all;
    for (const Pairs& pairs : tasks) {
        if (pairs.of->suite != suite || pairs.of->mode != mode) continue;
        all.push_back(&pairs);
        if (pairs.of->counted) counted.push_back(&pairs);
    }
    return counted.empty() ? all : counted;
}

void add_average(const SuiteAverage& average, const std::vector<Pairs>& tasks, Comparison& comparison) {
    ScoreDifference row{.suite = average.name, .task = "", .mode = ""};
    std::vector<Estimate> parts;
    for (const auto& [suite, mode] : average.parts) {
        const std::vector<const Pairs*> of_suite = counting(tasks, suite, mode_name(mode));
        if (of_suite.empty()) return;
        const ScoreDifference part = of_tasks(of_suite, true);
        row.items += part.items;
        row.first += part.first / static_cast<double>(average.parts.size()), row.second += part.second / static_cast<double>(average.parts.size());
        parts.push_back(part.difference);
    }
    row.difference = mean_of(parts);
    comparison.rows.push_back(row);
}

}  // namespace

Comparison compare_runs(const std::filesystem::path& first, const std::filesystem::path& second, bool other_prompts) {
    Comparison comparison{.first = first.string(), .second = second.string()};
    const std::map<std::string, Scored> a = read_samples(first), b = read_samples(second);
    const std::vector<Pairs> tasks = pair_up(a, b, other_prompts, comparison);
    if (tasks.empty()) fail(Exit::usage, "{} and {} have no question in common; compare evaluations of the same suites", first.string(), second.string());
    std::vector<std::pair<std::string, std::string>> suites;
    for (const Pairs& pairs : tasks)
        if (std::pair suite(pairs.of->suite, pairs.of->mode); std::find(suites.begin(), suites.end(), suite) == suites.end()) suites.push_back(suite);
    for (const auto& [suite, mode] : suites) {
        for (const Pairs& pairs : tasks)
            if (pairs.of->suite == suite && pairs.of->mode == mode) comparison.rows.push_back(of_task(pairs));
        comparison.rows.push_back(of_tasks(counting(tasks, suite, mode), false));
    }
    for (const SuiteAverage& average : suite_averages()) add_average(average, tasks, comparison);
    return comparison;
}

std::string comparisons_json(const std::vector<Comparison>& comparisons) {
    Json json = Json::array();
    for (const Comparison& comparison : comparisons) {
        Json one = {{"first", comparison.first}, {"second", comparison.second}, {"only_in_first", comparison.only_first}, {"only_in_second", comparison.only_second}, {"other_prompts", comparison.other_prompts}, {"rows", Json::array()}};
        for (const ScoreDifference& row : comparison.rows)
            one["rows"].push_back({{"suite", row.suite}, {"task", row.task}, {"mode", row.mode}, {"items", row.items}, {"first", row.first}, {"second", row.second},
                                   {"difference", row.difference.value}, {"low", row.difference.low}, {"high", row.difference.high}});
        json.push_back(std::move(one));
    }
    return json_text(json, 1) + "\n";
}

}  // namespace flanmoe

// See the header.
#include "eval/suites/samples.hpp"

#include "core/error.hpp"
#include "core/file.hpp"
#include "data/strings.hpp"
#include "eval/json_text.hpp"

namespace flanmoe {

namespace {

using Json = nlohmann::ordered_json;

Json prompt_json(const SuiteTask& task, const AskedQuestion& asked) {
    const SuiteQuestion& question = task.questions[asked.question];
    Json json;
    json["id"] = question.id;
    json["suite"] = task.suite;
    json["task"] = task.name;
    json["mode"] = mode_name(task.mode);
    json["category"] = task.category;
    json["language"] = task.language;
    json["counted"] = task.counts;
    json["rule"] = rule_name(task.rule);
    json["metric"] = task.written == Measure::f1 ? "f1" : "exact_match";
    json["stop"] = task.stop;
    json["place"] = question.place;
    json["shots"] = asked.shots;
    json["shots_dropped"] = task.shots.size() - asked.shots;
    json["prompt"] = asked.prompt;
    json["answers"] = question.answers;
    json["options"] = question.options;
    json["choices"] = question.choices;
    return json;
}

void put_answer(Json& json, const Sample& sample) {
    if (sample.output) json["output"] = *sample.output, json["ended"] = sample.ended;
    if (!sample.option_log_p.empty()) json["option_log_p"] = sample.option_log_p;
    if (!sample.option_tokens.empty()) json["option_tokens"] = sample.option_tokens;
    if (sample.options_cut) json["options_cut"] = true;
}

Json estimate_json(const Estimate& estimate) { return {{"value", estimate.value}, {"low", estimate.low}, {"high", estimate.high}}; }

Json measures_json(const std::array<std::optional<Estimate>, measure_count>& measures) {
    Json json = Json::object();
    for (size_t m = 0; m < measure_count; ++m)
        if (measures[m]) json[measure_name(static_cast<Measure>(m))] = estimate_json(*measures[m]);
    return json;
}

Json task_json(const TaskScore& score) {
    const SuiteTask& task = *score.task;
    Json json = {{"suite", task.suite}, {"task", task.name}, {"mode", mode_name(task.mode)}, {"category", task.category}, {"counted", task.counts}, {"items", score.items},
                 {"shots", task.shots.size()}, {"rule", rule_name(task.rule)}, {"chance", score.chance}, {"measure", measure_name(score.main)},
                 {"score", estimate_json(score.score)}, {"normalized", estimate_json(score.normalized)}, {"measures", measures_json(score.measures)}};
    for (const auto& [name, estimate] : score.whole) json["whole"][name] = estimate_json(estimate);
    if (task.numbers) json["unparsed"] = score.unparsed;
    if (score.groups > 0) json["groups"] = score.groups;
    json["no_answer"] = score.no_answer;
    json["unfinished"] = score.unfinished;
    json["shots_dropped"] = score.shots_dropped;
    json["options_cut"] = score.options_cut;
    json["records_dropped"] = task.dropped;
    if (task.held_out) json["held_out"] = {{"exact", task.held_out->exact}, {"ngram", task.held_out->ngram}};
    return json;
}

Sample parse_answer(const Json& json) {
    Sample sample;
    if (json.contains("output")) sample.output = json.at("output").get<std::string>();
    if (json.contains("ended")) sample.ended = json.at("ended").get<bool>();
    if (json.contains("option_log_p")) sample.option_log_p = json.at("option_log_p").get<std::vector<double>>();
    if (json.contains("option_tokens")) sample.option_tokens = json.at("option_tokens").get<std::vector<int64_t>>();
    if (json.contains("options_cut")) sample.options_cut = json.at("options_cut").get<bool>();
    return sample;
}

}  // namespace

std::string prompt_line(const SuiteTask& task, const AskedQuestion& asked) { return json_text(prompt_json(task, asked)) + "\n"; }

std::string answer_line(const std::string& id, const Sample& sample) {
    Json json = {{"id", id}};
    put_answer(json, sample);
    return json_text(json) + "\n";
}

std::string sample_line(const SuiteTask& task, const AskedQuestion& asked, const Sample& sample, Measure main) {
    Json json = prompt_json(task, asked);
    put_answer(json, sample);
    if (sample.output) json["extracted"] = sample.extracted;
    for (size_t m = 0; m < measure_count; ++m)
        if (sample.values[m]) json["values"][measure_name(static_cast<Measure>(m))] = *sample.values[m];
    json["measure"] = measure_name(main);
    json["score"] = sample.values[static_cast<size_t>(main)].value();
    return json_text(json) + "\n";
}

std::string scores_json(const std::vector<SuiteTask>& tasks, const Scores& scores, const std::string& model) {
    Json json = {{"model", model}, {"averages", Json::array()}, {"suites", Json::array()}, {"tasks", Json::array()}, {"records_dropped", Json::object()}};
    for (const AverageScore& average : scores.averages) json["averages"].push_back({{"name", average.average.name}, {"about", average.average.about}, {"score", estimate_json(average.score)}});
    for (const SuiteScore& score : scores.suites) {
        Json suite = {{"suite", score.suite}, {"mode", mode_name(score.mode)}, {"tasks", score.tasks}, {"items", score.items}, {"score", estimate_json(score.score)},
                      {"normalized", estimate_json(score.normalized)}, {"measures", measures_json(score.measures)}};
        for (const auto& [name, estimate] : score.categories) suite["categories"][name] = estimate_json(estimate);
        suite["mean_over_categories"] = estimate_json(score.over_categories);
        json["suites"].push_back(std::move(suite));
    }
    for (const TaskScore& score : scores.tasks) json["tasks"].push_back(task_json(score));
    for (const SuiteTask& task : tasks)
        for (const auto& [reason, count] : task.dropped) json["records_dropped"][reason] = json["records_dropped"].value(reason, int64_t{0}) + count;
    return json_text(json, 1) + "\n";
}

std::map<std::string, Sample> parse_answers(const std::string& text, const std::string& origin) {
    std::map<std::string, Sample> answers;
    int64_t number = 0;
    for (const std::string& line : split(text, "\n")) {
        ++number;
        if (trim(line).empty()) continue;
        const auto refuse = [&](const std::string& what) { fail(Exit::bad_data, "{}:{} {}; a line of answers is {{\"id\": \"...\", \"output\": \"...\"}}", origin, number, what); };
        const Json json = Json::parse(line, nullptr, false);
        if (!json.is_object()) refuse("is no JSON object");
        if (!json.contains("id") || !json["id"].is_string()) refuse("has no field 'id' (a text)");
        if (!json.contains("output") && !json.contains("option_log_p")) refuse("has neither a field 'output' nor 'option_log_p'");
        try {
            if (!answers.emplace(json["id"].get<std::string>(), parse_answer(json)).second) refuse("has the id '" + json["id"].get<std::string>() + "' of a line before it");
        } catch (const Json::exception&) {
            refuse("has a field of another kind: output is a text, ended and options_cut true or false, option_log_p and option_tokens lists of numbers");
        }
    }
    return answers;
}

std::vector<Sample> read_answers(const std::filesystem::path& path, const std::vector<SuiteTask>& tasks, const std::vector<AskedQuestion>& asked, bool missing_wrong, int64_t& missing) {
    std::map<std::string, Sample> answers = parse_answers(read_file(path), path.string());
    std::vector<Sample> samples;
    std::string first_missing;
    for (const AskedQuestion& a : asked) {
        const SuiteTask& task = tasks[a.task];
        const SuiteQuestion& question = task.questions[a.question];
        const auto found = answers.find(question.id);
        Sample sample;
        if (found != answers.end()) {
            sample = std::move(found->second);
            answers.erase(found);
        } else {
            if (missing++ == 0) first_missing = question.id;
            sample.output = "";
            if (!question.options.empty())
                for (const Measure measure : {Measure::likelihood, Measure::per_token, Measure::per_byte}) sample.values[static_cast<size_t>(measure)] = 0;
        }
        for (const auto& [name, count] : {std::pair("option_log_p", sample.option_log_p.size()), std::pair("option_tokens", sample.option_tokens.size())})
            if (count > 0 && count != question.options.size())
                fail(Exit::bad_data, "{}: '{}' has {} values in {}, but {} options; give one an option, or leave it out", path.string(), question.id, count, name, question.options.size());
        sample.task = a.task, sample.question = a.question, sample.shots = a.shots;
        judge(task, sample);
        samples.push_back(std::move(sample));
    }
    if (!answers.empty()) fail(Exit::bad_data, "{}: '{}' and {} others are the ids of no question that is asked; name the suites and options that the prompts were written with", path.string(), answers.begin()->first, answers.size() - 1);
    if (missing > 0 && !missing_wrong)
        fail(Exit::bad_data, "{}: {} of {} questions have no answer, the first is '{}'; add them, or count them as wrong (--missing wrong)", path.string(), missing, asked.size(), first_missing);
    return samples;
}

}  // namespace flanmoe

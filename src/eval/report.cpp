#include "eval/report.hpp"

#include "eval/json_text.hpp"

namespace flanmoe {

namespace {

using Json = nlohmann::ordered_json;

struct Value {
    const char* name;
    std::optional<double> TaskResult::* member;
};
constexpr Value values[] = {
    {"loss", &TaskResult::loss},     {"exact_match", &TaskResult::exact_match}, {"f1", &TaskResult::f1},
    {"rouge1", &TaskResult::rouge1}, {"rouge2", &TaskResult::rouge2},           {"rouge_l", &TaskResult::rouge_l},
    {"accuracy", &TaskResult::accuracy}, {"accuracy_by_length", &TaskResult::accuracy_by_length},
    {"macro_f1", &TaskResult::macro_f1}, {"f1a", &TaskResult::f1a},             {"pearson", &TaskResult::pearson},
    {"spearman", &TaskResult::spearman}, {"consistency", &TaskResult::consistency},
};

Json task_json(const TaskResult& task) {
    Json json;
    json["task"] = task.name;
    json["file"] = task.file;
    json["examples"] = task.examples.size();
    for (const Value& value : values)
        if (const auto& found = task.*value.member) json[value.name] = *found;
    if (task.pearson) json["unparsed"] = task.unparsed;
    if (task.consistency) json["groups"] = task.groups;
    json["majority"] = task.majority;
    json["majority_answer"] = task.majority_answer;
    json["with_options"] = task.with_options;
    json["unanswerable"] = task.unanswerable;
    json["inputs_cut"] = task.inputs_cut;
    json["targets_cut"] = task.targets_cut;
    json["unfinished"] = task.unfinished;
    json["malformed"] = task.malformed;
    return json;
}

}  // namespace

std::string answers_jsonl(const TaskResult& task) {
    std::string lines;
    for (size_t i = 0; i < task.examples.size(); ++i) {
        const TaskExample& example = task.examples[i];
        const Answer& answer = task.answers[i];
        Json json;
        json["task"] = task.name;
        json["line"] = example.line;
        json["inputs"] = example.inputs;
        json["targets"] = example.targets;
        if (!example.group.empty()) json["group"] = example.group;
        if (task.exact_match) {
            json["output"] = answer.output;
            json["ended"] = answer.ended;
            json["exact_match"] = answer.scores.exact_match;
            json["f1"] = answer.scores.f1;
            json["rouge1"] = answer.scores.rouge1;
            json["rouge2"] = answer.scores.rouge2;
            json["rouge_l"] = answer.scores.rouge_l;
        }
        if (task.loss) {
            json["nll"] = answer.nll;
            json["target_tokens"] = answer.target_tokens;
        }
        if (answer.choice >= 0) {
            json["options"] = example.options;
            json["option_log_p"] = answer.option_log_p;
            json["option_tokens"] = answer.option_tokens;
            json["choice"] = answer.choice;
            json["choice_by_length"] = answer.choice_by_length;
            json["chosen_right"] = answer.chosen_right;
            json["chosen_right_by_length"] = answer.chosen_right_by_length;
        }
        if (answer.input_cut) json["input_cut"] = true;
        if (answer.target_cut) json["target_cut"] = true;
        lines += json_text(json) + "\n";
    }
    return lines;
}

std::string summary_json(const std::vector<TaskResult>& tasks, const std::string& checkpoint) {
    Json json;
    json["checkpoint"] = checkpoint;
    json["tasks"] = Json::array();
    double majority = 0;
    int64_t examples = 0;
    for (const TaskResult& task : tasks) {
        json["tasks"].push_back(task_json(task));
        majority += task.majority / static_cast<double>(tasks.size());
        examples += static_cast<int64_t>(task.examples.size());
    }
    Json& mean = json["mean"];
    mean["tasks"] = tasks.size();
    mean["examples"] = examples;
    for (const Value& value : values)
        if (const auto found = mean_over_tasks(tasks, value.member)) mean[value.name] = *found;
    mean["majority"] = majority;
    return json_text(json, 1) + "\n";
}

}  // namespace flanmoe

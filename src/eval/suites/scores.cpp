// See the header.
#include "eval/suites/scores.hpp"

#include "core/error.hpp"
#include "eval/task_metrics.hpp"
#include "eval/text_metrics.hpp"

#include <algorithm>
#include <cmath>

namespace flanmoe {

namespace {

constexpr double z95 = 1.959963984540054;

Estimate around(double value, double variance) {
    const double half = z95 * std::sqrt(variance);
    return {value, value - half, value + half, variance};
}

/// The first of the best options, by log-probability over `length`.
template <class Length>
size_t best_option(const std::vector<double>& log_p, const Length& length) {
    size_t best = 0;
    for (size_t o = 1; o < log_p.size(); ++o)
        if (log_p[o] / length(o) > log_p[best] / length(best)) best = o;
    return best;
}

void judge_output(const SuiteTask& task, const SuiteQuestion& question, Sample& sample) {
    sample.extracted = extract_answer(task.rule, *sample.output, task.stop, question.choices);
    if (task.rule == AnswerRule::span) {
        const TextScores scores = score_text(sample.extracted, question.answers);
        sample.values[static_cast<size_t>(Measure::generation)] = scores.exact_match;
        sample.values[static_cast<size_t>(Measure::f1)] = scores.f1;
        return;
    }
    bool right = false;
    for (const std::string& answer : question.answers) right |= canonical_answer(task.rule, answer, question.choices) == sample.extracted;
    sample.values[static_cast<size_t>(Measure::generation)] = right && !sample.extracted.empty();
}

void judge_options(const SuiteQuestion& question, Sample& sample) {
    const auto right = [&](size_t option) {
        return static_cast<double>(std::find(question.answers.begin(), question.answers.end(), question.options[option]) != question.answers.end());
    };
    const std::vector<double>& log_p = sample.option_log_p;
    sample.values[static_cast<size_t>(Measure::likelihood)] = right(best_option(log_p, [](size_t) { return 1.0; }));
    sample.values[static_cast<size_t>(Measure::per_byte)] = right(best_option(log_p, [&](size_t o) { return static_cast<double>(std::max<size_t>(1, question.options[o].size())); }));
    if (sample.option_tokens.size() == log_p.size())
        sample.values[static_cast<size_t>(Measure::per_token)] = right(best_option(log_p, [&](size_t o) { return static_cast<double>(sample.option_tokens[o]); }));
}

Measure main_measure(const SuiteTask& task, const std::vector<const Sample*>& samples, Measure asked) {
    const bool options = std::all_of(samples.begin(), samples.end(), [&](const Sample* s) { return !task.questions[s->question].options.empty(); });
    return options && asked != Measure::generation ? asked : task.written;
}

[[noreturn]] void refuse_score(const SuiteTask& task, Measure measure, size_t lacking, size_t questions) {
    const bool written = measure == task.written;
    fail(Exit::usage, "the score of {}/{} {} is to be '{}', which {} of {} questions lack; {}, or choose another --score", task.suite, task.name, mode_name(task.mode), measure_name(measure), lacking,
         questions, written ? "give each of them an output" : measure == Measure::per_token ? "give each of them option_log_p and option_tokens" : "give each of them option_log_p");
}

// What is no mean over questions.
void add_whole(const SuiteTask& task, const std::vector<const Sample*>& samples, TaskScore& score) {
    std::vector<Prediction> predictions;
    std::vector<const std::string*> groups;
    std::vector<const std::vector<std::string>*> choices;
    std::vector<double> right;
    for (const Sample* sample : samples) {
        const SuiteQuestion& question = task.questions[sample->question];
        const std::optional<double>& value = sample->values[static_cast<size_t>(Measure::generation)];
        if (!value) return;
        predictions.push_back({&sample->extracted, &question.answers});
        groups.push_back(&question.group);
        choices.push_back(&question.choices);
        right.push_back(*value);
    }
    if (const auto numbers = task.numbers ? score_numbers(predictions) : std::nullopt) {
        score.whole.emplace_back("pearson", correlation_estimate(numbers->pearson, score.items, false));
        score.whole.emplace_back("spearman", correlation_estimate(numbers->spearman, score.items, true));
        score.unparsed = numbers->unparsed;
    }
    if (const auto found = candidates_f1(predictions, choices, groups)) score.whole.emplace_back("f1a", around(100 * found->f1, 1e4 * found->variance));
    if (const auto found = group_consistency(groups, right)) {
        std::vector<double> values(static_cast<size_t>(found->groups), 0.0);
        std::fill_n(values.begin(), found->consistent, 1.0);
        score.whole.emplace_back("consistency", mean_of(values, true));
        score.groups = found->groups;
    }
}

TaskScore score_task(const SuiteTask& task, const std::vector<const Sample*>& samples, Measure main) {
    TaskScore score;
    score.task = &task;
    score.items = static_cast<int64_t>(samples.size());
    std::array<std::vector<double>, measure_count> values;
    double chance = 0;
    for (const Sample* sample : samples) {
        for (size_t m = 0; m < measure_count; ++m)
            if (sample->values[m]) values[m].push_back(*sample->values[m]);
        const size_t choices = task.questions[sample->question].choices.size();
        if (choices > 0) chance += 1 / static_cast<double>(choices);
        score.no_answer += sample->output && sample->extracted.empty();
        score.unfinished += sample->output && !sample->ended;
        score.shots_dropped += static_cast<int64_t>(task.shots.size() - sample->shots);
        score.options_cut += sample->options_cut;
    }
    score.chance = 100 * chance / static_cast<double>(samples.size());
    for (size_t m = 0; m < measure_count; ++m)
        if (values[m].size() == samples.size()) score.measures[m] = mean_of(values[m], m != static_cast<size_t>(Measure::f1));
    const auto has = [&](Measure m) { return score.measures[static_cast<size_t>(m)].has_value(); };
    score.main = main_measure(task, samples, main);
    if (!has(score.main)) refuse_score(task, score.main, samples.size() - values[static_cast<size_t>(score.main)].size(), samples.size());
    score.score = *score.measures[static_cast<size_t>(score.main)];
    score.normalized = normalized(score.score, score.chance);
    add_whole(task, samples, score);
    return score;
}

SuiteScore score_suite(const std::string& suite, PromptMode mode, const std::vector<TaskScore>& tasks) {
    std::vector<const TaskScore*> counted;
    for (const TaskScore& t : tasks)
        if (t.task->suite == suite && t.task->mode == mode && t.task->counts) counted.push_back(&t);
    if (counted.empty())  // only tasks were asked for that do not count; then they do
        for (const TaskScore& t : tasks)
            if (t.task->suite == suite && t.task->mode == mode) counted.push_back(&t);
    SuiteScore score{.suite = suite, .mode = mode, .tasks = static_cast<int64_t>(counted.size())};
    if (std::all_of(counted.begin(), counted.end(), [](const TaskScore* t) { return t->task->held_out.has_value(); })) {
        score.held_out.emplace();
        for (const TaskScore* t : counted) score.held_out->exact += t->task->held_out->exact, score.held_out->ngram += t->task->held_out->ngram;
    }
    const auto mean = [&](const auto& of) {
        std::vector<Estimate> parts;
        for (const TaskScore* t : counted) parts.push_back(of(*t));
        return mean_of(parts);
    };
    score.score = mean([](const TaskScore& t) { return t.score; });
    score.normalized = mean([](const TaskScore& t) { return t.normalized; });
    for (size_t m = 0; m < measure_count; ++m)
        if (std::all_of(counted.begin(), counted.end(), [&](const TaskScore* t) { return t->measures[m].has_value(); }))
            score.measures[m] = mean([&](const TaskScore& t) { return *t.measures[m]; });
    std::vector<std::pair<std::string, std::vector<Estimate>>> categories;
    for (const TaskScore* t : counted) {
        score.items += t->items;
        auto found = std::find_if(categories.begin(), categories.end(), [&](const auto& c) { return c.first == t->task->category; });
        if (found == categories.end()) found = categories.insert(categories.end(), {t->task->category, {}});
        found->second.push_back(t->score);
    }
    std::vector<Estimate> means;
    for (const auto& [name, scores] : categories) score.categories.emplace_back(name, means.emplace_back(mean_of(scores)));
    score.over_categories = mean_of(means);
    return score;
}

}  // namespace

const char* measure_name(Measure measure) {
    constexpr const char* names[measure_count] = {"generation", "likelihood", "per_token", "per_byte", "f1"};
    return names[static_cast<size_t>(measure)];
}

void judge(const SuiteTask& task, Sample& sample) {
    const SuiteQuestion& question = task.questions[sample.question];
    if (sample.output) judge_output(task, question, sample);
    if (!sample.option_log_p.empty()) judge_options(question, sample);
}

Estimate mean_of(const std::vector<double>& values, bool share) {
    const auto n = static_cast<double>(values.size());
    double sum = 0, squares = 0;
    for (const double v : values) sum += v, squares += v * v;
    const double mean = sum / n, variance = std::max(0.0, squares / n - mean * mean) / n;
    if (!share) return around(100 * mean, 1e4 * variance);
    const double z2 = z95 * z95, centre = (mean + z2 / (2 * n)) / (1 + z2 / n), half = z95 / (1 + z2 / n) * std::sqrt(variance + z2 / (4 * n * n));
    return {100 * mean, 100 * (centre - half), 100 * (centre + half), 1e4 * variance};
}

Estimate mean_of(const std::vector<Estimate>& parts) {
    if (parts.size() == 1) return parts[0];
    const auto n = static_cast<double>(parts.size());
    double sum = 0, variance = 0;
    for (const Estimate& part : parts) sum += part.value, variance += part.variance;
    return around(sum / n, variance / (n * n));
}

Estimate correlation_estimate(double r, int64_t pairs, bool ranks) {
    const auto n = static_cast<double>(pairs);
    if (pairs < 4) return {100 * r, -100, 100, 1e4};
    const double spread = (ranks ? 1 + r * r / 2 : 1) / (n - 3), inside = std::clamp(r, -1 + 1e-12, 1 - 1e-12);
    const double z = std::atanh(inside), half = z95 * std::sqrt(spread);
    return {100 * r, 100 * std::tanh(z - half), 100 * std::tanh(z + half), 1e4 * (1 - r * r) * (1 - r * r) * spread};
}

Estimate normalized(const Estimate& score, double chance) {
    if (chance >= 100) return score;
    const double scale = 100 / (100 - chance);
    return {(score.value - chance) * scale, (score.low - chance) * scale, (score.high - chance) * scale, score.variance * scale * scale};
}

Scores score_samples(const std::vector<SuiteTask>& tasks, const std::vector<Sample>& samples, Measure main) {
    std::vector<std::vector<const Sample*>> of_task(tasks.size());
    for (const Sample& sample : samples) of_task[sample.task].push_back(&sample);
    Scores scores;
    for (size_t t = 0; t < tasks.size(); ++t)
        if (!of_task[t].empty()) scores.tasks.push_back(score_task(tasks[t], of_task[t], main));
    for (const TaskScore& task : scores.tasks) {
        const auto same = [&](const SuiteScore& s) { return s.suite == task.task->suite && s.mode == task.task->mode; };
        if (std::none_of(scores.suites.begin(), scores.suites.end(), same)) scores.suites.push_back(score_suite(task.task->suite, task.task->mode, scores.tasks));
    }
    for (const SuiteAverage& average : averages_of(tasks)) {
        std::vector<Estimate> parts;
        for (const auto& [suite, mode] : average.parts)
            for (const SuiteScore& score : scores.suites)
                if (score.suite == suite && score.mode == mode) parts.push_back(score.normalized);
        if (parts.size() == average.parts.size()) scores.averages.push_back({average, mean_of(parts)});
    }
    return scores;
}

}  // namespace flanmoe

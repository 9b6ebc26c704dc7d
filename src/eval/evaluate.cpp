// Every example becomes sequences of tokens: its input, the first accepted answer, its options. Three passes over all of them follow (loss and options
// by teacher forcing in one, generation in another), then everything is summed per task in order.
#include "eval/evaluate.hpp"

#include "core/parallel.hpp"
#include "data/tasks.hpp"

#include <algorithm>
#include <map>
#include <set>

namespace flanmoe {

namespace {

// One target to be scored after one input.
struct Scored {
    size_t input;
    Tokens target;
    double log_p = 0;
};

class Evaluation {
public:
    Evaluation(Context& context, const Transformer& model, const Tokenizer& tokenizer, std::vector<TaskResult>& tasks, const EvalSettings& settings)
        : context_(context), model_(model), tokenizer_(tokenizer), settings_(settings), eos_(static_cast<int32_t>(model.config().eos_id)) {
        if (settings.max_inputs < 1 || settings.max_targets < 1) fail(Exit::usage, "inputs and targets need at least one token; raise max_inputs or max_targets");
        tokenizer.check_fits(model.config().vocab_size, model.config().pad_id, model.config().eos_id);
        for (TaskResult& task : tasks) {
            task.answers.assign(task.examples.size(), {});
            for (size_t i = 0; i < task.examples.size(); ++i) examples_.push_back(&task.examples[i]), answers_.push_back(&task.answers[i]);
        }
    }

    void run() {
        tokenize();
        const size_t score_work = scored_.size(), generate_work = settings_.generate ? 2 * examples_.size() : 0;
        work_ = static_cast<double>(std::max<size_t>(1, score_work + generate_work));
        score();
        if (settings_.generate) generate_answers();
    }

private:
    // Tokens of a text, with the end mark unless `open`; whether it had to be cut.
    Tokens encode(const std::string& text, int64_t most, bool open, bool& cut) const {
        Tokens ids = tokenizer_.encode_with_sentinels(text);
        if (const auto room = static_cast<size_t>(most - !open); ids.size() > room) {
            cut = true;
            ids.resize(room);
        }
        if (!open) ids.push_back(eos_);
        return ids;
    }

    void tokenize() {
        inputs_.resize(examples_.size());
        std::vector<std::vector<Tokens>> targets(examples_.size());  // the first accepted answer, then the options
        parallel_for(static_cast<int64_t>(examples_.size()), 64, [&](int64_t begin, int64_t end) {
            for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
                inputs_[i] = encode(examples_[i]->inputs, settings_.max_inputs, settings_.open_inputs, answers_[i]->input_cut);
                if (settings_.loss) targets[i].push_back(encode(examples_[i]->targets[0], settings_.max_targets, false, answers_[i]->target_cut));
                if (!settings_.options) continue;
                for (const std::string& option : examples_[i]->options) targets[i].push_back(encode(option, settings_.max_targets, false, answers_[i]->target_cut));
            }
        });
        for (size_t i = 0; i < targets.size(); ++i)
            for (Tokens& target : targets[i]) scored_.push_back({i, std::move(target), 0});
    }

    void report(size_t done, const char* what) {
        if (settings_.progress) settings_.progress(std::min(1.0, static_cast<double>(done) / work_), what);
    }

    void score() {
        std::vector<const Tokens*> inputs;
        for (const Scored& s : scored_) inputs.push_back(&inputs_[s.input]);
        size_t done = 0;
        for (const std::vector<size_t>& rows : batches_by_length(inputs, settings_.batch)) {
            score_batch(rows);
            report(done += rows.size(), "scoring");
        }
        // What was appended in the order of examples is read back in the same order.
        size_t at = 0;
        for (size_t i = 0; i < examples_.size(); ++i) {
            Answer& answer = *answers_[i];
            if (settings_.loss) {
                answer.nll = -scored_[at].log_p;
                answer.target_tokens = static_cast<int64_t>(scored_[at++].target.size());
            }
            if (!settings_.options) continue;
            for (size_t o = 0; o < examples_[i]->options.size(); ++o, ++at) {
                answer.option_log_p.push_back(scored_[at].log_p);
                answer.option_tokens.push_back(static_cast<int64_t>(scored_[at].target.size()));
            }
            choose_option(*examples_[i], answer);
        }
        scored_done_ = done;
    }

    void score_batch(const std::vector<size_t>& rows) {
        std::vector<const Tokens*> inputs, targets;
        for (const size_t s : rows) inputs.push_back(&inputs_[scored_[s].input]), targets.push_back(&scored_[s].target);
        const Batch batch = scoring_batch(model_.config(), inputs, targets);
        Pass pass = evaluation_pass(context_, model_);
        std::vector<double> nll;
        model_.evaluate(pass, batch, &nll);
        for (size_t r = 0; r < rows.size(); ++r) {
            double sum = 0;
            const auto row = nll.begin() + static_cast<std::ptrdiff_t>(r) * batch.decoder_length;  // 0 where nothing is to be predicted
            for (int64_t t = 0; t < batch.decoder_length; ++t) sum += row[t];
            scored_[rows[r]].log_p = -sum;
        }
    }

    static void choose_option(const TaskExample& example, Answer& answer) {
        if (answer.option_log_p.empty()) return;
        size_t best = 0, best_by_length = 0;
        const auto per_token = [&](size_t o) { return answer.option_log_p[o] / static_cast<double>(answer.option_tokens[o]); };
        for (size_t o = 1; o < answer.option_log_p.size(); ++o) {
            if (answer.option_log_p[o] > answer.option_log_p[best]) best = o;
            if (per_token(o) > per_token(best_by_length)) best_by_length = o;
        }
        const auto right = [&](size_t o) { return std::find(example.targets.begin(), example.targets.end(), example.options[o]) != example.targets.end(); };
        answer.choice = static_cast<int64_t>(best), answer.choice_by_length = static_cast<int64_t>(best_by_length);
        for (size_t o = 0; o < example.options.size(); ++o) answer.answerable |= right(o);
        answer.chosen_right = right(best), answer.chosen_right_by_length = right(best_by_length);
    }

    void generate_answers() {
        std::vector<const Tokens*> inputs;
        for (const Tokens& input : inputs_) inputs.push_back(&input);
        GenerationSettings settings = settings_.generation;
        settings.valid_ids = tokenizer_.size();
        settings.scores = false;
        BatchLimits limits = settings_.batch;
        limits.rows = std::max<int64_t>(1, limits.rows / settings.beams), limits.tokens = std::max<int64_t>(1, limits.tokens / settings.beams);
        size_t done = 0;
        for (const std::vector<size_t>& rows : batches_by_length(inputs, limits)) {
            std::vector<const Tokens*> chosen;
            for (const size_t i : rows) chosen.push_back(inputs[i]);
            const std::vector<Generated> generated = generate(context_, model_, input_batch(model_.config(), chosen), settings);
            parallel_for(static_cast<int64_t>(rows.size()), 16, [&](int64_t begin, int64_t end) {
                for (auto r = static_cast<size_t>(begin); r < static_cast<size_t>(end); ++r) {
                    Answer& answer = *answers_[rows[r]];
                    answer.output = tokenizer_.decode(generated[r].ids);
                    answer.ended = generated[r].ended;
                    answer.scores = score_text(answer.output, examples_[rows[r]]->targets);
                }
            });
            report(scored_done_ + 2 * (done += rows.size()), "generating");
        }
    }

    Context& context_;
    const Transformer& model_;
    const Tokenizer& tokenizer_;
    const EvalSettings& settings_;
    int32_t eos_;
    std::vector<const TaskExample*> examples_;  // of all tasks
    std::vector<Answer*> answers_;
    std::vector<Tokens> inputs_;
    std::vector<Scored> scored_;
    size_t scored_done_ = 0;
    double work_ = 1;
};

// The answer that most examples accept, compared as exact match does, and the share that it gets right.
void find_majority(TaskResult& task) {
    std::map<std::string, int64_t> accepted;
    for (const TaskExample& example : task.examples) {
        std::set<std::string> distinct;
        for (const std::string& target : example.targets) distinct.insert(normalized(target));
        for (const std::string& answer : distinct) ++accepted[answer];
    }
    int64_t most = 0;
    for (const auto& [answer, count] : accepted)
        if (count > most) most = count, task.majority_answer = answer;
    task.majority = static_cast<double>(most) / static_cast<double>(task.examples.size());
}

void summarize(TaskResult& task, const EvalSettings& settings) {
    double nll = 0, tokens = 0, right = 0, right_by_length = 0;
    TextScores sums;
    for (const Answer& a : task.answers) {
        nll += a.nll, tokens += static_cast<double>(a.target_tokens);
        sums.exact_match += a.scores.exact_match, sums.f1 += a.scores.f1;
        sums.rouge1 += a.scores.rouge1, sums.rouge2 += a.scores.rouge2, sums.rouge_l += a.scores.rouge_l;
        task.with_options += a.choice >= 0;
        task.unanswerable += a.choice >= 0 && !a.answerable;
        right += a.chosen_right, right_by_length += a.chosen_right_by_length;
        task.inputs_cut += a.input_cut, task.targets_cut += a.target_cut;
        task.unfinished += settings.generate && !a.ended;
    }
    const auto n = static_cast<double>(task.examples.size());
    if (settings.loss) task.loss = nll / tokens;
    if (settings.generate) {
        task.exact_match = sums.exact_match / n, task.f1 = sums.f1 / n;
        task.rouge1 = sums.rouge1 / n, task.rouge2 = sums.rouge2 / n, task.rouge_l = sums.rouge_l / n;
    }
    if (task.with_options > 0) {
        task.accuracy = right / static_cast<double>(task.with_options);
        task.accuracy_by_length = right_by_length / static_cast<double>(task.with_options);
    }
    find_majority(task);
}

void evaluate(Context& context, const Transformer& model, const Tokenizer& tokenizer, std::vector<TaskResult>& tasks, const EvalSettings& settings) {
    Evaluation(context, model, tokenizer, tasks, settings).run();
    for (TaskResult& task : tasks) summarize(task, settings);
}

std::vector<TaskResult> read_tasks(const std::vector<std::string>& paths, const EvalSettings& settings) {
    if (paths.empty()) fail(Exit::usage, "no task file is named; give at least one JSONL file or a folder of them");
    std::vector<TaskResult> tasks;
    for (const TaskFile& file : find_tasks(paths)) {
        TaskResult task;
        task.file = file.path.string();
        task.name = file.name;
        ExampleCounts counts;
        task.examples = read_examples({task.file}, settings.keys, settings.malformed, &counts);
        task.malformed = counts.malformed;
        if (settings.limit > 0 && static_cast<int64_t>(task.examples.size()) > settings.limit) task.examples.resize(static_cast<size_t>(settings.limit));
        tasks.push_back(std::move(task));
    }
    return tasks;
}

}  // namespace

std::vector<TaskResult> evaluate_files(Context& context, const Transformer& model, const Tokenizer& tokenizer, const std::vector<std::string>& paths,
                                       const EvalSettings& settings) {
    std::vector<TaskResult> tasks = read_tasks(paths, settings);
    evaluate(context, model, tokenizer, tasks, settings);
    return tasks;
}

TaskResult evaluate_examples(Context& context, const Transformer& model, const Tokenizer& tokenizer, std::vector<TaskExample> examples,
                             const EvalSettings& settings, std::string name) {
    if (examples.empty()) fail(Exit::bad_data, "there are no examples to evaluate; name a task file that has some");
    std::vector<TaskResult> tasks(1);
    tasks[0].name = std::move(name);
    tasks[0].file = examples[0].file;
    tasks[0].examples = std::move(examples);
    evaluate(context, model, tokenizer, tasks, settings);
    return std::move(tasks[0]);
}

std::vector<std::pair<std::string, double>> answer_metrics(Context& context, const Transformer& model, const Tokenizer& tokenizer,
                                                           const std::vector<TaskExample>& examples, EvalSettings settings) {
    settings.loss = settings.options = false;
    const TaskResult result = evaluate_examples(context, model, tokenizer, examples, settings);
    return {{"exact_match", *result.exact_match}, {"f1", *result.f1}, {"rouge_l", *result.rouge_l}};
}

std::optional<double> mean_over_tasks(const std::vector<TaskResult>& results, std::optional<double> TaskResult::* value) {
    double sum = 0;
    int64_t count = 0;
    for (const TaskResult& result : results)
        if (result.*value) sum += *(result.*value), ++count;
    return count ? std::optional(sum / static_cast<double>(count)) : std::nullopt;
}

}  // namespace flanmoe

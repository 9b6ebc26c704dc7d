// Every example becomes sequences of tokens: its input, the first accepted answer, its options. Three passes over all of them follow (loss and options
// by teacher forcing in one, generation in another), then everything is summed per task in order.
//
// Several ranks read and tokenise everything alike, take their rows of every batch, and all know all results: batches are as many times larger as there are replicas.
#include "eval/evaluate.hpp"

#include "comm/agreement.hpp"
#include "core/parallel.hpp"
#include "data/tasks.hpp"
#include "eval/dealing.hpp"
#include "eval/task_metrics.hpp"
#include "model/decoding.hpp"

#include <xxhash.h>

#include <algorithm>
#include <map>
#include <memory>
#include <set>

namespace flanmoe {

namespace {

// One target to be scored after one input.
struct Scored {
    size_t input;
    Tokens target;
    double log_p = 0;
};

// A row of a scoring batch: targets one behind the other in `scored_` that share the computation of their input.
struct ScoredRow {
    size_t first, count;
};

class Evaluation {
public:
    Evaluation(Context& context, const Transformer& model, const Tokenizer& tokenizer, std::vector<TaskResult>& tasks, const EvalSettings& settings)
        : context_(context), model_(model), tokenizer_(tokenizer), settings_(settings), mesh_(model.parameters().mesh()), eos_(static_cast<int32_t>(model.config().eos_id)) {
        if (settings.max_inputs < 1 || settings.max_targets < 1) fail(Exit::usage, "inputs and targets need at least one token; raise max_inputs or max_targets");
        tokenizer.check_fits(model.config().vocab_size, model.config().pad_id, model.config().eos_id);
        for (TaskResult& task : tasks) {
            task.answers.assign(task.examples.size(), {});
            for (size_t i = 0; i < task.examples.size(); ++i) examples_.push_back(&task.examples[i]), answers_.push_back(&task.answers[i]);
        }
    }

    void run() {
        together(mesh_.world(), [&] { tokenize(); });
        require_same(mesh_.world(), "view of the examples", fingerprint(), "give all machines the same task files and vocabulary");
        const size_t score_work = scored_.size(), generate_work = settings_.generate ? 2 * examples_.size() : 0;
        work_ = static_cast<double>(std::max<size_t>(1, score_work + generate_work));
        score();
        if (settings_.generate) generate_answers();
    }

    const BatchSlots& slots() const { return slots_; }

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

    // Of everything that is computed from here on.
    std::string fingerprint() const {
        if (mesh_.world().size() == 1) return "";
        XXH64_hash_t hash = 0;
        const auto add = [&](const Tokens& ids) { hash = XXH3_64bits_withSeed(ids.data(), ids.size() * sizeof ids[0], hash + ids.size()); };
        for (const Tokens& input : inputs_) add(input);
        for (const Scored& s : scored_) add(s.target);
        return fmt::format("{:016x}", hash);
    }

    // For all replicas together.
    BatchLimits limits(int64_t rows_of_example) const {
        const int64_t replicas = mesh_.shape().replicas();
        return {replicas * std::max<int64_t>(1, settings_.batch.rows / rows_of_example), replicas * std::max<int64_t>(1, settings_.batch.tokens / rows_of_example)};
    }

    void report(size_t done, const char* what) {
        if (settings_.progress) settings_.progress(std::min(1.0, static_cast<double>(done) / work_), what);
    }

    // All targets of an input are a row, if they may share its computation; else each is.
    std::vector<ScoredRow> scored_rows() const {
        const bool may_share = targets_share_input(model_.config()), copies = !model_.config().encoder_decoder;
        std::vector<ScoredRow> rows;
        for (size_t s = 0; s < scored_.size(); ++s) {
            const auto most = [&] { return most_copies(settings_.batch, static_cast<int64_t>(inputs_[scored_[s].input].size()) + settings_.max_targets); };
            const bool shares = may_share && s > 0 && scored_[s].input == scored_[s - 1].input && !(copies && static_cast<int64_t>(rows.back().count) >= most());
            if (shares) ++rows.back().count;
            else rows.push_back({s, 1});
        }
        return rows;
    }

    bool continues_prompts(size_t targets) const { return !model_.config().encoder_decoder && targets > 1; }

    InputLengths lengths_of(const ScoredRow& row) const {
        InputLengths lengths{static_cast<int64_t>(inputs_[scored_[row.first].input].size()), static_cast<int64_t>(row.count)};
        for (size_t k = 0; k < row.count; ++k) {
            const auto tokens = static_cast<int64_t>(scored_[row.first + k].target.size());
            lengths.target = std::max(lengths.target, tokens), lengths.target_tokens += tokens;
        }
        if (model_.config().encoder_decoder) return lengths;
        if (row.count == 1) return {lengths.input + lengths.target, 1, 0, 0};  // one sequence
        ++lengths.input, lengths.copied = true;  // the start mark
        return lengths;
    }

    void score() {
        const std::vector<ScoredRow> all = scored_rows();
        std::vector<InputLengths> lengths;
        for (const ScoredRow& row : all) lengths.push_back(lengths_of(row));
        size_t done = 0;
        for (const std::vector<size_t>& chosen : batches_by_length(lengths, limits(1))) {
            std::vector<ScoredRow> rows;
            for (const size_t row : chosen) rows.push_back(all[row]);
            score_batch(rows);
            report(done += rows.size() * rows[0].count, "scoring");
        }
        std::vector<double> log_p;
        for (const Scored& s : scored_) log_p.push_back(s.log_p);
        add_over_replicas(mesh_, log_p);  // one has computed it, the others have zeros
        for (size_t i = 0; i < log_p.size(); ++i) scored_[i].log_p = log_p[i];
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

    void score_batch(const std::vector<ScoredRow>& rows) {
        std::vector<const Tokens*> inputs, targets;
        for (const ScoredRow& row : rows) {
            inputs.push_back(&inputs_[scored_[row.first].input]);
            for (size_t k = 0; k < row.count; ++k) targets.push_back(&scored_[row.first + k].target);
        }
        const bool prompted = continues_prompts(rows[0].count);
        const Batch prompts = prompted ? input_batch(model_.config(), inputs) : Batch();
        const Batch whole = prompted ? continuation_batch(model_.config(), inputs, targets) : scoring_batch(model_.config(), inputs, targets);
        slots_.add(prompts), slots_.add(whole);
        const Hand hand = hand_of(mesh_, whole.rows);
        if (hand.rows.empty()) return;
        const Batch batch = chosen_rows(whole, hand.rows);
        Pass pass = evaluation_pass(context_, model_);
        std::vector<double> nll;
        if (prompted) nll = continuation_nll(model_, pass, chosen_rows(prompts, hand.rows), batch);
        else model_.evaluate(pass, batch, &nll);
        const auto count = static_cast<size_t>(batch.targets_per_row), length = static_cast<size_t>(batch.decoder_length);
        for (size_t i = 0; i < hand.own * count; ++i) {
            double sum = 0;
            for (size_t t = 0; t < length; ++t) sum += nll[i * length + t];  // 0 where nothing is to be predicted
            scored_[rows[hand.rows[i / count]].first + i % count].log_p = -sum;
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
        answer.chosen_right = right(best), answer.chosen_right_by_length = right(best_by_length);
    }

    void generate_answers() {
        std::vector<InputLengths> lengths;
        for (const Tokens& input : inputs_) lengths.push_back({.input = static_cast<int64_t>(input.size())});
        GenerationSettings settings = settings_.generation;
        settings.valid_ids = tokenizer_.size();
        settings.scores = false;
        size_t done = 0;
        for (const std::vector<size_t>& rows : batches_by_length(lengths, limits(settings.beams))) {
            std::vector<const Tokens*> chosen;
            for (const size_t i : rows) chosen.push_back(&inputs_[i]);
            settings.numbers.assign(rows.begin(), rows.end());
            const Batch batch = input_batch(model_.config(), chosen);
            slots_.add(batch);
            const std::vector<Generated> generated = generate(context_, model_, batch, settings);
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
    const Mesh& mesh_;
    int32_t eos_;
    std::vector<const TaskExample*> examples_;  // of all tasks
    std::vector<Answer*> answers_;
    std::vector<Tokens> inputs_;
    std::vector<Scored> scored_;
    size_t scored_done_ = 0;
    BatchSlots slots_;
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

// Metrics that are no means over examples.
void add_task_metrics(TaskResult& task) {
    std::vector<Prediction> predictions;
    std::vector<const std::string*> groups;
    std::vector<const std::vector<std::string>*> choices;
    std::vector<double> right;
    bool options = true;
    for (size_t i = 0; i < task.examples.size(); ++i) {
        predictions.push_back({&task.answers[i].output, &task.examples[i].targets});
        groups.push_back(&task.examples[i].group);
        choices.push_back(&task.examples[i].options);
        right.push_back(task.answers[i].scores.exact_match);
        options &= answerable(task.examples[i]);
    }
    if (options) task.macro_f1 = macro_f1(predictions);
    if (const auto found = candidates_f1(predictions, choices, groups)) task.f1a = found->f1;
    if (const auto numbers = score_numbers(predictions)) task.pearson = numbers->pearson, task.spearman = numbers->spearman, task.unparsed = numbers->unparsed;
    if (const auto found = group_consistency(groups, right)) task.consistency = found->share(), task.groups = found->groups;
}

void summarize(TaskResult& task, const EvalSettings& settings) {
    double nll = 0, tokens = 0, right = 0, right_by_length = 0;
    TextScores sums;
    for (size_t i = 0; i < task.answers.size(); ++i) {
        const Answer& a = task.answers[i];
        nll += a.nll, tokens += static_cast<double>(a.target_tokens);
        sums.exact_match += a.scores.exact_match, sums.f1 += a.scores.f1;
        sums.rouge1 += a.scores.rouge1, sums.rouge2 += a.scores.rouge2, sums.rouge_l += a.scores.rouge_l;
        task.with_options += a.choice >= 0;
        task.unanswerable += a.choice >= 0 && !answerable(task.examples[i]);
        right += a.chosen_right, right_by_length += a.chosen_right_by_length;
        task.inputs_cut += a.input_cut, task.targets_cut += a.target_cut;
        task.unfinished += settings.generate && !a.ended;
    }
    const auto n = static_cast<double>(task.examples.size());
    if (settings.loss) task.loss = nll / tokens;
    if (settings.generate) {
        task.exact_match = sums.exact_match / n, task.f1 = sums.f1 / n;
        task.rouge1 = sums.rouge1 / n, task.rouge2 = sums.rouge2 / n, task.rouge_l = sums.rouge_l / n;
        add_task_metrics(task);
    }
    if (task.with_options > 0) {
        task.accuracy = right / static_cast<double>(task.with_options);
        task.accuracy_by_length = right_by_length / static_cast<double>(task.with_options);
    }
    find_majority(task);
}

BatchSlots evaluate(Context& context, const Transformer& model, const Tokenizer& tokenizer, std::vector<TaskResult>& tasks, const EvalSettings& settings) {
    std::unique_ptr<Evaluation> evaluation;
    together(model.parameters().mesh().world(), [&] { evaluation = std::make_unique<Evaluation>(context, model, tokenizer, tasks, settings); });
    evaluation->run();
    for (TaskResult& task : tasks) summarize(task, settings);
    return evaluation->slots();
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
    std::vector<TaskResult> tasks;
    together(model.parameters().mesh().world(), [&] { tasks = read_tasks(paths, settings); });
    evaluate(context, model, tokenizer, tasks, settings);
    return tasks;
}

TaskResult evaluate_examples(Context& context, const Transformer& model, const Tokenizer& tokenizer, std::vector<TaskExample> examples,
                             const EvalSettings& settings, std::string name, BatchSlots* slots) {
    if (examples.empty()) fail(Exit::bad_data, "there are no examples to evaluate; name a task file that has some");
    std::vector<TaskResult> tasks(1);
    tasks[0].name = std::move(name);
    tasks[0].file = examples[0].file;
    tasks[0].examples = std::move(examples);
    const BatchSlots computed = evaluate(context, model, tokenizer, tasks, settings);
    if (slots) *slots = computed;
    return std::move(tasks[0]);
}

std::vector<std::pair<std::string, double>> answer_metrics(Context& context, const Transformer& model, const Tokenizer& tokenizer,
                                                           const std::vector<TaskExample>& examples, EvalSettings settings) {
    settings.loss = false;
    const TaskResult result = evaluate_examples(context, model, tokenizer, examples, settings);
    std::vector<std::pair<std::string, double>> values;
    const std::pair<const char*, std::optional<double>> all[] = {
        {"accuracy", result.accuracy}, {"exact_match", result.exact_match}, {"f1", result.f1}, {"rouge_l", result.rouge_l}, {"macro_f1", result.macro_f1}, {"f1a", result.f1a},
        {"pearson", result.pearson}, {"spearman", result.spearman}, {"unparsed", result.pearson ? std::optional(static_cast<double>(result.unparsed)) : std::nullopt}, {"consistency", result.consistency}};
    for (const auto& [name, value] : all)
        if (value) values.emplace_back(name, *value);
    return values;
}

void check_metric(const std::string& metric, const std::vector<TaskExample>& examples) {
    const auto first = [&](auto&& bad) { return std::find_if(examples.begin(), examples.end(), bad); };
    const auto refuse = [&](auto found, const char* why) {
        if (found != examples.end()) fail(Exit::usage, "eval.metric = \"{}\" {}, but {}:{} has '{}'; choose another metric, or other validation data", metric, why, found->file, found->line, found->targets[0]);
    };
    if (metric == "accuracy" || metric == "macro_f1")
        refuse(first([](const TaskExample& e) { return !answerable(e); }),
               "needs options to choose from, an accepted answer among them, with every validation example");
    if (metric == "pearson" || metric == "spearman") refuse(first([](const TaskExample& e) { return !parse_number(e.targets[0]); }), "needs targets that are numbers");
    if (metric == "f1a")
        refuse(first([&](const TaskExample& e) { return e.options.size() != 2 || e.options != examples[0].options || e.group.empty(); }),
               "needs the same two options, the positive one first, and a group with every validation example");
    if (metric != "consistency" && metric != "f1a") return;
    std::map<std::string, int64_t> groups;
    for (const TaskExample& example : examples)
        if (!example.group.empty() && ++groups[example.group] > 1) return;
    fail(Exit::usage, "eval.metric = \"{}\" needs validation examples that belong together, of which there are no two; name their group (task file: group = \"...\"; JSON lines: a field group)", metric);
}

std::optional<double> mean_over_tasks(const std::vector<TaskResult>& results, const std::function<std::optional<double>(const TaskResult&)>& value) {
    double sum = 0;
    int64_t count = 0;
    for (const TaskResult& result : results)
        if (const auto found = value(result)) sum += *found, ++count;
    return count ? std::optional(sum / static_cast<double>(count)) : std::nullopt;
}

}  // namespace flanmoe

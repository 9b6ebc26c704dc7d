// Questions are sorted by length and evaluated in chunks; the answers of each are appended to a file, from which an interrupted evaluation goes on.
#include "eval/suites/run.hpp"

#include "comm/agreement.hpp"
#include "core/file.hpp"
#include "core/parallel.hpp"

#include <xxhash.h>

#include <algorithm>
#include <memory>

namespace flanmoe {

namespace {

constexpr size_t no_room = static_cast<size_t>(-1);

// The prompt with as many shots as fit; shots = no_room if none does.
void fit(const SuiteTask& task, const Tokenizer& tokenizer, int64_t room, AskedQuestion& asked) {
    for (size_t shots = task.shots.size();; --shots) {
        asked.shots = shots;
        asked.prompt = task.prompt(task.questions[asked.question], shots);
        asked.tokens = tokenizer.encode_with_sentinels(asked.prompt).size();
        if (static_cast<int64_t>(asked.tokens) <= room) return;
        if (shots == 0) break;
    }
    asked.shots = no_room;
}

std::string fingerprint(const std::vector<SuiteTask>& tasks, const std::vector<AskedQuestion>& asked, const SuiteRunSettings& settings) {
    XXH64_hash_t hash = XXH3_64bits(settings.fingerprint.data(), settings.fingerprint.size());
    const auto add = [&](const std::string& text) { hash = XXH3_64bits_withSeed(text.data(), text.size(), hash); };
    for (const AskedQuestion& a : asked) {
        add(tasks[a.task].questions[a.question].id);
        add(a.prompt);
        for (const std::string& option : tasks[a.task].questions[a.question].options) add(option);
    }
    return fmt::format("{:016x}", hash);
}

// What a run before this one has answered, and the file to which more is appended.
class Partial {
public:
    // Only the leader writes and reads.
    Partial(const std::filesystem::path& path, const std::string& run, bool leader) {
        if (path.empty() || !leader) return;
        const std::string head = "{\"run\":\"" + run + "\"}\n";
        std::string text = std::filesystem::exists(path) ? read_file(path) : "";
        text.resize(text.rfind('\n') == std::string::npos ? 0 : text.rfind('\n') + 1);  // a line that was cut by the end of a process
        if (!text.empty() && !text.starts_with(head))
            fail(Exit::usage, "{} holds answers of another model, other suites or options; name another folder with --out, or remove the file to begin anew", path.string());
        done_ = text.empty() ? "" : text.substr(head.size());
        write_file_atomically(path, head + done_);
        file_ = std::make_unique<OutputFile>(path, true);
    }
    const std::string& done() const { return done_; }
    void append(const std::string& lines) {
        if (!file_) return;
        file_->write(lines);
        file_->flush();
    }

private:
    std::string done_;
    std::unique_ptr<OutputFile> file_;
};

class Run {
public:
    Run(Context& context, const Transformer& model, const Tokenizer& tokenizer, const std::vector<SuiteTask>& tasks, const std::vector<AskedQuestion>& asked,
        const SuiteRunSettings& settings, SuiteRunFigures& figures)
        : context_(context), model_(model), tokenizer_(tokenizer), tasks_(tasks), asked_(asked), settings_(settings), figures_(figures), mesh_(model.parameters().mesh()), samples_(asked.size()),
          done_(asked.size()) {}

    std::vector<Sample> run() {
        std::unique_ptr<Partial> partial;
        together(mesh_.world(), [&] { partial = std::make_unique<Partial>(settings_.partial, fingerprint(tasks_, asked_, settings_), mesh_.world().rank() == 0); });
        take_over(broadcast_text(mesh_.world(), partial->done()));
        figures_.asked = static_cast<int64_t>(asked_.size());
        for (const bool cot : {false, true})
            for (const bool generate : {true, false}) run_group(cot, generate, *partial);
        for (size_t i = 0; i < samples_.size(); ++i) {
            samples_[i].task = asked_[i].task, samples_[i].question = asked_[i].question, samples_[i].shots = asked_[i].shots;
            judge(tasks_[asked_[i].task], samples_[i]);
        }
        return std::move(samples_);
    }

private:
    const SuiteQuestion& question(size_t i) const { return tasks_[asked_[i].task].questions[asked_[i].question]; }
    bool generates(size_t i) const { return settings_.generation || question(i).options.empty(); }

    void take_over(const std::string& lines) {
        std::map<std::string, Sample> answers = parse_answers(lines, settings_.partial.string());
        for (size_t i = 0; i < asked_.size(); ++i)
            if (const auto found = answers.find(question(i).id); found != answers.end()) samples_[i] = std::move(found->second), done_[i] = true, ++figures_.taken_over;
    }

    void run_group(bool cot, bool generate, Partial& partial) {
        std::vector<size_t> order;
        for (size_t i = 0; i < asked_.size(); ++i)
            if (!done_[i] && (tasks_[asked_[i].task].mode == PromptMode::cot) == cot && generates(i) == generate) order.push_back(i);
        std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return asked_[a].tokens > asked_[b].tokens; });
        const auto chunk = static_cast<size_t>(4 * settings_.eval.batch.rows * mesh_.shape().replicas());
        EvalSettings eval = settings_.eval;
        eval.loss = false, eval.generate = generate, eval.options = settings_.likelihood && !cot;
        eval.generation.max_new_tokens = cot ? settings_.cot_tokens : settings_.direct_tokens;
        for (size_t first = 0; first < order.size(); first += chunk) {
            const std::vector<size_t> some(order.begin() + static_cast<std::ptrdiff_t>(first), order.begin() + static_cast<std::ptrdiff_t>(std::min(order.size(), first + chunk)));
            run_chunk(some, eval);
            std::string lines;
            for (const size_t i : some) lines += answer_line(question(i).id, samples_[i]), done_[i] = true;
            together(mesh_.world(), [&] { partial.append(lines); });
        }
    }

    void run_chunk(const std::vector<size_t>& some, EvalSettings& eval) {
        const auto before = static_cast<double>(std::count(done_.begin(), done_.end(), true)), all = static_cast<double>(done_.size());
        if (settings_.eval.progress)
            eval.progress = [&, before, all](double fraction, const std::string& note) { settings_.eval.progress((before + fraction * static_cast<double>(some.size())) / all, note); };
        std::vector<TaskExample> examples;
        for (const size_t i : some) {
            TaskExample example;
            example.inputs = asked_[i].prompt, example.targets = question(i).answers, example.options = question(i).options;
            examples.push_back(std::move(example));
        }
        BatchSlots slots;
        const TaskResult result = evaluate_examples(context_, model_, tokenizer_, std::move(examples), eval, "", &slots);
        figures_.slots += slots;
        for (size_t k = 0; k < some.size(); ++k) {
            const Answer& answer = result.answers[k];
            Sample& sample = samples_[some[k]];
            if (eval.generate) sample.output = answer.output, sample.ended = answer.ended;
            sample.option_log_p = answer.option_log_p, sample.option_tokens = answer.option_tokens, sample.options_cut = answer.target_cut;  // without the loss there is no other target
        }
    }

    Context& context_;
    const Transformer& model_;
    const Tokenizer& tokenizer_;
    const std::vector<SuiteTask>& tasks_;
    const std::vector<AskedQuestion>& asked_;
    const SuiteRunSettings& settings_;
    SuiteRunFigures& figures_;
    const Mesh& mesh_;
    std::vector<Sample> samples_;
    std::vector<bool> done_;
};

// Questions that do not fit leave their task.
std::vector<AskedQuestion> without_long(std::vector<SuiteTask>& tasks, std::vector<AskedQuestion> asked) {
    std::vector<std::vector<SuiteQuestion>> kept(tasks.size());
    std::vector<AskedQuestion> result;
    for (AskedQuestion& a : asked) {
        SuiteTask& task = tasks[a.task];
        if (a.shots == no_room) {
            ++task.dropped["prompt longer than the context"];
            continue;
        }
        kept[a.task].push_back(std::move(task.questions[a.question]));
        a.question = kept[a.task].size() - 1;
        result.push_back(std::move(a));
    }
    for (size_t t = 0; t < tasks.size(); ++t) tasks[t].questions = std::move(kept[t]);
    return result;
}

}  // namespace

std::vector<AskedQuestion> ask(std::vector<SuiteTask>& tasks, const Tokenizer* tokenizer, const SuiteRunSettings& settings) {
    std::vector<AskedQuestion> asked;
    for (size_t t = 0; t < tasks.size(); ++t)
        for (size_t q = 0; q < tasks[t].questions.size(); ++q)
            asked.push_back({.task = t, .question = q, .shots = tasks[t].shots.size(), .prompt = tokenizer ? "" : tasks[t].prompt(tasks[t].questions[q], tasks[t].shots.size())});
    if (!tokenizer) return asked;
    const int64_t room = settings.eval.max_inputs - !settings.eval.open_inputs;
    parallel_for(static_cast<int64_t>(asked.size()), 16, [&](int64_t begin, int64_t end) {
        for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) fit(tasks[asked[i].task], *tokenizer, room, asked[i]);
    });
    for (const AskedQuestion& a : asked)
        if (a.shots == no_room && !settings.drop_long)
            fail(Exit::bad_data, "{} ({}) has {} tokens without any exemplar, {} fit; raise --max-input-tokens, or drop and count such questions (--too-long drop)", tasks[a.task].questions[a.question].id,
                 tasks[a.task].questions[a.question].place, a.tokens, room);
    asked = without_long(tasks, std::move(asked));
    if (asked.empty()) fail(Exit::bad_data, "every question is longer than the {} tokens that fit; raise --max-input-tokens", room);
    return asked;
}

std::vector<Sample> run_suites(Context& context, const Transformer& model, const Tokenizer& tokenizer, const std::vector<SuiteTask>& tasks, const std::vector<AskedQuestion>& asked,
                               const SuiteRunSettings& settings, SuiteRunFigures& figures) {
    return Run(context, model, tokenizer, tasks, asked, settings, figures).run();
}

}  // namespace flanmoe

// flanmoe generate: text from prompts.
#include "cli/checks.hpp"
#include "cli/commands.hpp"
#include "cli/model_argument.hpp"
#include "comm/agreement.hpp"
#include "core/file.hpp"
#include "core/log.hpp"
#include "data/encoding.hpp"
#include "eval/batching.hpp"
#include "eval/generate.hpp"

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include <cmath>
#include <iostream>
#include <iterator>
#include <memory>
#include <numeric>
#include <sstream>

namespace flanmoe::cli {

namespace {

struct Arguments {
    ModelArgument model;
    std::vector<std::string> prompts;
    std::string file;
    GenerationSettings settings;
    int64_t batch = 32, max_inputs = 512;
    bool jsonl = false, open = false;
};

struct Prompt {
    std::string text, where;  // where it stands, for messages
};

// The prompts of the command line, a file or standard input, one after the other.
class Prompts {
public:
    explicit Prompts(const Arguments& arguments) : a_(arguments) {
        if (!a_.file.empty()) file_.str(read_file(a_.file));
    }
    // Whether someone types, who wants every line answered at once.
    bool typed() const { return a_.prompts.empty() && a_.file.empty() && ::isatty(STDIN_FILENO); }
    // At most `count`; none at the end.
    std::vector<Prompt> next(int64_t count) {
        std::vector<Prompt> some;
        for (Prompt prompt; static_cast<int64_t>(some.size()) < count && next(prompt);) some.push_back(std::move(prompt));
        return some;
    }

private:
    bool next(Prompt& prompt) {
        if (a_.prompts.empty()) return a_.file.empty() ? next_line(std::cin, "standard input", prompt) : next_line(file_, a_.file, prompt);
        if (number_ == a_.prompts.size()) return false;
        prompt.text = a_.prompts[number_++], prompt.where = fmt::format("prompt {}", number_);
        return true;
    }
    bool next_line(std::istream& stream, const std::string& name, Prompt& prompt) {
        while (std::getline(stream, prompt.text)) {
            ++number_;
            if (prompt.text.ends_with('\r')) prompt.text.pop_back();
            prompt.where = fmt::format("{}:{}", name, number_);
            if (!prompt.text.empty()) return true;
        }
        return false;
    }

    const Arguments& a_;
    std::istringstream file_;
    size_t number_ = 0;
};

// Rank 0 reads and prints; all ranks generate.
class Session {
public:
    Session(const Arguments& arguments, const RankMesh& ranks) : a_(arguments), ranks_(ranks) {
        together(ranks.world(), [&] {
            if (ranks.leader()) prompts_ = std::make_unique<Prompts>(a_);
            loaded_ = a_.model.load(ranks.context(), ranks.mesh());
        });
    }

    void run() {
        while (next_batch()) {
            std::vector<const Tokens*> inputs;
            for (const Tokens& ids : inputs_) inputs.push_back(&ids);
            GenerationSettings settings = a_.settings;
            settings.valid_ids = loaded_.tokenizer->size();
            settings.scores = a_.jsonl;
            settings.numbers.resize(inputs.size());
            std::iota(settings.numbers.begin(), settings.numbers.end(), done_);
            const std::vector<Generated> results = generate(ranks_.context(), *loaded_.model, input_batch(loaded_.model->config(), inputs), settings);
            if (ranks_.leader())
                for (size_t i = 0; i < results.size(); ++i) print(batch_[i].text, results[i]);
            std::fflush(stdout);
            done_ += static_cast<int64_t>(inputs.size());
        }
        if (done_ == 0) throw SharedError(Exit::bad_data, "there is no prompt; give --prompt, a --file with a prompt a line, or lines on standard input");
        if (cut_) warn("{} prompts were longer than {} tokens and lost their end (--max-input-tokens)", cut_, a_.max_inputs);
    }

private:
    // The next prompts' tokens, on every rank; false at the end.
    bool next_batch() {
        together(ranks_.world(), [&] {
            inputs_.clear();
            if (!ranks_.leader()) return;
            batch_ = prompts_->next(prompts_->typed() ? 1 : a_.batch * ranks_.mesh().shape().replicas());
            for (const Prompt& prompt : batch_) inputs_.push_back(encode(prompt));
        });
        // As text: one prompt a line.
        std::string lines;
        for (const Tokens& ids : inputs_) lines += fmt::format("{}\n", fmt::join(ids, " "));
        std::istringstream stream(broadcast_text(ranks_.world(), lines));
        inputs_.clear();
        for (std::string line; std::getline(stream, line);) {
            std::istringstream numbers(line);
            inputs_.emplace_back(std::istream_iterator<int32_t>(numbers), std::istream_iterator<int32_t>());
        }
        return !inputs_.empty();
    }

    Tokens encode(const Prompt& prompt) {
        if (const int64_t at = find_invalid_utf8(prompt.text); at >= 0)
            fail(Exit::bad_data, "{} is not valid UTF-8 at byte {} of the line; convert it to UTF-8", prompt.where, at);
        const auto room = static_cast<size_t>(a_.max_inputs - !a_.open);
        Tokens ids = loaded_.tokenizer->encode_with_sentinels(prompt.text);
        cut_ += ids.size() > room;
        ids.resize(std::min(ids.size(), room));
        if (!a_.open) ids.push_back(static_cast<int32_t>(loaded_.model->config().eos_id));
        return ids;
    }

    void print(const std::string& prompt, const Generated& result) const {
        const std::string text = loaded_.tokenizer->decode(result.ids);
        if (!a_.jsonl) return fmt::print("{}\n", text);
        const nlohmann::ordered_json json = {{"prompt", prompt}, {"output", text}, {"tokens", result.ids}, {"score", result.score}, {"ended", result.ended}};
        fmt::print("{}\n", json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
    }

    const Arguments& a_;
    const RankMesh& ranks_;
    LoadedModel loaded_;
    std::unique_ptr<Prompts> prompts_;  // rank 0's
    std::vector<Prompt> batch_;         // rank 0's
    std::vector<Tokens> inputs_;
    int64_t done_ = 0, cut_ = 0;
};

// What all ranks shall know before they start.
RankSettings settings_of_ranks(const Arguments& a) {
    if (!a.prompts.empty() && !a.file.empty()) fail(Exit::usage, "--prompt and --file exclude each other; give one of them");
    // CLI11's ranges let NaN through.
    if (!(a.settings.temperature >= 0)) fail(Exit::usage, "--temperature is {}; give a number from 0 (the most probable token) to 1000", a.settings.temperature);
    if (!(a.settings.top_p > 0)) fail(Exit::usage, "--top-p is {}; give a probability above 0, to 1 (all tokens)", a.settings.top_p);
    if (!std::isfinite(a.settings.length_penalty)) fail(Exit::usage, "--length-penalty is {}; give a number", a.settings.length_penalty);
    if (a.settings.temperature == 0 && (a.settings.top_k > 0 || a.settings.top_p < 1))
        fail(Exit::usage, "--top-k and --top-p choose among samples; set --temperature above 0 too");
    if (a.settings.temperature > 0 && a.settings.beams > 1) fail(Exit::usage, "beam search and sampling exclude each other; leave out --beams or --temperature");
    RankSettings settings = a.model.ranks();
    if (a.prompts.empty() && a.file.empty()) settings.parallel.timeout = 0;  // whoever writes to standard input may take as long as they like
    return settings;
}

void run(const Arguments& a) {
    on_ranks("generation", [&] { return settings_of_ranks(a); }, [&](const RankMesh& ranks) { Session(a, ranks).run(); });
}

}  // namespace

void add_generate(CLI::App& program) {
    auto a = std::make_shared<Arguments>();
    GenerationSettings& s = a->settings;
    CLI::App& command = *program.add_subcommand("generate", "Generate text: greedily, by sampling or by beam search");
    a->model.add_to(command);
    command.add_option("--prompt", a->prompts, "A prompt; may be repeated")->allow_extra_args(false);
    command.add_option("--file", a->file, "File with a prompt a line; without this and --prompt, lines of standard input. Empty lines are no prompts");
    command.add_option("--max-new-tokens", s.max_new_tokens, "Tokens after which an output is cut")->check(CLI::Range(1, 1000000))->capture_default_str();
    command.add_option("--max-input-tokens", a->max_inputs, "Longer prompts lose their end (end mark included)")->check(CLI::Range(1, 1000000))->capture_default_str();
    command.add_option("--temperature", s.temperature, "Above 0: sample; 1 = the model's own distribution")->check(CLI::Range(0.0, 1000.0))->capture_default_str();
    command.add_option("--top-k", s.top_k, "Sample among the k most probable tokens; 0 = all")->check(CLI::Range(0, 1000000))->capture_default_str();
    command.add_option("--top-p", s.top_p, "Sample among the most probable tokens that hold so much probability")->check(CLI::Range(0.0, 1.0))->capture_default_str();
    command.add_option("--seed", s.seed, "Of sampling: prompt i always draws the same")->check(not_negative)->capture_default_str();
    command.add_option("--beams", s.beams, "Beams of the search; 1 = none")->check(CLI::Range(1, 10000))->capture_default_str();
    command.add_option("--length-penalty", s.length_penalty, "With beams: scores are divided by length to this power")->capture_default_str();
    command.add_flag("--early-stopping", s.early_stopping, "With beams: stop when as many outputs as beams have ended");
    command.add_option("--batch", a->batch, "Prompts computed together, by one rank")->check(CLI::Range(1, 1000000))->capture_default_str();
    command.add_flag("--continue", a->open, "Prompts are texts to go on with: no end mark after them, as a decoder-only language model expects before instruction tuning");
    command.add_flag("--jsonl", a->jsonl, "Print one JSON object a prompt: prompt, output, tokens, score, ended");
    command.footer("Examples:\n  flanmoe generate runs/base --prompt 'How many apples has Tom?'\n  flanmoe generate runs/base --temperature 0.7 --top-p 0.9 --seed 3 < prompts.txt\n"
                   "  flanmoe generate t5-small --prompt 'summarize: ...' --beams 4 --max-new-tokens 100\n"
                   "  mpirun -n 2 flanmoe generate runs/base --set parallel.tensor=2 --file prompts.txt      # the same from two ranks that share every matrix");
    command.callback([a] { run(*a); });
}

}  // namespace flanmoe::cli

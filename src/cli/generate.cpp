// flanmoe generate: text from prompts.
#include "cli/commands.hpp"
#include "cli/model_argument.hpp"
#include "core/file.hpp"
#include "core/log.hpp"
#include "data/encoding.hpp"
#include "eval/batching.hpp"
#include "eval/generate.hpp"

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include <fstream>
#include <functional>
#include <iostream>
#include <memory>

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

class Session {
public:
    explicit Session(const Arguments& arguments) : a_(arguments), context_(a_.model.open()), loaded_(a_.model.load(context_)) {}

    void add(const std::string& prompt, const std::string& where) {
        if (const int64_t at = find_invalid_utf8(prompt); at >= 0) fail(Exit::bad_data, "{} is not valid UTF-8 at byte {} of the line; convert it to UTF-8", where, at);
        const auto room = static_cast<size_t>(a_.max_inputs - !a_.open);
        Tokens ids = loaded_.tokenizer->encode_with_sentinels(prompt);
        cut_ += ids.size() > room;
        ids.resize(std::min(ids.size(), room));
        if (!a_.open) ids.push_back(static_cast<int32_t>(loaded_.model->config().eos_id));
        texts_.push_back(prompt);
        inputs_.push_back(std::move(ids));
        if (static_cast<int64_t>(inputs_.size()) == a_.batch) flush();
    }

    void flush() {
        if (inputs_.empty()) return;
        std::vector<const Tokens*> inputs;
        for (const Tokens& ids : inputs_) inputs.push_back(&ids);
        GenerationSettings settings = a_.settings;
        settings.first_row = done_;
        settings.valid_ids = loaded_.tokenizer->size();
        settings.scores = a_.jsonl;
        const std::vector<Generated> results = generate(context_, *loaded_.model, input_batch(loaded_.model->config(), inputs), settings);
        for (size_t i = 0; i < results.size(); ++i) print(texts_[i], results[i]);
        std::fflush(stdout);
        done_ += static_cast<int64_t>(inputs_.size());
        texts_.clear();
        inputs_.clear();
    }

    void finish() {
        flush();
        if (done_ == 0) fail(Exit::bad_data, "there is no prompt; give --prompt, a --file with a prompt a line, or lines on standard input");
        if (cut_) warn("{} prompts were longer than {} tokens and lost their end (--max-input-tokens)", cut_, a_.max_inputs);
    }

private:
    void print(const std::string& prompt, const Generated& result) const {
        const std::string text = loaded_.tokenizer->decode(result.ids);
        if (!a_.jsonl) return fmt::print("{}\n", text);
        const nlohmann::ordered_json json = {{"prompt", prompt}, {"output", text}, {"tokens", result.ids}, {"score", result.score}, {"ended", result.ended}};
        fmt::print("{}\n", json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
    }

    const Arguments& a_;
    DeviceContext context_;
    LoadedModel loaded_;
    std::vector<std::string> texts_;
    std::vector<Tokens> inputs_;
    int64_t done_ = 0, cut_ = 0;
};

void read_lines(std::istream& stream, const std::string& name, const std::function<void(const std::string&, const std::string&)>& take) {
    std::string line;
    for (int64_t number = 1; std::getline(stream, line); ++number) {
        if (line.ends_with('\r')) line.pop_back();
        if (!line.empty()) take(line, fmt::format("{}:{}", name, number));
    }
}

void run(const Arguments& a) {
    if (!a.prompts.empty() && !a.file.empty()) fail(Exit::usage, "--prompt and --file exclude each other; give one of them");
    if (a.settings.temperature == 0 && (a.settings.top_k > 0 || a.settings.top_p < 1))
        fail(Exit::usage, "--top-k and --top-p choose among samples; set --temperature above 0 too");
    std::istringstream contents;
    if (!a.file.empty()) contents.str(read_file(a.file));
    Session session(a);
    for (size_t i = 0; i < a.prompts.size(); ++i) session.add(a.prompts[i], fmt::format("prompt {}", i + 1));
    if (!a.file.empty()) {
        read_lines(contents, a.file, [&](const std::string& line, const std::string& where) { session.add(line, where); });
    } else if (a.prompts.empty()) {
        const bool terminal = ::isatty(STDIN_FILENO);  // someone types: answer every line at once
        read_lines(std::cin, "standard input", [&](const std::string& line, const std::string& where) {
            session.add(line, where);
            if (terminal) session.flush();
        });
    }
    session.finish();
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
    command.add_option("--seed", s.seed, "Of sampling: prompt i always draws the same")->capture_default_str();
    command.add_option("--beams", s.beams, "Beams of the search; 1 = none")->check(CLI::Range(1, 1000000))->capture_default_str();
    command.add_option("--length-penalty", s.length_penalty, "With beams: scores are divided by length to this power")->capture_default_str();
    command.add_flag("--early-stopping", s.early_stopping, "With beams: stop when as many outputs as beams have ended");
    command.add_option("--batch", a->batch, "Prompts computed together")->check(CLI::Range(1, 1000000))->capture_default_str();
    command.add_flag("--continue", a->open, "Prompts are texts to go on with: no end mark after them, as a decoder-only language model expects before instruction tuning");
    command.add_flag("--jsonl", a->jsonl, "Print one JSON object a prompt: prompt, output, tokens, score, ended");
    command.footer("Examples:\n  flanmoe generate runs/base --prompt 'How many apples has Tom?'\n  flanmoe generate runs/base --temperature 0.7 --top-p 0.9 --seed 3 < prompts.txt\n"
                   "  flanmoe generate t5-small --prompt 'summarize: ...' --beams 4 --max-new-tokens 100");
    command.callback([a] { run(*a); });
}

}  // namespace flanmoe::cli

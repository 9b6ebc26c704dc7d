// `flanmoe data`: text to token shards, and a look into shards or JSONL examples.
#include "cli/commands.hpp"
#include "cli/text_options.hpp"
#include "core/error.hpp"
#include "core/log.hpp"
#include "core/progress.hpp"
#include "data/examples.hpp"
#include "data/shard_folder.hpp"
#include "data/tokenizer.hpp"

namespace flanmoe::cli {

namespace {

namespace fs = std::filesystem;

void add_shard(CLI::App& parent) {
    struct Arguments {
        std::vector<std::string> inputs;
        std::string tokenizer, out;
        TextArguments text;
        int64_t sentinels = 100;
        double shard_mb = 64;
    };
    auto a = std::make_shared<Arguments>();
    CLI::App& command = *parent.add_subcommand("shard", "Tokenise text into memory-mapped shards; goes on where a stopped run ended");
    command.add_option("INPUT", a->inputs, "Text files (plain, .jsonl, .gz, .zst) and folders of them: links are followed, names that begin with a dot left out")->required();
    command.add_option("--tokenizer", a->tokenizer, "spiece.model, or a folder that holds it")->required();
    command.add_option("--out", a->out, "Folder for the shards")->required();
    command.add_option("--sentinels", a->sentinels, "Number of <extra_id_k> pieces")->capture_default_str();
    command.add_option("--shard-mb", a->shard_mb, "Text of a shard, in 10^6 bytes")->check(CLI::Range(0.001, 4096.0))->capture_default_str();
    a->text.add_to(command);
    command.footer("Example:\n  flanmoe data shard corpus/ --tokenizer vocabulary --out shards");
    command.callback([a] {
        const auto tokenizer = Tokenizer::load(a->tokenizer, a->sentinels);
        ShardOptions options;
        options.text = a->text.options();
        options.shard_bytes = static_cast<int64_t>(a->shard_mb * 1e6);
        Progress progress("tokenising");
        const ShardSummary summary = build_shards(a->inputs, *tokenizer, a->out, options, [&](const ShardProgress& p) {
            progress.update(p.total_bytes ? static_cast<double>(p.bytes) / static_cast<double>(p.total_bytes) : 1.0,
                            fmt::format("{:.1f} M tokens, {} documents, {} shards", static_cast<double>(p.tokens) * 1e-6, p.documents, p.shards));
        });
        progress.finish();
        fmt::print("{}: {} shards ({} kept), {} documents, {} tokens of {} bytes of text", a->out, summary.shards, summary.reused, summary.documents,
                   summary.tokens, summary.text_bytes);
        fmt::print("; {} empty documents left out, {} malformed skipped\n", summary.empty, summary.malformed);
    });
}

// Text cut to some length, on one line.
std::string excerpt(std::string text, size_t length) {
    for (char& c : text)
        if (c == '\n' || c == '\r' || c == '\t') c = ' ';
    if (text.size() <= length) return text;
    while (length > 0 && (static_cast<unsigned char>(text[length]) & 0xc0) == 0x80) --length;
    return text.substr(0, length) + " ...";
}

void show_shards(const std::string& path, int64_t count, bool verify) {
    const ShardFolder folder(path, verify);
    fmt::print("{} shards, {} documents, {} tokens{}\n", folder.shards().size(), folder.documents(), folder.tokens(),
               verify ? ", all hashes match" : "");
    const auto tokenizer = fs::exists(fs::path(path) / "spiece.model") ? Tokenizer::load(path) : nullptr;
    std::vector<int32_t> ids;
    for (const TokenShard& shard : folder.shards()) {
        for (int64_t d = 0; d < shard.documents() && count > 0; ++d, --count) {
            const auto [begin, end] = shard.document(d);
            shard.read(begin, std::min<int64_t>(end - begin, 100), ids);
            fmt::print("document of {} tokens: {}\n", end - begin,
                       tokenizer ? excerpt(tokenizer->decode(ids), 200) : fmt::format("{} ...", ids.empty() ? 0 : ids[0]));
        }
    }
}

void show_examples(const std::string& path, const ExampleKeys& keys, const std::string& vocabulary, int64_t count, MalformedPolicy policy) {
    const auto tokenizer = vocabulary.empty() ? nullptr : Tokenizer::load(vocabulary);
    ExampleCounts counts;
    int64_t input_tokens = 0, target_tokens = 0, most_inputs = 0, most_targets = 0;
    counts = for_each_example({path}, keys, policy, [&](TaskExample&& example) {
        if (tokenizer) {
            const auto inputs = static_cast<int64_t>(tokenizer->encode_with_sentinels(example.inputs).size());
            const auto targets = static_cast<int64_t>(tokenizer->encode_with_sentinels(example.targets[0]).size());
            input_tokens += inputs, target_tokens += targets;
            most_inputs = std::max(most_inputs, inputs), most_targets = std::max(most_targets, targets);
        }
        if (count-- <= 0) return;
        fmt::print("{}:{} {}\n  inputs:  {}\n", example.file, example.line, example.task, excerpt(example.inputs, 300));
        for (const std::string& target : example.targets) fmt::print("  targets: {}\n", excerpt(target, 300));
        for (const std::string& option : example.options) fmt::print("  option:  {}\n", excerpt(option, 100));
    });
    fmt::print("{} examples, {} malformed lines\n", counts.examples, counts.malformed);
    if (tokenizer)
        fmt::print("tokens: inputs {:.1f} on average, at most {}; targets {:.1f}, at most {} (without the end mark)\n",
                   static_cast<double>(input_tokens) / static_cast<double>(counts.examples), most_inputs,
                   static_cast<double>(target_tokens) / static_cast<double>(counts.examples), most_targets);
}

void add_show(CLI::App& parent) {
    struct Arguments {
        std::string path, tokenizer, malformed = "fail";
        ExampleKeys keys;
        int64_t count = 5;
        bool verify = false;
    };
    auto a = std::make_shared<Arguments>();
    CLI::App& command = *parent.add_subcommand("show", "Look into a folder of shards, or into JSONL examples");
    command.add_option("PATH", a->path, "Folder of shards, JSONL file, or folder of JSONL files")->required();
    command.add_option("--count", a->count, "Documents or examples to print")->capture_default_str();
    command.add_flag("--verify", a->verify, "Check the hash of every shard");
    command.add_option("--tokenizer", a->tokenizer, "spiece.model or its folder: also count the tokens of examples");
    command.add_option("--inputs-key", a->keys.inputs, "Field of the inputs; may be repeated: the first that a line has")
        ->allow_extra_args(false)
        ->capture_default_str();
    command.add_option("--targets-key", a->keys.targets, "Field of the targets; the same")->allow_extra_args(false)->capture_default_str();
    command.add_option("--malformed", a->malformed, "Malformed lines: fail, or skip (and count)")
        ->check(CLI::IsMember({"fail", "skip"}))
        ->capture_default_str();
    command.footer(
        "Example:\n  flanmoe data show shards --verify\n  flanmoe data show train.jsonl --inputs-key question --targets-key answer --tokenizer "
        "vocabulary");
    command.callback([a] {
        if (!fs::exists(a->path)) fail(Exit::missing_input, "{} does not exist; name a folder of shards or JSONL examples", a->path);
        if (fs::exists(fs::path(a->path) / "manifest.json"))
            show_shards(a->path, a->count, a->verify);
        else
            show_examples(a->path, a->keys, a->tokenizer, a->count, a->malformed == "skip" ? MalformedPolicy::skip : MalformedPolicy::fail);
    });
}

}  // namespace

void add_data(CLI::App& program) {
    CLI::App& command = *program.add_subcommand("data", "Make and look at training data");
    command.require_subcommand(1);
    command.footer("Example:\n  flanmoe data shard corpus/ --tokenizer vocabulary --out shards");
    add_shard(command);
    add_show(command);
    add_data_toyworld(command);
    add_data_records(command);
    add_data_tasks(command);
    add_data_mixture(command);
}

}  // namespace flanmoe::cli

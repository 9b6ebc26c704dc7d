// `flanmoe tokenizer`: trains a vocabulary, encodes and decodes text, and says what a vocabulary holds.
#include "cli/commands.hpp"
#include "cli/text_options.hpp"
#include "core/error.hpp"
#include "core/file.hpp"
#include "core/log.hpp"
#include "data/tokenizer.hpp"
#include "data/vocabulary.hpp"

#include <iostream>
#include <sstream>

namespace flanmoe::cli {

namespace {

namespace fs = std::filesystem;

void add_vocabulary_training(CLI::App& parent) {
    struct Arguments {
        std::vector<std::string> inputs;
        std::string out;
        TextArguments text;
        VocabularyOptions vocabulary;
        int64_t sentinels = 100;
    };
    auto a = std::make_shared<Arguments>();
    CLI::App& command = *parent.add_subcommand("train", "Train a unigram vocabulary with T5's settings (pad 0, end 1, unknown 2)");
    command.add_option("INPUT", a->inputs, "Text files (plain, .jsonl, .gz, .zst) and folders of them")->required();
    command.add_option("--out", a->out, "Folder for spiece.model and the tokenizer files of transformers")->required();
    command.add_option("--size", a->vocabulary.size, "Pieces, without the sentinels")->capture_default_str();
    command.add_option("--coverage", a->vocabulary.coverage, "Share of characters that get a piece")->capture_default_str();
    command.add_flag("--byte-fallback", a->vocabulary.byte_fallback, "Spell unknown characters as bytes");
    command.add_flag("--split-digits", a->vocabulary.split_digits, "Every digit is a piece");
    command.add_option("--sentences", a->vocabulary.sentences, "Lines to learn from, drawn evenly from the text; 0 = all")->capture_default_str();
    command.add_option("--seed", a->vocabulary.seed, "Seed of that draw")->capture_default_str();
    command.add_option("--sentinels", a->sentinels, "Number of <extra_id_k> pieces")->capture_default_str();
    a->text.add_to(command);
    command.footer("Example:\n  flanmoe tokenizer train corpus/ --size 32000 --out vocabulary");
    command.callback([a] {
        DocumentReader reader(find_input_files(a->inputs), a->text.options());
        const std::vector<std::string> sentences = sample_sentences(reader, a->vocabulary.sentences, a->vocabulary.seed);
        info("{} documents ({} empty, {} malformed skipped), learning from {} lines", reader.counts().documents, reader.counts().empty,
             reader.counts().malformed, sentences.size());
        const Tokenizer tokenizer(train_vocabulary(sentences, a->vocabulary), a->sentinels);
        std::error_code error;
        fs::create_directories(a->out, error);
        if (error || !fs::is_directory(a->out))
            fail(Exit::cannot_create, "cannot create the folder {}: {}", a->out, error ? error.message() : "a file is in the way");
        tokenizer.save_tokenizer_files(a->out);
        fmt::print("{}: {} pieces + {} sentinels = {} ids, {} embedding rows\n", (fs::path(a->out) / "spiece.model").string(), tokenizer.pieces(),
                   tokenizer.sentinels(), tokenizer.size(), tokenizer.vocabulary_rows());
    });
}

// The arguments joined by spaces, or the lines of standard input.
template <class Use>
void for_each_line(const std::vector<std::string>& words, Use&& use) {
    std::string line;
    if (!words.empty()) {
        for (const std::string& word : words) line += (line.empty() ? "" : " ") + word;
        use(line);
    } else {
        while (std::getline(std::cin, line)) use(line);
    }
}

void add_encode(CLI::App& parent) {
    struct Arguments {
        std::string vocabulary;
        std::vector<std::string> text;
        bool pieces = false, end = false;
    };
    auto a = std::make_shared<Arguments>();
    CLI::App& command = *parent.add_subcommand("encode", "Ids of a text, or of every line of standard input");
    command.add_option("VOCABULARY", a->vocabulary, "spiece.model, or a folder that holds it")->required();
    command.add_option("TEXT", a->text, "The text; without it, standard input");
    command.add_flag("--pieces", a->pieces, "Print the pieces instead of the ids");
    command.add_flag("--end", a->end, "Append the end mark");
    command.footer("Example:\n  flanmoe tokenizer encode vocabulary \"Thank you <extra_id_0> me to your party.\"");
    command.callback([a] {
        const auto tokenizer = Tokenizer::load(a->vocabulary);
        for_each_line(a->text, [&](const std::string& line) {
            std::vector<int32_t> ids = tokenizer->encode_with_sentinels(line);
            if (a->end) ids.push_back(tokenizer->eos_id());
            std::string out;
            for (int32_t id : ids) out += (out.empty() ? "" : " ") + (a->pieces ? tokenizer->piece(id) : std::to_string(id));
            fmt::print("{}\n", out);
        });
    });
}

void add_decode(CLI::App& parent) {
    struct Arguments {
        std::string vocabulary;
        std::vector<std::string> ids;
    };
    auto a = std::make_shared<Arguments>();
    CLI::App& command = *parent.add_subcommand("decode", "Text of ids, or of every line of ids of standard input");
    command.add_option("VOCABULARY", a->vocabulary, "spiece.model, or a folder that holds it")->required();
    command.add_option("ID", a->ids, "The ids; without them, standard input");
    command.footer("Example:\n  flanmoe tokenizer decode vocabulary 35 789 3");
    command.callback([a] {
        const auto tokenizer = Tokenizer::load(a->vocabulary);
        for_each_line(a->ids, [&](const std::string& line) {
            std::vector<int32_t> ids;
            std::istringstream words(line);
            for (std::string word; words >> word;) {
                size_t used = 0;
                int64_t id = -1;
                try {
                    id = std::stoll(word, &used);
                } catch (const std::exception&) {
                }
                if (used != word.size() || id < 0 || id >= tokenizer->size())
                    fail(Exit::usage, "'{}' is no id of this vocabulary; ids are numbers from 0 to {}", word, tokenizer->size() - 1);
                ids.push_back(static_cast<int32_t>(id));
            }
            fmt::print("{}\n", tokenizer->decode(ids));
        });
    });
}

void add_info(CLI::App& parent) {
    auto vocabulary = std::make_shared<std::string>();
    CLI::App& command = *parent.add_subcommand("info", "What a vocabulary holds");
    command.add_option("VOCABULARY", *vocabulary, "spiece.model, or a folder that holds it")->required();
    command.footer("Example:\n  flanmoe tokenizer info vocabulary");
    command.callback([vocabulary] {
        const auto t = Tokenizer::load(*vocabulary);
        fmt::print("pieces          {}\nsentinels       {}", t->pieces(), t->sentinels());
        if (t->sentinels() > 0)
            fmt::print("  (<extra_id_0> = {}, <extra_id_{}> = {})", t->sentinel(0), t->sentinels() - 1, t->sentinel(t->sentinels() - 1));
        fmt::print("\nids             {}\nembedding rows  {}\npad, end, unk   {} {} {}\nhash            {:016x}\n", t->size(), t->vocabulary_rows(),
                   t->pad_id(), t->eos_id(), t->unk_id(), t->hash());
    });
}

}  // namespace

void add_tokenizer(CLI::App& program) {
    CLI::App& command = *program.add_subcommand("tokenizer", "Train and use a SentencePiece vocabulary");
    command.require_subcommand(1);
    command.footer("Example:\n  flanmoe tokenizer train corpus/ --size 32000 --out vocabulary");
    add_vocabulary_training(command);
    add_encode(command);
    add_decode(command);
    add_info(command);
}

}  // namespace flanmoe::cli

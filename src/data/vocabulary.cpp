// SentencePiece's own sampling draws from a random device and its sums depend on the number of threads; so the sentences are drawn here, and the
// number of threads is fixed.
#include "data/vocabulary.hpp"

#include "core/error.hpp"
#include "core/random.hpp"

#include <sentencepiece_trainer.h>

#include <cstdlib>
#include <unordered_map>

namespace flanmoe {

namespace {

constexpr size_t longest_sentence = 4000;  // bytes; SentencePiece leaves out sentences above 4192
constexpr const char* threads = "4";       // part of the result (order of floating-point sums)

class Sentences : public sentencepiece::SentenceIterator {
public:
    explicit Sentences(const std::vector<std::string>& sentences) : sentences_(sentences) {}
    bool done() const override { return at_ >= sentences_.size(); }
    void Next() override { ++at_; }
    const std::string& value() const override { return sentences_[at_]; }
    sentencepiece::util::Status status() const override { return {}; }

private:
    const std::vector<std::string>& sentences_;
    size_t at_ = 0;
};

// Calls `take` for each line, cut at the last white space that keeps a piece short enough (or between characters where there is none).
template <class Take>
void for_each_sentence(std::string_view document, Take&& take) {
    while (!document.empty()) {
        size_t stop = document.find('\n'), next = stop + 1;
        if (stop == std::string_view::npos) stop = next = document.size();
        if (stop > longest_sentence) {
            stop = document.rfind(' ', longest_sentence);
            if (stop == std::string_view::npos || stop == 0) {
                stop = longest_sentence;
                while (stop > 0 && (static_cast<unsigned char>(document[stop]) & 0xc0) == 0x80) --stop;
            }
            next = stop;
        }
        const std::string_view line = document.substr(0, stop);
        if (line.find_first_not_of(" \t\r\n\f\v") != std::string_view::npos) take(line);
        document.remove_prefix(next);
    }
}

}  // namespace

std::vector<std::string> sample_sentences(DocumentReader& reader, int64_t count, int64_t seed) {
    std::vector<std::string> sentences;
    RandomStream random(RandomKey{static_cast<uint64_t>(seed), 0, 0, Purpose::sampling});
    uint64_t seen = 0;
    std::string document;
    while (reader.next(document)) {
        for_each_sentence(document, [&](std::string_view line) {
            ++seen;
            if (count <= 0 || seen <= static_cast<uint64_t>(count)) {
                sentences.emplace_back(line);
            } else if (const uint64_t place = random.below(seen); place < static_cast<uint64_t>(count)) {  // reservoir sampling
                sentences[place] = line;
            }
        });
    }
    if (sentences.empty()) fail(Exit::bad_data, "the input holds no text to learn a vocabulary from; name files with text");
    return sentences;
}

std::string train_vocabulary(const std::vector<std::string>& sentences, const VocabularyOptions& options) {
    if (options.size < 16 || options.size > 1'000'000)
        fail(Exit::usage, "a vocabulary of {} pieces is out of range; choose 16 to 1000000", options.size);
    if (!(options.coverage > 0.9 && options.coverage <= 1))
        fail(Exit::usage, "character coverage {} is out of range; choose above 0.9 up to 1", options.coverage);
    const auto flag = [](bool value) { return std::string(value ? "true" : "false"); };
    const std::unordered_map<std::string, std::string> settings = {
        {"model_type", "unigram"}, {"vocab_size", std::to_string(options.size)}, {"character_coverage", fmt::format("{}", options.coverage)},
        {"normalization_rule_name", "nmt_nfkc"}, {"pad_id", "0"}, {"eos_id", "1"}, {"unk_id", "2"}, {"bos_id", "-1"},
        {"byte_fallback", flag(options.byte_fallback)}, {"split_digits", flag(options.split_digits)}, {"num_threads", threads},
        {"input_sentence_size", "0"}, {"shuffle_input_sentence", "false"}, {"train_extremely_large_corpus", flag(sentences.size() > 10'000'000)},
        {"minloglevel", "2"}};
    Sentences iterator(sentences);
    std::string model;
    const auto status = sentencepiece::SentencePieceTrainer::Train(settings, &iterator, &model);
    if (!status.ok()) {
        const std::string reason = status.ToString();
        // "Vocabulary size too high (100). Please set it to a value <= 60."
        if (const size_t most = reason.find("a value <= "); most != std::string::npos)
            fail(Exit::usage, "the text is too small for a vocabulary of {} pieces; choose a size of at most {}, or give more text", options.size,
                 std::strtoll(reason.c_str() + most + 11, nullptr, 10));
        if (reason.find("required_chars") != std::string::npos || reason.find("too small") != std::string::npos)
            fail(Exit::usage, "a vocabulary of {} pieces cannot hold the characters of this text; choose a larger size or a smaller coverage",
                 options.size);
        fail(Exit::bad_data, "no vocabulary could be learnt from this text: {}", reason);
    }
    return model;
}

}  // namespace flanmoe

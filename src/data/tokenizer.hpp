// SentencePiece vocabulary with T5's sentinels.
//
// Ids: the pieces of spiece.model come first, then the sentinels in descending order, `<extra_id_k>` = pieces + sentinels - 1 - k. A model's
// embedding table has vocabulary_rows() rows: that number rounded up to a multiple of 128, of which the last ones never occur.
//
// Sentinels in text follow seqio: a sentinel is one piece at the start of a word, and what follows it directly goes on without a new word
// ("<extra_id_0>." ends in the piece ".", not in "▁" "."). White space in front of a sentinel belongs to it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace flanmoe {

class Tokenizer {
public:
    /// From the bytes of a spiece.model; `origin` names it in messages. A vocabulary that holds `<extra_id_0>` already keeps its own sentinels.
    /// Exit::bad_data if the bytes are no SentencePiece model.
    Tokenizer(std::string model, int64_t sentinels = 100, std::string origin = "spiece.model");
    ~Tokenizer();
    Tokenizer(const Tokenizer&) = delete;

    /// Reads `path`: a spiece.model, or a folder that holds one.
    static std::shared_ptr<const Tokenizer> load(const std::filesystem::path& path, int64_t sentinels = 100);

    /// Ids of a text, without an end mark. Sentinel names in the text are ordinary text. Safe for several threads.
    std::vector<int32_t> encode(std::string_view text) const;
    /// The same, but `<extra_id_k>` in the text becomes that sentinel.
    std::vector<int32_t> encode_with_sentinels(std::string_view text) const;
    /// Text of ids; padding and end mark give nothing, sentinels their name, an unknown piece " ⁇ ". Ids >= size() give nothing either.
    std::string decode(std::span<const int32_t> ids) const;
    /// The piece itself ("▁the"), for display.
    std::string piece(int32_t id) const;

    int64_t pieces() const;     ///< pieces of spiece.model
    int64_t sentinels() const;
    int64_t size() const;       ///< ids that occur: [0, size())
    int64_t vocabulary_rows() const;
    int32_t sentinel(int64_t k) const;  ///< id of `<extra_id_k>`, 0 <= k < sentinels()
    int32_t pad_id() const;  ///< -1 if the vocabulary has none
    int32_t eos_id() const;
    int32_t unk_id() const;

    uint64_t hash() const;      ///< of spiece.model and the number of sentinels
    const std::string& model_bytes() const;

    /// Writes spiece.model, tokenizer_config.json and special_tokens_map.json as transformers' T5Tokenizer reads them.
    void save_tokenizer_files(const std::filesystem::path& folder) const;
    /// Exit::usage if a model with `vocab_size` embedding rows and these special ids cannot take this vocabulary.
    void check_fits(int64_t vocab_size, int64_t pad_id, int64_t eos_id) const;
    /// Exit::usage, with a remedy, if a model's folder holds another spiece.model, whose ids mean other pieces. Nothing to check where it holds none.
    void check_same(const std::filesystem::path& folder, const std::string& remedy) const;

private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace flanmoe

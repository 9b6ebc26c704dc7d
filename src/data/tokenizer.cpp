// Two SentencePiece processors over one model: the file as it is, and the file with the sentinels appended as user-defined pieces, which is how
// seqio does it. A serialized message with further repeated fields behind it is again a message, so the pieces are simply appended to the bytes.
#include "data/tokenizer.hpp"

#include "core/error.hpp"
#include "core/file.hpp"

#include <nlohmann/json.hpp>
#include <sentencepiece_processor.h>
#include <xxhash.h>

#include <algorithm>

namespace flanmoe {

namespace {

constexpr std::string_view word_mark = "\xe2\x96\x81";  // U+2581, SentencePiece's white space
constexpr std::string_view sentinel_start = "<extra_id_";

std::string sentinel_name(int64_t k) { return fmt::format("<extra_id_{}>", k); }

// One `pieces` entry of sentencepiece_model.proto: field 1 of ModelProto, with piece (1), score (2) = 0 and type (3) = 4, user-defined.
std::string serialized_piece(const std::string& piece) {
    std::string entry = "\x0a";
    entry += static_cast<char>(piece.size());
    entry += piece;
    entry += std::string("\x15\0\0\0\0\x18\x04", 7);
    return std::string("\x0a") + static_cast<char>(entry.size()) + entry;
}

// A sentinel piece begins a word; text may have one in the middle of a word.
std::string with_spaces_before_sentinels(std::string_view text) {
    std::string spaced;
    size_t done = 0;
    for (size_t at; (at = text.find(sentinel_start, done)) != std::string_view::npos;) {
        spaced += text.substr(done, at - done);
        if (at > 0 && text[at - 1] != ' ' && text[at - 1] != '\n' && text[at - 1] != '\t') spaced += ' ';
        spaced += sentinel_start;
        done = at + sentinel_start.size();
    }
    spaced += text.substr(done);
    return spaced;
}

}  // namespace

struct Tokenizer::State {
    std::string model, origin;
    sentencepiece::SentencePieceProcessor plain, extended;
    std::vector<int32_t> sentinel_ids;
    bool own_sentinels = false;  // the file itself holds them
    uint64_t hash = 0;

    void find_own_sentinels() {
        for (int64_t k = 0;; ++k) {
            int id = plain.PieceToId(std::string(word_mark) + sentinel_name(k));
            if (id == plain.unk_id()) id = plain.PieceToId(sentinel_name(k));
            if (id == plain.unk_id()) break;
            sentinel_ids.push_back(id);
        }
        own_sentinels = !sentinel_ids.empty();
    }
};

Tokenizer::Tokenizer(std::string model, int64_t sentinels, std::string origin) : state_(std::make_unique<State>()) {
    State& s = *state_;
    s.model = std::move(model);
    s.origin = std::move(origin);
    if (sentinels < 0 || sentinels > 100000) fail(Exit::usage, "{} sentinels are out of range; T5 has 100", sentinels);
    const auto load = [&](sentencepiece::SentencePieceProcessor& processor, const std::string& bytes) {
        const auto status = processor.LoadFromSerializedProto(bytes);
        if (!status.ok() || processor.GetPieceSize() == 0)
            fail(Exit::bad_data, "{} is not a SentencePiece model, or is damaged; make one with `flanmoe tokenizer train`", s.origin);
    };
    if (s.model.empty()) fail(Exit::bad_data, "{} is empty; make a vocabulary with `flanmoe tokenizer train`", s.origin);
    load(s.plain, s.model);
    s.find_own_sentinels();
    std::string extended = s.model;
    if (!s.own_sentinels) {
        const auto pieces = static_cast<int32_t>(s.plain.GetPieceSize());
        s.sentinel_ids.resize(static_cast<size_t>(sentinels));
        for (int64_t k = sentinels - 1; k >= 0; --k) {
            extended += serialized_piece(std::string(word_mark) + sentinel_name(k));
            s.sentinel_ids[static_cast<size_t>(k)] = pieces + static_cast<int32_t>(sentinels - 1 - k);
        }
    }
    load(s.extended, extended);
    s.hash = XXH3_64bits_withSeed(s.model.data(), s.model.size(), static_cast<uint64_t>(s.sentinel_ids.size()));
}

Tokenizer::~Tokenizer() = default;

std::shared_ptr<const Tokenizer> Tokenizer::load(const std::filesystem::path& path, int64_t sentinels) {
    const std::filesystem::path file = std::filesystem::is_directory(path) ? path / "spiece.model" : path;
    if (!std::filesystem::exists(file))
        fail(Exit::missing_input,
             "there is no vocabulary at {}; name a spiece.model or a folder that holds one, or make one with `flanmoe tokenizer train`",
             file.string());
    return std::make_shared<const Tokenizer>(read_file(file, int64_t{1} << 30), sentinels, file.string());
}

std::vector<int32_t> Tokenizer::encode(std::string_view text) const {
    std::vector<int> ids;
    const auto status = state_->plain.Encode(absl::string_view(text.data(), text.size()), &ids);
    require(status.ok(), "SentencePiece to encode any text");
    return ids;
}

std::vector<int32_t> Tokenizer::encode_with_sentinels(std::string_view text) const {
    if (text.find(sentinel_start) == std::string_view::npos) return encode(text);
    const std::string spaced = with_spaces_before_sentinels(text);
    std::vector<int> ids;
    const auto status = state_->extended.Encode(absl::string_view(spaced.data(), spaced.size()), &ids);
    require(status.ok(), "SentencePiece to encode any text");
    return ids;
}

std::string Tokenizer::decode(std::span<const int32_t> ids) const {
    std::vector<int> known;
    known.reserve(ids.size());
    for (int32_t id : ids)
        if (id >= 0 && id < size()) known.push_back(id);
    std::string text;
    const auto status = state_->extended.Decode(known, &text);
    require(status.ok(), "SentencePiece to decode ids of its vocabulary");
    return text;
}

std::string Tokenizer::piece(int32_t id) const {
    if (id < 0 || id >= size()) return fmt::format("<{}>", id);
    return state_->extended.IdToPiece(id);
}

int64_t Tokenizer::pieces() const { return state_->plain.GetPieceSize(); }
int64_t Tokenizer::sentinels() const { return static_cast<int64_t>(state_->sentinel_ids.size()); }
int64_t Tokenizer::size() const { return state_->extended.GetPieceSize(); }
int64_t Tokenizer::vocabulary_rows() const { return (size() + 127) / 128 * 128; }
int32_t Tokenizer::pad_id() const { return state_->plain.pad_id(); }
int32_t Tokenizer::eos_id() const { return state_->plain.eos_id(); }
int32_t Tokenizer::unk_id() const { return state_->plain.unk_id(); }
uint64_t Tokenizer::hash() const { return state_->hash; }
const std::string& Tokenizer::model_bytes() const { return state_->model; }

int32_t Tokenizer::sentinel(int64_t k) const {
    if (k < 0 || k >= sentinels()) fail(Exit::usage, "there is no sentinel <extra_id_{}>: the vocabulary {} has {}", k, state_->origin, sentinels());
    return state_->sentinel_ids[static_cast<size_t>(k)];
}

void Tokenizer::check_fits(int64_t vocab_size, int64_t pad, int64_t eos) const {
    if (size() > vocab_size)
        fail(Exit::usage, "the vocabulary {} has {} ids with its sentinels, but the model only {} embedding rows; set model.vocab_size to {}",
             state_->origin, size(), vocab_size, vocabulary_rows());
    if (eos != eos_id())
        fail(Exit::usage, "the vocabulary {} ends texts with id {}, but the model with id {}; use the vocabulary the model was made for",
             state_->origin, eos_id(), eos);
    if (pad_id() >= 0 && pad != pad_id())
        fail(Exit::usage, "the vocabulary {} pads with id {}, but the model with id {}; use the vocabulary the model was made for", state_->origin,
             pad_id(), pad);
}

void Tokenizer::save_tokenizer_files(const std::filesystem::path& folder) const {
    using Json = nlohmann::ordered_json;
    Json names = Json::array();
    for (int64_t k = 0; k < sentinels(); ++k) names.push_back(sentinel_name(k));
    const auto name_of = [&](int id) { return id >= 0 ? Json(state_->plain.IdToPiece(id)) : Json(); };
    Json special = {{"additional_special_tokens", names}};
    for (const auto& [key, id] : {std::pair{"eos_token", eos_id()}, {"pad_token", pad_id()}, {"unk_token", unk_id()}})
        if (id >= 0) special[key] = name_of(id);
    Json config = special;
    config["extra_ids"] = state_->own_sentinels ? 0 : sentinels();
    config["legacy"] = false;
    config["model_max_length"] = 512;
    config["sp_model_kwargs"] = Json::object();
    config["tokenizer_class"] = "T5Tokenizer";
    write_file_atomically(folder / "spiece.model", model_bytes());
    write_file_atomically(folder / "tokenizer_config.json", config.dump(2) + "\n");
    write_file_atomically(folder / "special_tokens_map.json", special.dump(2) + "\n");
}

void Tokenizer::check_same(const std::filesystem::path& folder, const std::string& remedy) const {
    const std::filesystem::path own = folder / "spiece.model";
    if (std::filesystem::exists(own) && read_file(own) != model_bytes())
        fail(Exit::usage, "the model of {} knows the vocabulary of {}, and the one given differs, so that its ids would mean other pieces; {}", folder.string(), own.string(), remedy);
}

}  // namespace flanmoe

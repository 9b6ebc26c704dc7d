// Reading is sequential and some fifty times faster than tokenising, which runs on all cores over a batch of pieces. A document is cut at white
// space into pieces; SentencePiece never joins pieces over white space, so the ids are those of the whole document.
#include "data/shard_folder.hpp"

#include "core/error.hpp"
#include "core/log.hpp"
#include "core/parallel.hpp"

#include <nlohmann/json.hpp>
#include <xxhash.h>

#include <optional>

namespace flanmoe {

namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr const char* format_name = "flanmoe token shards";
constexpr int format_version = 1;
constexpr size_t piece_bytes = size_t{16} << 10;

fs::path manifest_path(const fs::path& folder) { return folder / "manifest.json"; }

// What one shard holds and where the text of the next one begins.
struct Entry {
    std::string file;
    int64_t tokens = 0, documents = 0, text_bytes = 0, empty = 0, malformed = 0;
    uint64_t content_hash = 0;
    size_t next_file = 0;
    int64_t next_document = 0;  // documents of that file that are already in a shard
};

std::string hexadecimal(uint64_t value) { return fmt::format("{:016x}", value); }

Json to_json(const Entry& e) {
    return {{"file", e.file},
            {"tokens", e.tokens},
            {"documents", e.documents},
            {"text_bytes", e.text_bytes},
            {"empty", e.empty},
            {"malformed", e.malformed},
            {"hash", hexadecimal(e.content_hash)},
            {"next_file", e.next_file},
            {"next_document", e.next_document}};
}

Entry entry_from(const Json& json) {
    Entry e;
    e.file = json.at("file");
    e.tokens = json.at("tokens"), e.documents = json.at("documents"), e.text_bytes = json.at("text_bytes");
    e.empty = json.at("empty"), e.malformed = json.at("malformed");
    e.content_hash = std::stoull(json.at("hash").get<std::string>(), nullptr, 16);
    e.next_file = json.at("next_file"), e.next_document = json.at("next_document");
    if (e.file.find('/') != std::string::npos) throw std::runtime_error("a shard outside its folder");
    return e;
}

Json read_manifest(const fs::path& folder) {
    try {
        Json manifest = Json::parse(read_file(manifest_path(folder), int64_t{1} << 30));
        if (!manifest.contains("format") || manifest["format"] != format_name)
            fail(Exit::cannot_create, "{} is not of token shards, so the folder is something else; name another folder", manifest_path(folder).string());
        if (manifest.at("version") != format_version) throw std::runtime_error("another version");
        for (const Json& shard : manifest.at("shards")) entry_from(shard);
        return manifest;
    } catch (const Error&) {
        throw;
    } catch (const std::exception& error) {
        fail(Exit::corruption, "{} is damaged or of another version ({}); delete the folder and run `flanmoe data shard` again",
             manifest_path(folder).string(), error.what());
    }
}

// What must agree for a run to go on where another stopped.
Json describe(const std::vector<InputFile>& files, const Tokenizer& tokenizer, const ShardOptions& options) {
    Json inputs = Json::array();
    for (const InputFile& file : files)
        inputs.push_back(
            {{"path", file.path.string()}, {"bytes", file.bytes}, {"modified", fs::last_write_time(file.path).time_since_epoch().count()}});
    const Json settings = {{"encoding", static_cast<int>(options.text.encoding)},   {"boundaries", static_cast<int>(options.text.boundaries)},
                           {"json_keys", options.text.json_keys},                   {"malformed", static_cast<int>(options.text.malformed)},
                           {"shard_bytes", options.shard_bytes}};
    return {{"format", format_name},
            {"version", format_version},
            {"vocabulary_hash", hexadecimal(tokenizer.hash())},
            {"vocabulary_size", tokenizer.size()},
            {"settings", settings},
            {"inputs", inputs},
            {"complete", false},
            {"shards", Json::array()}};
}

void check_same(const Json& old, const Json& wanted, const fs::path& folder) {
    const auto refuse = [&](const char* what) {
        fail(Exit::usage, "{} holds shards made {}; name another folder with --out, or delete this one", folder.string(), what);
    };
    if (old.at("vocabulary_hash") != wanted.at("vocabulary_hash")) refuse("with another tokenizer");
    if (old.at("inputs") != wanted.at("inputs")) refuse("from other inputs, or inputs that have changed since");
    if (old.at("settings") != wanted.at("settings")) refuse("with other settings");
}

// Cuts a document at white space into pieces that are tokenised independently.
void cut_pieces(std::string_view document, std::vector<std::string_view>& pieces) {
    while (document.size() > piece_bytes) {
        size_t stop = document.find_first_of(" \n", piece_bytes);
        if (stop == std::string_view::npos) break;
        pieces.push_back(document.substr(0, stop));
        document.remove_prefix(stop);
    }
    pieces.push_back(document);
}

// Tokenises the documents of a batch on all cores and appends them in order.
void append_batch(const std::vector<std::string>& documents, const Tokenizer& tokenizer, ShardContent& content) {
    std::vector<std::string_view> pieces;
    std::vector<size_t> last_piece;
    for (const std::string& document : documents) {
        cut_pieces(document, pieces);
        last_piece.push_back(pieces.size());
    }
    std::vector<std::vector<int32_t>> ids(pieces.size());
    parallel_for(static_cast<int64_t>(pieces.size()), 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) ids[static_cast<size_t>(i)] = tokenizer.encode(pieces[static_cast<size_t>(i)]);
    });
    for (size_t document = 0, piece = 0; document < documents.size(); ++document) {
        for (; piece < last_piece[document]; ++piece) content.tokens.insert(content.tokens.end(), ids[piece].begin(), ids[piece].end());
        content.document_ends.push_back(static_cast<int64_t>(content.tokens.size()));
    }
}

class Builder {
public:
    Builder(std::vector<InputFile> files, const Tokenizer& tokenizer, const fs::path& folder, const ShardOptions& options,
            const std::function<void(const ShardProgress&)>& progress)
        : files_(std::move(files)), tokenizer_(tokenizer), folder_(folder), options_(options), progress_(progress) {
        for (const InputFile& file : files_) state_.total_bytes += file.bytes;
    }

    ShardSummary run() {
        open_folder();
        const size_t known = manifest_["shards"].size();
        Entry last;
        for (size_t k = 0;; ++k) {
            std::optional<Entry> entry = k < known ? reuse(k) : std::nullopt;
            if (entry) reader_.reset();
            if (!entry && k >= known && manifest_["complete"].get<bool>()) break;
            if (!entry) entry = make(k, last);
            if (!entry) break;
            count(*entry);
            last = *entry;
        }
        if (summary_.documents == 0) {
            fs::remove(manifest_path(folder_));
            fs::remove(folder_ / "spiece.model");
            fail(Exit::bad_data, "the input holds no text: {} files, {} empty documents, {} malformed ones; name files with text", files_.size(),
                 empty_at_end_, malformed_at_end_);
        }
        if (!manifest_["complete"].get<bool>()) {
            manifest_["complete"] = true;
            manifest_["empty_at_end"] = empty_at_end_, manifest_["malformed_at_end"] = malformed_at_end_;
            save_manifest();
        }
        summary_.empty += manifest_.value("empty_at_end", int64_t{0});
        summary_.malformed += manifest_.value("malformed_at_end", int64_t{0});
        return summary_;
    }

private:
    void open_folder() {
        manifest_ = describe(files_, tokenizer_, options_);
        std::error_code error;
        fs::create_directories(folder_, error);
        if (error || !fs::is_directory(folder_))
            fail(Exit::cannot_create, "cannot create the folder {}: {}", folder_.string(), error ? error.message() : "a file is in the way");
        if (fs::exists(manifest_path(folder_))) {
            const Json old = read_manifest(folder_);
            if (!old.at("shards").empty()) {
                check_same(old, manifest_, folder_);
                manifest_ = old;
            }
        } else if (!fs::is_empty(folder_)) {
            fail(Exit::cannot_create, "{} exists and holds something else than token shards; name another folder with --out", folder_.string());
        } else {
            save_manifest();
        }
        write_file_atomically(folder_ / "spiece.model", tokenizer_.model_bytes());
    }

    void save_manifest() { write_file_atomically(manifest_path(folder_), manifest_.dump(1) + "\n"); }

    // The finished shard number k if it is there and intact.
    std::optional<Entry> reuse(size_t k) {
        const Entry entry = entry_from(manifest_["shards"][k]);
        try {
            const TokenShard shard(folder_ / entry.file);
            if (shard.header().content_hash != entry.content_hash || shard.header().vocabulary_hash != tokenizer_.hash()) return std::nullopt;
            shard.verify();
        } catch (const Error& error) {
            warn("{}; it is made again", error.what());
            return std::nullopt;
        }
        ++summary_.reused;
        state_.reused = true;
        return entry;
    }

    // Makes shard number k from the text behind shard k - 1; nothing if there is no more text.
    std::optional<Entry> make(size_t k, const Entry& previous) {
        if (!reader_) {
            reader_ = std::make_unique<DocumentReader>(files_, options_.text, previous.next_file);
            std::string passed;
            for (int64_t i = 0; i < previous.next_document; ++i) reader_->next(passed);
            counted_ = reader_->counts();
        }
        state_.reused = false;
        Entry entry;
        ShardContent content;
        std::vector<std::string> batch;
        int64_t batch_size = 0;
        std::string document;
        while (entry.text_bytes < options_.shard_bytes && reader_->next(document)) {
            entry.text_bytes += static_cast<int64_t>(document.size());
            batch_size += static_cast<int64_t>(document.size());
            batch.push_back(std::move(document));
            if (batch_size < options_.batch_bytes && entry.text_bytes < options_.shard_bytes) continue;
            append_batch(batch, tokenizer_, content);
            batch.clear();
            batch_size = 0;
            report(content);
        }
        append_batch(batch, tokenizer_, content);
        const TextCounts now = reader_->counts();
        entry.documents = static_cast<int64_t>(content.document_ends.size());
        if (entry.documents == 0) {
            empty_at_end_ = now.empty - counted_.empty, malformed_at_end_ = now.malformed - counted_.malformed;
            return std::nullopt;
        }
        entry.empty = now.empty - counted_.empty, entry.malformed = now.malformed - counted_.malformed;
        counted_ = now;
        entry.file = fmt::format("shard-{:05d}.tokens", k);
        entry.next_file = reader_->file(), entry.next_document = reader_->documents_of_file();
        const ShardHeader header = write_shard(folder_ / entry.file, content, tokenizer_.hash(), tokenizer_.size());
        entry.tokens = header.tokens;
        entry.content_hash = header.content_hash;
        if (k < manifest_["shards"].size())
            manifest_["shards"][k] = to_json(entry);
        else
            manifest_["shards"].push_back(to_json(entry));
        save_manifest();
        return entry;
    }

    void count(const Entry& entry) {
        ++summary_.shards;
        summary_.tokens += entry.tokens, summary_.documents += entry.documents, summary_.text_bytes += entry.text_bytes;
        summary_.empty += entry.empty, summary_.malformed += entry.malformed;
        state_.shards = summary_.shards;
        if (state_.reused) {
            state_.bytes = 0;
            for (size_t i = 0; i < entry.next_file && i < files_.size(); ++i) state_.bytes += files_[i].bytes;
        }
        report({});
    }

    void report(const ShardContent& current) {
        if (!progress_) return;
        if (reader_) state_.bytes = reader_->consumed();
        state_.tokens = summary_.tokens + static_cast<int64_t>(current.tokens.size());
        state_.documents = summary_.documents + static_cast<int64_t>(current.document_ends.size());
        progress_(state_);
    }

    std::vector<InputFile> files_;
    const Tokenizer& tokenizer_;
    fs::path folder_;
    const ShardOptions& options_;
    const std::function<void(const ShardProgress&)>& progress_;
    Json manifest_;
    std::unique_ptr<DocumentReader> reader_;
    TextCounts counted_;
    int64_t empty_at_end_ = 0, malformed_at_end_ = 0;
    ShardSummary summary_;
    ShardProgress state_;
};

}  // namespace

ShardSummary build_shards(const std::vector<std::string>& inputs, const Tokenizer& tokenizer, const fs::path& folder, const ShardOptions& options,
                          const std::function<void(const ShardProgress&)>& progress) {
    return Builder(find_input_files(inputs), tokenizer, folder, options, progress).run();
}

ShardFolder::ShardFolder(const fs::path& folder, bool verify) : folder_(folder) {
    if (!fs::exists(folder)) fail(Exit::missing_input, "there is no shard folder {}; make it with `flanmoe data shard`", folder.string());
    if (!fs::exists(manifest_path(folder)))
        fail(Exit::missing_input, "{} is not a folder of token shards (it has no manifest.json); make one with `flanmoe data shard`",
             folder.string());
    const Json manifest = read_manifest(folder);
    if (!manifest.value("complete", false))
        fail(Exit::bad_data, "the shards in {} are not finished; run the same `flanmoe data shard` command again, it goes on where it stopped",
             folder.string());
    for (const Json& json : manifest.at("shards")) {
        const Entry entry = entry_from(json);
        const fs::path path = folder / entry.file;
        if (!fs::exists(path))
            fail(Exit::corruption, "token shard {} is missing; run the same `flanmoe data shard` command again, it makes only what is missing",
                 path.string());
        const TokenShard& shard = shards_.emplace_back(path);
        if (shard.header().content_hash != entry.content_hash)
            fail(Exit::corruption, "token shard {} is not the one that its manifest lists; run the same `flanmoe data shard` command again",
                 path.string());
        if (verify) shard.verify();
        tokens_ += shard.tokens();
        documents_ += shard.documents();
        vocabulary_hash_ = shard.header().vocabulary_hash;
        hash_ = XXH3_64bits_withSeed(&entry.content_hash, sizeof entry.content_hash, hash_);
    }
    if (tokens_ == 0) fail(Exit::bad_data, "the shards in {} hold no tokens; make them from files with text", folder.string());
}

void ShardFolder::check_tokenizer(const Tokenizer& tokenizer) const {
    if (tokenizer.hash() != vocabulary_hash_)
        fail(Exit::usage, "the shards in {} were made with another tokenizer; use {}, or make the shards again", folder_.string(),
             (folder_ / "spiece.model").string());
}

}  // namespace flanmoe

// A folder of token shards: making it from text on all cores, resumable, and opening it for training.
//
// The text is cut into shards of about `shard_bytes` of UTF-8 at document ends, by size alone, so that the shards are the same on any machine. A
// finished shard is entered into manifest.json (replaced atomically) together with the place in the input where the next one begins. Running the
// same command again verifies what is there and makes only what is missing or damaged. A killed run leaves no half shard that counts.
#pragma once

#include "data/text_files.hpp"
#include "data/token_shard.hpp"
#include "data/tokenizer.hpp"

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace flanmoe {

struct ShardOptions {
    TextOptions text;
    int64_t shard_bytes = int64_t{64} << 20;  ///< of text
    int64_t batch_bytes = int64_t{4} << 20;   ///< of text, tokenised together on all cores
};

struct ShardProgress {
    int64_t bytes = 0, total_bytes = 0;  ///< of the input files
    int64_t tokens = 0, documents = 0, shards = 0;
    bool reused = false;  ///< the shard that was just counted was there already
};

struct ShardSummary {
    int64_t shards = 0, reused = 0;  ///< reused: found finished and kept
    int64_t tokens = 0, documents = 0, text_bytes = 0;
    int64_t empty = 0, malformed = 0;
};

/// Tokenises `inputs` into `folder`, which also gets a copy of spiece.model. Exit::bad_data for an empty corpus, Exit::usage if the folder holds
/// shards of another tokenizer, other inputs or other settings, Exit::cannot_create if it holds anything else.
ShardSummary build_shards(const std::vector<std::string>& inputs, const Tokenizer& tokenizer, const std::filesystem::path& folder,
                          const ShardOptions& options, const std::function<void(const ShardProgress&)>& progress = {});

/// The finished shards of a folder. Exit::missing_input if there are none, Exit::bad_data if making them has not finished, Exit::corruption if one is
/// damaged or missing.
class ShardFolder {
public:
    /// `verify`: also hash the content of every shard.
    explicit ShardFolder(const std::filesystem::path& folder, bool verify = false);

    const std::vector<TokenShard>& shards() const { return shards_; }
    int64_t tokens() const { return tokens_; }
    int64_t documents() const { return documents_; }
    uint64_t hash() const { return hash_; }  ///< of all contents
    /// Exit::usage if the shards were made with another tokenizer.
    void check_tokenizer(const Tokenizer& tokenizer) const;

private:
    std::filesystem::path folder_;
    std::vector<TokenShard> shards_;
    int64_t tokens_ = 0, documents_ = 0;
    uint64_t vocabulary_hash_ = 0, hash_ = 0;
};

}  // namespace flanmoe

// Token shards: tokenised text on disk, read through a memory map.
//
// A shard file is little-endian: a header of 64 bytes, the tokens (16 bits each if the vocabulary allows it, otherwise 32; padded with zeros to a
// multiple of 8 bytes), then the end of every document as a 64-bit token index. Documents carry no end mark. Header:
//
//   0 magic "FLMTOKEN"   8 version u32 = 1   12 bytes a token u32   16 tokens u64   24 documents u64   32 vocabulary hash u64
//   40 content hash u64 (XXH3 of all that follows the header)       48 vocabulary size u64
//   56 header hash u64 (XXH3 of the 56 bytes before)
//
// A folder of shards has a manifest.json that lists them (shard_folder.hpp); a file that is not listed does not count.
#pragma once

#include "core/file.hpp"

#include <cstdint>
#include <filesystem>
#include <span>
#include <utility>
#include <vector>

namespace flanmoe {

struct ShardHeader {
    uint32_t token_bytes = 2;
    int64_t tokens = 0, documents = 0;
    uint64_t vocabulary_hash = 0;
    uint64_t content_hash = 0;
    int64_t vocabulary_size = 0;  ///< ids are below it
};

/// Tokens and document ends of a shard that is being made.
struct ShardContent {
    std::vector<int32_t> tokens;
    std::vector<int64_t> document_ends;
};

/// Writes a shard under a temporary name, syncs and renames it: a crash leaves no half of it under `path`.
ShardHeader write_shard(const std::filesystem::path& path, const ShardContent& content, uint64_t vocabulary_hash, int64_t vocabulary_size);

/// A mapped shard. Opening checks the magic, the header's hash, the file's size and the document ends; verify() checks the hash of the content.
/// Exit::corruption if the file is damaged, Exit::bad_data if it is no shard.
class TokenShard {
public:
    explicit TokenShard(const std::filesystem::path& path);

    const ShardHeader& header() const { return header_; }
    int64_t tokens() const { return header_.tokens; }
    int64_t documents() const { return header_.documents; }
    /// First and last + 1 token of a document.
    std::pair<int64_t, int64_t> document(int64_t index) const { return {index == 0 ? 0 : ends_[index - 1], ends_[index]}; }
    /// Copies tokens [first, first + count) to `ids`.
    void read(int64_t first, int64_t count, std::vector<int32_t>& ids) const;
    void verify() const;

private:
    std::filesystem::path path_;
    MappedFile file_;
    ShardHeader header_;
    const int64_t* ends_ = nullptr;
};

}  // namespace flanmoe

// The content is laid out in memory (a shard is some ten MB), hashed, and written behind its header.
#include "data/token_shard.hpp"

#include "core/error.hpp"

#include <xxhash.h>

#include <bit>
#include <cstring>
#include <string>

namespace flanmoe {

static_assert(std::endian::native == std::endian::little, "shards are little-endian");

namespace {

constexpr char magic[8] = {'F', 'L', 'M', 'T', 'O', 'K', 'E', 'N'};
constexpr uint32_t version = 1;

struct RawHeader {
    char magic[8];
    uint32_t version, token_bytes;
    uint64_t tokens, documents, vocabulary_hash, content_hash, vocabulary_size, header_hash;
};
static_assert(sizeof(RawHeader) == 64);

uint64_t hash_of_header(const RawHeader& header) { return XXH3_64bits(&header, offsetof(RawHeader, header_hash)); }

uint64_t padded(uint64_t bytes) { return (bytes + 7) / 8 * 8; }

template <class T>
void append_values(std::string& bytes, const T* values, size_t count) {
    bytes.append(reinterpret_cast<const char*>(values), count * sizeof(T));
}

}  // namespace

ShardHeader write_shard(const std::filesystem::path& path, const ShardContent& content, uint64_t vocabulary_hash, int64_t vocabulary_size) {
    ShardHeader header;
    header.token_bytes = vocabulary_size <= 65536 ? 2 : 4;
    header.tokens = static_cast<int64_t>(content.tokens.size());
    header.documents = static_cast<int64_t>(content.document_ends.size());
    header.vocabulary_hash = vocabulary_hash;
    header.vocabulary_size = vocabulary_size;
    std::string bytes;
    bytes.reserve(content.tokens.size() * header.token_bytes + content.document_ends.size() * 8 + 8);
    if (header.token_bytes == 2) {
        const std::vector<uint16_t> narrow(content.tokens.begin(), content.tokens.end());
        append_values(bytes, narrow.data(), narrow.size());
    } else {
        append_values(bytes, content.tokens.data(), content.tokens.size());
    }
    bytes.resize(padded(bytes.size()), '\0');
    append_values(bytes, content.document_ends.data(), content.document_ends.size());
    header.content_hash = XXH3_64bits(bytes.data(), bytes.size());

    RawHeader raw{};
    std::memcpy(raw.magic, magic, sizeof magic);
    raw.version = version;
    raw.token_bytes = header.token_bytes;
    raw.tokens = static_cast<uint64_t>(header.tokens);
    raw.documents = static_cast<uint64_t>(header.documents);
    raw.vocabulary_hash = header.vocabulary_hash;
    raw.content_hash = header.content_hash;
    raw.vocabulary_size = static_cast<uint64_t>(header.vocabulary_size);
    raw.header_hash = hash_of_header(raw);
    bytes.insert(0, reinterpret_cast<const char*>(&raw), sizeof raw);
    write_file_atomically(path, bytes);
    return header;
}

TokenShard::TokenShard(const std::filesystem::path& path) : path_(path), file_(path) {
    const std::string_view bytes = file_.bytes();
    RawHeader raw{};
    if (bytes.size() < sizeof magic || std::memcmp(bytes.data(), magic, sizeof magic) != 0)
        fail(Exit::bad_data, "{} is not a token shard; make shards with `flanmoe data shard`", path.string());
    const auto damaged = [&](const char* what) {
        fail(Exit::corruption, "token shard {} is damaged: {}; delete it and run `flanmoe data shard` again, which makes only what is missing",
             path.string(), what);
    };
    if (bytes.size() < sizeof raw) damaged("it ends inside its header");
    std::memcpy(&raw, bytes.data(), sizeof raw);
    if (raw.header_hash != hash_of_header(raw)) damaged("its header does not match its hash");
    if (raw.version != version)
        fail(Exit::bad_data, "token shard {} has format version {}, this program reads {}; make the shards again", path.string(), raw.version,
             version);
    header_ = {raw.token_bytes,  static_cast<int64_t>(raw.tokens), static_cast<int64_t>(raw.documents), raw.vocabulary_hash,
               raw.content_hash, static_cast<int64_t>(raw.vocabulary_size)};
    const bool plausible = (raw.token_bytes == 2 || raw.token_bytes == 4) && raw.tokens < (uint64_t{1} << 56) && raw.documents < (uint64_t{1} << 56);
    if (!plausible || bytes.size() != sizeof raw + padded(raw.tokens * raw.token_bytes) + raw.documents * 8)
        damaged("its size is not what its header says");
    ends_ = reinterpret_cast<const int64_t*>(bytes.data() + bytes.size() - raw.documents * 8);
    for (uint64_t i = 0; i < raw.documents; ++i)
        if (ends_[i] < (i ? ends_[i - 1] : 0) || ends_[i] > header_.tokens) damaged("its document ends are out of order");
    if (raw.documents ? ends_[raw.documents - 1] != header_.tokens : header_.tokens != 0) damaged("its documents do not cover its tokens");
}

void TokenShard::read(int64_t first, int64_t count, std::vector<int32_t>& ids) const {
    require(first >= 0 && count >= 0 && first + count <= header_.tokens, "tokens inside the shard");
    const char* data = file_.bytes().data() + sizeof(RawHeader);
    const auto begin = static_cast<size_t>(first), end = static_cast<size_t>(first + count);
    if (header_.token_bytes == 2) {
        const auto* tokens = reinterpret_cast<const uint16_t*>(data);
        ids.assign(tokens + begin, tokens + end);
    } else {
        const auto* tokens = reinterpret_cast<const int32_t*>(data);
        ids.assign(tokens + begin, tokens + end);
    }
}

void TokenShard::verify() const {
    const std::string_view content = file_.bytes().substr(sizeof(RawHeader));
    if (XXH3_64bits(content.data(), content.size()) != header_.content_hash)
        fail(Exit::corruption,
             "token shard {} is damaged: its content does not match its hash; delete it and run `flanmoe data shard` again, which makes only what is "
             "missing",
             path_.string());
}

}  // namespace flanmoe

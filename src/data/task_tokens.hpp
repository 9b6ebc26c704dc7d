// The examples of a task as tokens, every record in every way of asking, made once and kept in a cache.
//
// A way of asking is a template, with and without options where that differs. The cache is one token shard a task and split (token_shard.hpp; documents: inputs, targets of
// record 0 in way 0, of way 1, ...; empty where a template has nothing to ask) and a small JSON file of counts. Its name holds a hash of everything that it depends on: the
// declaration, the bytes of the data files, the vocabulary, the form of the cache. Its content is checked against its hash when it is opened; what is damaged is made again.
#pragma once

#include "data/example_source.hpp"
#include "data/task_file.hpp"
#include "data/token_shard.hpp"

#include <optional>

namespace flanmoe {

/// The file that processes lock (core/file_lock.hpp) while they make something in a cache. Makes the folder; Exit::cannot_create if it cannot.
std::filesystem::path lock_of_cache(const std::filesystem::path& folder);

class TaskTokens {
public:
    /// `cache`: a folder, made if it is not there; empty = the tokens are made and kept in memory. `language_tag`: "[en]" in front of inputs. Errors as Task::read();
    /// Exit::cannot_create for the cache.
    TaskTokens(const Task& task, const std::string& split, bool language_tag, const Tokenizer& tokenizer, const std::filesystem::path& cache);

    struct Way {
        size_t index = 0;  ///< of the template
        bool with_options = true, inverted = false;
    };
    const std::vector<Way>& ways() const { return ways_; }
    int64_t records() const { return records_; }
    /// Tokens of inputs and targets, without end marks; both 0 if there is nothing to ask.
    std::pair<int64_t, int64_t> lengths(int64_t record, size_t way) const;
    /// Adds the inputs or targets to `ids`.
    void append_inputs(int64_t record, size_t way, std::vector<int32_t>& ids) const { append(2 * place(record, way), ids); }
    void append_targets(int64_t record, size_t way, std::vector<int32_t>& ids) const { append(2 * place(record, way) + 1, ids); }

    uint64_t hash() const { return hash_; }  ///< of the tokens
    int64_t tokens() const;
    const ReadCounts& counts() const { return counts_; }
    bool from_cache() const { return from_cache_; }
    /// Processor time, of all threads, that reading, asking and tokenising took; 0 from a cache.
    double made_seconds() const { return made_seconds_; }

private:
    int64_t place(int64_t record, size_t way) const { return record * static_cast<int64_t>(ways_.size()) + static_cast<int64_t>(way); }
    std::pair<int64_t, int64_t> document(int64_t index) const;
    void append(int64_t document, std::vector<int32_t>& ids) const;
    uint64_t hash_of_tokens() const;
    ShardContent make(const Task& task, const std::string& split, bool language_tag, const Tokenizer& tokenizer);
    bool load(const std::filesystem::path& stem);
    void save(const std::filesystem::path& stem, const ShardContent& content, const Tokenizer& tokenizer) const;

    std::vector<Way> ways_;
    int64_t records_ = 0;
    uint64_t hash_ = 0;
    ReadCounts counts_;
    bool from_cache_ = false;
    double made_seconds_ = 0;
    ShardContent memory_;
    std::optional<TokenShard> shard_;
};

}  // namespace flanmoe

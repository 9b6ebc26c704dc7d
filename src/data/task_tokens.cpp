// See the header. A folder's cache is locked while one is made, so that ranks on one machine make it once.
#include "data/task_tokens.hpp"

#include "core/error.hpp"
#include "core/file_lock.hpp"
#include "core/log.hpp"
#include "core/parallel.hpp"
#include "core/processor_time.hpp"
#include "data/byte_source.hpp"
#include "data/readers/reader.hpp"
#include "data/json_value.hpp"
#include "data/readers/downstream.hpp"

#include <xxhash.h>

namespace flanmoe {

namespace {

namespace fs = std::filesystem;

constexpr uint64_t form = 3;  // of the cache: raise it when the same examples become other tokens

uint64_t mix(uint64_t hash, std::string_view bytes) { return XXH3_64bits_withSeed(bytes.data(), bytes.size(), hash); }
uint64_t mix(uint64_t hash, uint64_t value) { return XXH3_64bits_withSeed(&value, sizeof value, hash); }

uint64_t key_of(const Task& task, const std::string& split, bool language_tag, const Tokenizer& tokenizer) {
    uint64_t hash = mix(mix(mix(mix(mix(form, examples_form), tokenizer.hash()), task.hash), split), uint64_t{language_tag});
    for (const fs::path& path : task.dependencies(split)) hash = mix(mix(hash, path.filename().string()), MappedFile(path).bytes());
    return hash;
}

std::string file_name(const Task& task, const std::string& split, uint64_t key) {
    std::string name = task.name + "." + split;
    for (char& c : name)
        if (!std::isalnum(static_cast<unsigned char>(c)) && c != '.' && c != '_' && c != '-') c = '-';
    return fmt::format("{}-{:016x}", name.substr(0, 120), key);
}

// Names of the counts in the file beside the tokens.
std::vector<std::pair<const char*, int64_t*>> count_names(ReadCounts& c) {
    return {{"records", &c.records}, {"malformed", &c.malformed}, {"headers", &c.headers}, {"not_chosen", &c.not_chosen}, {"unknown_ids", &c.unknown_ids}};
}

}  // namespace

fs::path lock_of_cache(const fs::path& folder) {
    std::error_code error;
    fs::create_directories(folder, error);
    if (error) fail(Exit::cannot_create, "the cache folder {} cannot be made: {}; choose another (data.cache)", folder.string(), error.message());
    return folder / ".lock";
}

TaskTokens::TaskTokens(const Task& task, const std::string& split, bool language_tag, const Tokenizer& tokenizer, const fs::path& cache) {
    for (size_t i = 0; i < task.templates.size(); ++i)
        for (int without = 0; without <= static_cast<int>(task.templates[i].shows_options); ++without) ways_.push_back({i, without == 0, task.templates[i].inverted});
    if (cache.empty() || !task.has_split(split)) {
        memory_ = make(task, split, language_tag, tokenizer);
    } else {
        for (const fs::path& path : task.files.at(split))
            if (!fs::exists(path)) task.read(split);  // says where to get it
        FileLock lock(lock_of_cache(cache));
        lock.lock();
        const fs::path stem = cache / file_name(task, split, key_of(task, split, language_tag, tokenizer));
        from_cache_ = load(stem);
        if (!from_cache_) {
            save(stem, make(task, split, language_tag, tokenizer), tokenizer);
            require(load(stem), "a cache that was just written");
        }
    }
    hash_ = hash_of_tokens();
}

// The same for tokens in memory and in a cache, whatever its form.
uint64_t TaskTokens::hash_of_tokens() const {
    std::vector<int32_t> ids;
    const int64_t documents = 2 * records_ * static_cast<int64_t>(ways_.size());
    uint64_t hash = static_cast<uint64_t>(ways_.size());
    for (int64_t d = 0; d < documents; ++d) {
        ids.clear();
        append(d, ids);
        hash = XXH3_64bits_withSeed(ids.data(), ids.size() * sizeof(int32_t), hash);
    }
    return hash;
}

ShardContent TaskTokens::make(const Task& task, const std::string& split, bool language_tag, const Tokenizer& tokenizer) {
    const double start = processor_seconds();
    const std::vector<Record> records = task.read(split, &counts_);
    records_ = static_cast<int64_t>(records.size());
    ShardContent content;
    constexpr size_t block = 2048;
    std::vector<std::vector<int32_t>> parts;
    for (size_t first = 0; first < records.size(); first += block) {
        const size_t count = std::min(block, records.size() - first);
        parts.assign(count * ways_.size() * 2, {});
        parallel_for(static_cast<int64_t>(count), 16, [&](int64_t begin, int64_t end) {
            for (auto r = static_cast<size_t>(begin); r < static_cast<size_t>(end); ++r)
                for (size_t w = 0; w < ways_.size(); ++w) {
                    const auto example = task.render(records[first + r], ways_[w].index, ways_[w].with_options);
                    if (!example) continue;
                    const std::string inputs = language_tag ? "[" + task.language + "] " + example->inputs : example->inputs;
                    parts[(r * ways_.size() + w) * 2] = tokenizer.encode_with_sentinels(inputs);
                    parts[(r * ways_.size() + w) * 2 + 1] = tokenizer.encode_with_sentinels(example->targets[0]);
                }
        });
        for (const std::vector<int32_t>& part : parts) {
            content.tokens.insert(content.tokens.end(), part.begin(), part.end());
            content.document_ends.push_back(static_cast<int64_t>(content.tokens.size()));
        }
    }
    made_seconds_ = processor_seconds() - start;
    return content;
}

bool TaskTokens::load(const fs::path& stem) {
    const fs::path tokens = stem.string() + ".tokens", counts = stem.string() + ".json";
    if (!fs::exists(tokens) || !fs::exists(counts)) return false;
    try {
        DataValue value;
        if (!JsonParser().parse(read_file(counts), value).empty()) return false;
        ReadCounts counts;
        for (const auto& [name, count] : count_names(counts)) {
            const DataValue* number = value.find(name);
            if (!number || !number->integer()) return false;
            *count = *number->integer();
        }
        const DataValue* problems = value.find("problems");
        if (!problems || !problems->list()) return false;
        for (const DataValue& problem : *problems->list()) counts.problems.push_back(problem.as_text());
        shard_.emplace(tokens);
        shard_->verify();
        records_ = counts.records;
        if (shard_->documents() != records_ * static_cast<int64_t>(ways_.size()) * 2) return false;
        counts_ = counts;
        return true;
    } catch (const Error& error) {
        if (error.code != Exit::corruption && error.code != Exit::bad_data) throw;
        info("the cache {} is damaged and made again", tokens.string());
        shard_.reset();
        return false;
    }
}

void TaskTokens::save(const fs::path& stem, const ShardContent& content, const Tokenizer& tokenizer) const {
    DataValue counts{DataValue::Object{}};
    ReadCounts copy = counts_;
    for (const auto& [name, count] : count_names(copy)) counts.set(name, *count);
    counts.set("problems", DataValue(counts_.problems));
    write_shard(stem.string() + ".tokens", content, tokenizer.hash(), tokenizer.size());
    write_file_atomically(stem.string() + ".json", counts.json() + "\n");
}

std::pair<int64_t, int64_t> TaskTokens::document(int64_t index) const {
    if (shard_) return shard_->document(index);
    return {index == 0 ? 0 : memory_.document_ends[static_cast<size_t>(index) - 1], memory_.document_ends[static_cast<size_t>(index)]};
}

std::pair<int64_t, int64_t> TaskTokens::lengths(int64_t record, size_t way) const {
    const auto inputs = document(2 * place(record, way)), targets = document(2 * place(record, way) + 1);
    return {inputs.second - inputs.first, targets.second - targets.first};
}

void TaskTokens::append(int64_t index, std::vector<int32_t>& ids) const {
    const auto [first, last] = document(index);
    if (!shard_) {
        ids.insert(ids.end(), memory_.tokens.begin() + first, memory_.tokens.begin() + last);
        return;
    }
    thread_local std::vector<int32_t> piece;
    shard_->read(first, last - first, piece);
    ids.insert(ids.end(), piece.begin(), piece.end());
}

int64_t TaskTokens::tokens() const { return shard_ ? shard_->tokens() : static_cast<int64_t>(memory_.tokens.size()); }

}  // namespace flanmoe

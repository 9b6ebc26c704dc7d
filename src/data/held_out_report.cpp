// Overlaps as JSON: the report that evaluation reads, and the form in which a search is kept.
#include "core/error.hpp"
#include "core/file.hpp"
#include "core/file_lock.hpp"
#include "data/byte_source.hpp"
#include "data/held_out.hpp"
#include "data/task_tokens.hpp"

#include <nlohmann/json.hpp>
#include <xxhash.h>

namespace flanmoe {

namespace {

using Json = nlohmann::ordered_json;

constexpr uint64_t form = 1;  // of the search: raise it when it finds other things in the same records

uint64_t mix(uint64_t hash, std::string_view bytes) { return XXH3_64bits_withSeed(bytes.data(), bytes.size(), hash); }
uint64_t mix(uint64_t hash, uint64_t value) { return XXH3_64bits_withSeed(&value, sizeof value, hash); }

// The declaration and every file of a split, by path and bytes; one that is not there counts as such.
uint64_t mix(uint64_t hash, const Task& task, const std::string& split) {
    hash = mix(mix(mix(hash, task.name), task.hash), split);
    for (const std::filesystem::path& path : task.dependencies(split)) {
        hash = mix(hash, path.string());
        hash = std::filesystem::exists(path) ? mix(hash, MappedFile(path).bytes()) : mix(hash, uint64_t{0});
    }
    return hash;
}

uint64_t key_of(const MixtureFile& mixture) {
    uint64_t hash = mix(mix(form, examples_form), static_cast<uint64_t>(mixture.held_out.ngram));
    for (const auto& task : mixture.held_out.tasks)
        for (const std::string& split : mixture.held_out.splits)
            hash = task->has_split(split) ? mix(hash, *task, split) : mix(mix(hash, task->name), split);
    for (const MixtureTask& task : mixture.tasks) hash = mix(hash, *task.task, task.split);
    return hash;
}

}  // namespace

std::string Overlaps::json() const {
    Json all = {{"items", Json::array()}, {"pairs", Json::array()}, {"places", Json::array()}, {"files", files}, {"missing", missing}, {"records", records}};
    for (const Items& i : items)
        all["items"].push_back({{"task", i.task}, {"items", i.items}, {"too_short", i.too_short}, {"malformed", i.malformed}, {"exact", i.exact}, {"ngram", i.ngram}, {"kin", i.kin}});
    for (const Pair& p : pairs) all["pairs"].push_back({{"held_out", p.held_out}, {"trained", p.trained}, {"exact", p.exact}, {"ngram", p.ngram}, {"item", p.item}, {"record", p.record}});
    for (const Place& p : places) all["places"].push_back({{"item", p.item}, {"exact", p.exact}});
    return all.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

Overlaps Overlaps::from_json(const std::string& text, const std::string& origin) {
    Overlaps o;
    try {
        const Json all = Json::parse(text);
        for (const Json& i : all.at("items"))
            o.items.push_back({i.at("task"), i.at("items"), i.at("too_short"), i.at("malformed"), i.at("exact"), i.at("ngram"), i.at("kin").get<std::vector<std::string>>()});
        for (const Json& p : all.at("pairs")) o.pairs.push_back({p.at("held_out"), p.at("trained"), p.at("exact"), p.at("ngram"), p.at("item"), p.at("record")});
        for (const Json& p : all.at("places")) o.places.push_back({p.at("item"), p.at("exact")});
        o.files = all.at("files").get<std::vector<std::string>>();
        o.missing = all.at("missing").get<std::vector<std::string>>();
        o.records = all.at("records").get<std::vector<std::vector<int64_t>>>();
    } catch (const Json::exception& error) {
        fail(Exit::bad_data, "{} is no report of a search for held-out items ({}); write one with flanmoe data mixture --held-out-report", origin, error.what());
    }
    return o;
}

Overlaps cached_overlaps(const MixtureFile& mixture, const std::filesystem::path& cache) {
    if (cache.empty()) return find_overlaps(mixture);
    FileLock lock(lock_of_cache(cache));  // ranks on one machine search once
    lock.lock();
    const std::filesystem::path path = cache / fmt::format("held-out-{:016x}.json", key_of(mixture));
    if (std::filesystem::exists(path)) {
        try {
            Overlaps kept = Overlaps::from_json(read_file(path), path.string());
            if (kept.records.size() == mixture.tasks.size()) return kept;
        } catch (const Error& error) {
            if (error.code != Exit::bad_data) throw;  // damaged: searched again
        }
    }
    const Overlaps found = find_overlaps(mixture);
    write_file_atomically(path, found.json());
    return found;
}

}  // namespace flanmoe

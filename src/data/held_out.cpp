// See the header. An item is found by the hash of its n-grams; its first one also leads to the hash of the whole.
#include "data/held_out.hpp"

#include "core/error.hpp"
#include "core/parallel.hpp"
#include "data/strings.hpp"
#include "data/templates/characters.hpp"

#include <xxhash.h>

#include <algorithm>
#include <map>

namespace flanmoe {

namespace {

constexpr size_t least_words = 5;

// Scripts that put no spaces between words: each character is a word of its own.
bool stands_alone(char32_t c) {
    for (const auto& [first, last] : {std::pair<char32_t, char32_t>{0xe00, 0xeff}, {0x1000, 0x109f}, {0x1780, 0x17ff}, {0x3040, 0x30ff}, {0x3400, 0x4dbf}, {0x4e00, 0x9fff}, {0xf900, 0xfaff}, {0x20000, 0x3ffff}})
        if (c >= first && c <= last) return true;
    return false;
}

bool is_digit(char32_t c) { return c >= '0' && c <= '9'; }

std::vector<uint64_t> hashes_of(std::string_view text) {
    std::vector<uint64_t> hashes;
    for (const std::string& word : overlap_words(text)) hashes.push_back(XXH3_64bits(word.data(), word.size()));
    return hashes;
}

uint64_t hash_of(const std::vector<uint64_t>& words, int64_t first, int64_t count) {
    return XXH3_64bits_withSeed(words.data() + first, static_cast<size_t>(count) * sizeof(uint64_t), static_cast<uint64_t>(count));
}

// Without the list of options behind a question, which others list otherwise.
std::string without_options(const std::string& text) {
    size_t end = text.size();
    for (const char* mark : {"\nOptions:", "\nOPTIONS:", "\nAnswer Choices:"}) end = std::min(end, text.find(mark));
    const std::string question = text.substr(0, end);
    return overlap_words(question).size() >= least_words ? question : text;
}

// What of a record asks: the first of these that is long enough, else the first.
std::string item_text(const DataValue& fields) {
    const auto text = [&](const char* name) {
        const DataValue* value = fields.find(name);
        return value && value->text() ? *value->text() : std::string();
    };
    std::string first;
    for (const char* name : {"question", "input", "inputs", "sentence", "premise", "context"}) {
        const std::string found = name == std::string_view("premise") ? text("premise") + " " + text("hypothesis") : text(name);
        if (overlap_words(found).size() >= least_words) return without_options(found);
        if (first.empty()) first = found;
    }
    return first;
}

// The texts of a record in which items are looked for: as it is asked, and the two sentences of a pair one behind the other, as an item of it has them.
std::vector<std::string> training_texts(const Task& task, const Record& record) {
    std::vector<std::string> texts;
    for (size_t t = 0; texts.empty() && t < task.templates.size(); ++t)
        if (const auto example = task.render(record, t, true)) texts.push_back(example->inputs + " " + example->targets[0]);
    if (record.fields.find("premise")) texts.push_back(item_text(record.fields));
    return texts;
}

bool share_source(const Task& a, const Task& b) {
    return std::any_of(a.derived_from.begin(), a.derived_from.end(), [&](const std::string& source) { return std::find(b.derived_from.begin(), b.derived_from.end(), source) != b.derived_from.end(); });
}

}  // namespace

std::vector<std::string> overlap_words(std::string_view text) {
    std::vector<std::string> words;
    bool inside = false;
    const std::u32string all = code_points(text);
    const auto at = [&](size_t i) { return i < all.size() ? all[i] : U' '; };
    for (size_t i = 0; i < all.size(); ++i) {
        const char32_t c = all[i];
        if (!templates::is_of_word(c)) {
            const bool apostrophe = c == U'\'' || c == U'\u2019', comma = c == U',' && i > 0 && is_digit(all[i - 1]) && is_digit(at(i + 1)) && is_digit(at(i + 2)) && is_digit(at(i + 3));
            inside = inside && ((apostrophe && templates::is_of_word(at(i + 1))) || comma);  // "don't", "1,000"
            continue;
        }
        const bool alone = stands_alone(c);
        if (!inside || alone) words.emplace_back();
        if (c == 0xdf)
            words.back() += "ss";  // what its upper case is
        else
            append_utf8(words.back(), c == 0x3c2 ? char32_t{0x3c3} : templates::lower_letter(c));  // a final sigma is a sigma
        inside = !alone;
    }
    return words;
}

bool HeldOutIndex::add(int64_t item, std::string_view text) {
    const std::vector<uint64_t> words = hashes_of(text);
    const auto count = static_cast<int64_t>(words.size());
    if (words.size() < least_words) return false;
    const int64_t length = std::min(count, ngram_), whole = count;
    if (count < ngram_ && std::find(short_lengths_.begin(), short_lengths_.end(), count) == short_lengths_.end()) short_lengths_.push_back(count);
    for (int64_t i = 0; i + length <= count; ++i) {
        const uint64_t hash = hash_of(words, i, length);
        const auto [first, last] = places_.equal_range(hash);
        if (i > 0 && std::any_of(first, last, [&](const auto& place) { return place.second.item == item; })) continue;
        places_.emplace(hash, Place{item, i == 0 ? whole : 0, i == 0 ? hash_of(words, 0, whole) : 0});
    }
    return true;
}

std::vector<HeldOutIndex::Match> HeldOutIndex::find(std::string_view text) const {
    const std::vector<uint64_t> words = hashes_of(text);
    const auto count = static_cast<int64_t>(words.size());
    std::map<int64_t, bool> found;
    std::vector<int64_t> lengths = short_lengths_;
    lengths.push_back(ngram_);
    for (int64_t length : lengths)
        for (int64_t i = 0; i + length <= count; ++i) {
            const auto [first, last] = places_.equal_range(hash_of(words, i, length));
            for (auto place = first; place != last; ++place) {
                const Place& p = place->second;
                const bool exact = p.words > 0 && i + p.words <= count && hash_of(words, i, p.words) == p.whole;
                bool& known = found[p.item];
                known = known || exact;
            }
        }
    std::vector<Match> matches;
    for (const auto& [item, exact] : found) matches.push_back({item, exact});
    return matches;
}

int64_t Overlaps::found() const {
    int64_t sum = 0;
    for (const std::vector<int64_t>& of_task : records) sum += static_cast<int64_t>(of_task.size());
    return sum;
}

namespace {

/// Held-out items, in the order in which they are added to the index.
struct Item {
    size_t task;
    std::string place;
    int found = 0;  // 1: by n-grams, 2: exactly
};

std::vector<Item> read_items(const HeldOut& held_out, HeldOutIndex& index, Overlaps& overlaps) {
    std::vector<Item> items;
    for (const auto& task : held_out.tasks) {
        overlaps.items.push_back({task->name});
        Overlaps::Items& of_task = overlaps.items.back();
        if (std::none_of(held_out.splits.begin(), held_out.splits.end(), [&](const std::string& split) { return task->has_split(split); }))
            fail(Exit::usage, "held-out task {} ({}) has none of the splits {}; name one of its own in [held_out], or take it out", task->name, task->declared, fmt::join(held_out.splits, ", "));
        for (const std::string& split : held_out.splits) {
            if (!task->has_split(split)) continue;
            const auto& files = task->files.at(split);
            const auto absent = std::find_if(files.begin(), files.end(), [](const auto& file) { return !std::filesystem::exists(file); });
            if (absent != files.end()) {
                overlaps.missing.push_back(std::filesystem::path(*absent).string());
                continue;
            }
            for (const auto& file : files) overlaps.files.push_back(file.string());
            ReadCounts counts;
            for (const Record& record : task->read(split, &counts)) {
                ++of_task.items;
                if (index.add(static_cast<int64_t>(items.size()), item_text(record.fields)))
                    items.push_back({overlaps.items.size() - 1, record.place()});
                else
                    ++of_task.too_short;
            }
            of_task.malformed += counts.malformed;
        }
    }
    return items;
}

void search(const MixtureTask& trained, const HeldOutIndex& index, std::vector<Item>& items, Overlaps& overlaps) {
    std::vector<int64_t>& found = overlaps.records.emplace_back();
    std::map<size_t, Overlaps::Pair> pairs;
    const std::vector<Record> records = trained.task->read(trained.split);
    std::vector<std::map<int64_t, bool>> matches(records.size());
    parallel_for(static_cast<int64_t>(records.size()), 16, [&](int64_t begin, int64_t end) {
        for (auto r = static_cast<size_t>(begin); r < static_cast<size_t>(end); ++r)
            for (const std::string& text : training_texts(*trained.task, records[r]))
                for (const HeldOutIndex::Match& match : index.find(text)) matches[r][match.item] |= match.exact;
    });
    for (size_t r = 0; r < records.size(); ++r) {
        if (!matches[r].empty()) found.push_back(static_cast<int64_t>(r));
        for (const auto& [number, exact] : matches[r]) {
            Item& item = items[static_cast<size_t>(number)];
            item.found = std::max(item.found, exact ? 2 : 1);
            Overlaps::Pair& pair = pairs[item.task];
            pair.held_out = overlaps.items[item.task].task, pair.trained = trained.task->name;
            if (pair.record.empty() || (exact && pair.exact == 0)) pair.item = item.place, pair.record = records[r].place();
            ++(exact ? pair.exact : pair.ngram);
        }
    }
    for (auto& [task, pair] : pairs) overlaps.pairs.push_back(std::move(pair));
}

}  // namespace

Overlaps find_overlaps(const MixtureFile& mixture) {
    Overlaps overlaps;
    HeldOutIndex index(mixture.held_out.ngram);
    std::vector<Item> items = read_items(mixture.held_out, index, overlaps);
    for (const MixtureTask& trained : mixture.tasks) {
        search(trained, index, items, overlaps);
        for (size_t t = 0; t < mixture.held_out.tasks.size(); ++t)
            if (share_source(*mixture.held_out.tasks[t], *trained.task)) overlaps.items[t].kin.push_back(trained.task->name);
    }
    for (const Item& item : items) {
        overlaps.items[item.task].exact += item.found == 2;
        overlaps.items[item.task].ngram += item.found == 1;
        if (item.found) overlaps.places.push_back({item.place, item.found == 2});
    }
    return overlaps;
}

}  // namespace flanmoe

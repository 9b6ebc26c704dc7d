#include "data/toyworld/generate.hpp"

#include "core/error.hpp"
#include "core/file.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

namespace flanmoe::toyworld {

const std::vector<Family>& families() {
    static const std::vector<Family> all = [] {
        std::vector<Family> rows;
        for (const auto group :
             {reading_families, reasoning_families, number_families, list_families, letter_families, language_families, finetune_families}) {
            for (Family& family : group()) rows.push_back(std::move(family));
        }
        return rows;
    }();
    return all;
}

std::string render(const Family& family, size_t index, const Instance& instance) {
    const Word pattern = family.templates[index];
    std::string text;
    for (size_t i = 0; i < pattern.size(); ++i) {
        if (pattern[i] == '{') {
            text += instance.fields.at(static_cast<size_t>(pattern[i + 1] - '0'));
            i += 2;
        } else {
            text += pattern[i];
        }
    }
    return text;
}

Splits draw_splits(const Family& family, const World& world, const Sizes& sizes) {
    Draw draw(world, sizes.seed, family.name);
    const size_t train = family.role == Role::seen ? sizes.train : family.role == Role::finetune ? sizes.finetune : 0;
    const size_t validation = train ? sizes.validation : 0;
    const size_t wanted = sizes.test + validation + train;
    std::set<std::vector<std::string>> known;
    std::vector<Instance> instances;
    // A family is exhausted, or nearly so, when a long row of draws brings nothing new.
    for (size_t misses = 0; instances.size() < wanted && misses < 1000;) {
        Instance instance = family.draw(draw);
        if (known.insert(instance.fields).second) {
            instances.push_back(std::move(instance));
            misses = 0;
        } else {
            ++misses;
        }
    }
    require(instances.size() >= std::min(wanted, 2 * (sizes.test + validation)),
            "a family with more instances than twice its test and validation splits");

    Splits splits;
    const size_t first_train = sizes.test + validation, templates = family.templates.size();
    const auto example = [&](size_t i, size_t pass) {
        const size_t index = (i + pass) % templates;
        return Example{render(family, index, instances[i]), instances[i].target, index, instances[i].options};
    };
    for (size_t i = 0; i < sizes.test; ++i) splits.test.push_back(example(i, 0));
    for (size_t i = sizes.test; i < first_train; ++i) splits.validation.push_back(example(i, 0));
    for (size_t pass = 0; pass < templates && splits.train.size() < train; ++pass) {
        for (size_t i = first_train; i < instances.size() && splits.train.size() < train; ++i) splits.train.push_back(example(i, pass));
    }
    return splits;
}

size_t majority_hits(const Splits& splits) {
    std::map<std::string, size_t> count;
    for (const Example& e : splits.train.empty() ? splits.test : splits.train) ++count[e.targets];
    std::string best;
    for (const auto& [answer, n] : count) {
        if (best.empty() || n > count[best]) best = answer;
    }
    size_t hits = 0;
    for (const Example& e : splits.test) hits += e.targets == best;
    return hits;
}

std::string json_line(const Family& family, const Example& example) {
    // Texts of the toy world hold letters, digits, spaces and plain punctuation: nothing that JSON escapes.
    std::string line = fmt::format(R"({{"inputs": "{}", "targets": "{}", "task": "{}", "template": {})", example.inputs, example.targets, family.name,
                                   example.template_index);
    if (!example.options.empty()) line += R"(, "options": [")" + join(example.options, R"(", ")") + R"("])";
    return line + "}\n";
}

namespace {

constexpr Word role_names[] = {"seen", "heldout", "finetune"};

void write_examples(const std::filesystem::path& path, const Family& family, const std::vector<Example>& examples) {
    std::filesystem::create_directories(path.parent_path());
    OutputFile file(path);
    for (const Example& e : examples) file.write(json_line(family, e));
    file.close(false);
}

void write_family(const std::filesystem::path& folder, const Family& family, const Splits& splits) {
    const std::string name(family.name), file = name + ".jsonl";
    if (family.role == Role::finetune) {
        write_examples(folder / "finetune" / name / "train.jsonl", family, splits.train);
        write_examples(folder / "finetune" / name / "valid.jsonl", family, splits.validation);
        write_examples(folder / "finetune" / name / "test.jsonl", family, splits.test);
    } else if (family.role == Role::seen) {
        write_examples(folder / "instruct" / "train" / file, family, splits.train);
        write_examples(folder / "instruct" / "valid" / file, family, splits.validation);
        write_examples(folder / "eval" / "seen" / file, family, splits.test);
    } else {
        write_examples(folder / "eval" / "heldout" / file, family, splits.test);
    }
}

/// An earlier toy world may be written over; anything else is left alone.
void check_folder(const std::filesystem::path& folder) {
    std::error_code error;
    std::filesystem::create_directories(folder, error);
    if (error) fail(Exit::cannot_create, "cannot create the folder {}: {}; name a folder that can be written", folder.string(), error.message());
    if (!std::filesystem::is_empty(folder) && !std::filesystem::exists(folder / "manifest.json")) {
        fail(Exit::cannot_create, "the folder {} holds other files; name an empty or a new folder for the toy world", folder.string());
    }
    for (const char* part : {"corpus", "instruct", "eval", "finetune"}) std::filesystem::remove_all(folder / part);
}

/// What a vocabulary learns from besides the corpus: some training examples; of held-out families only the words of the templates.
std::string vocabulary_text(const Family& family, const Splits& splits) {
    constexpr size_t enough = 300;
    std::string text;
    for (size_t i = 0; i < std::min(enough, splits.train.size()); ++i) text += splits.train[i].inputs + '\n' + splits.train[i].targets + '\n';
    if (splits.train.empty()) {
        const Instance blank{std::vector<std::string>(10), "", {}};
        for (size_t i = 0; i < family.templates.size(); ++i) text += render(family, i, blank) + '\n';
    }
    return text;
}

}  // namespace

std::string family_table(uint64_t seed) {
    const World world(seed);
    std::string table = "| family | role | question | answer |\n|---|---|---|---|\n";
    for (const Family& family : families()) {
        Draw draw(world, seed, family.name);
        const Instance instance = family.draw(draw);
        table += fmt::format("| `{}` | {} | {} | {} |\n", family.name, role_names[static_cast<size_t>(family.role)], render(family, 0, instance),
                             instance.target);
    }
    return table;
}

std::string generate(const std::filesystem::path& folder, const Sizes& sizes) {
    check_folder(folder);
    const World world(sizes.seed);
    std::string rows, files, vocabulary;
    for (const Family& family : families()) {
        const Splits splits = draw_splits(family, world, sizes);
        write_family(folder, family, splits);
        vocabulary += vocabulary_text(family, splits);
        rows += fmt::format(R"({}    {{"task": "{}", "role": "{}", "templates": {}, "train": {}, "valid": {}, "test": {}, "majority_hits": {}}})",
                            rows.empty() ? "" : ",\n", family.name, role_names[static_cast<size_t>(family.role)], family.templates.size(),
                            splits.train.size(), splits.validation.size(), splits.test.size(), majority_hits(splits));
    }
    std::filesystem::create_directories(folder / "corpus");
    for (const CorpusFile& corpus : write_corpus(world, sizes)) {
        OutputFile file(folder / "corpus" / corpus.name);
        file.write(corpus.text);
        file.close(false);
        vocabulary += corpus.text;
        files += fmt::format(R"({}    {{"file": "corpus/{}", "bytes": {}}})", files.empty() ? "" : ",\n", corpus.name, corpus.text.size());
    }
    const std::string manifest =
        fmt::format("{{\n  \"world\": \"toyworld\",\n  \"version\": 1,\n  \"seed\": {},\n  \"families\": [\n{}\n  ],\n  \"corpus\": [\n{}\n  ]\n}}\n",
                    sizes.seed, rows, files);
    write_file_atomically(folder / "vocabulary.txt", vocabulary);
    write_file_atomically(folder / "manifest.json", manifest);  // last: its presence says that the rest is whole
    return manifest;
}

}  // namespace flanmoe::toyworld

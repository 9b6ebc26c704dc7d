// Generates the toy world: a corpus, instruction data with held-out instances and families, downstream tasks. See data/README.md.
#pragma once

#include "data/toyworld/family.hpp"

#include <cstdint>
#include <filesystem>

namespace flanmoe::toyworld {

/// Sizes. Where a family has fewer different instances than asked for, train instances come again under their other templates.
struct Sizes {
    uint64_t seed = 1;
    size_t train = 6000;      ///< training examples a seen family
    size_t validation = 50;   ///< validation instances a family
    size_t test = 100;        ///< test instances a family
    size_t finetune = 2000;   ///< training examples a downstream task
    size_t documents = 6000;  ///< documents of the corpus
};

struct Example {
    std::string inputs, targets;
    size_t template_index = 0;
    std::vector<std::string> options;
};

struct Splits {
    std::vector<Example> train, validation, test;
};

/// Draws one family's examples. No instance is in two splits, no two examples have the same inputs. Held-out families have only a test split.
Splits draw_splits(const Family& family, const World& world, const Sizes& sizes);

/// Test examples that the most frequent training answer (of the test split itself where there is no training split) gets right.
size_t majority_hits(const Splits& splits);

/// Name and text of every corpus file; documents are one line each, with an empty line between.
struct CorpusFile {
    std::string name, text;
};
std::vector<CorpusFile> write_corpus(const World& world, const Sizes& sizes);

/// Markdown table of the families under one seed: name, role, one example. data/toyworld/families.md is the one of seed 1.
std::string family_table(uint64_t seed);

/// One JSON line of an example.
std::string json_line(const Family& family, const Example& example);

/// Writes everything to `folder` (created; Exit::cannot_create if it holds other files than an earlier toy world).
/// Returns the manifest, which is also written as manifest.json.
std::string generate(const std::filesystem::path& folder, const Sizes& sizes);

}  // namespace flanmoe::toyworld

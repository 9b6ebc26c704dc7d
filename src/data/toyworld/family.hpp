// Task families of the toy world.
//
// A family is one row of a table: name, role, instruction templates, and a function that draws one instance. An instance is what the
// question is about (`fields`, the template's {0}, {1}, ...), the one right answer, and for closed sets the answers to choose from. The split
// into train, validation and test is by the fields, so no test instance is seen in training under any template.
#pragma once

#include "data/toyworld/draw.hpp"

namespace flanmoe::toyworld {

struct Instance {
    std::vector<std::string> fields;
    std::string target;
    std::vector<std::string> options;  ///< empty = open answer
};

/// seen: instruction tuning and evaluation; heldout: evaluation only; finetune: a downstream task, no part of instruction tuning.
enum class Role : uint8_t { seen, heldout, finetune };

struct Family {
    Word name;
    Role role;
    std::vector<Word> templates;  ///< each uses every field
    Instance (*draw)(Draw&);
};

/// All families, grouped by skill: reading, reasoning, sentiment, numbers, lists, letters, language, knowledge; held-out and downstream ones
/// included.
const std::vector<Family>& families();

/// Template `index` of `family` with the fields of `instance`.
std::string render(const Family& family, size_t index, const Instance& instance);

// The groups that make up families(), one file each.
std::vector<Family> reading_families();
std::vector<Family> reasoning_families();
std::vector<Family> number_families();
std::vector<Family> list_families();
std::vector<Family> letter_families();
std::vector<Family> language_families();
std::vector<Family> finetune_families();

}  // namespace flanmoe::toyworld

// Tensors as a tree of their names, in which numbered branches that look the same (layers, experts) are folded into one.
//
// Names are cut at the dots. Siblings whose names differ only in a number at their end and whose sub-trees have the same names, types and shapes
// become one branch, "block.1-7", and so do those with names of one letter, "k,q,v"; a branch with a single child is joined with it.
#pragma once

#include "checkpoint/safetensors.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace flanmoe {

struct TreeRow {
    std::string guide;  ///< lines of the tree in front of the label
    std::string label;  ///< escaped for terminals
    std::string path;   ///< all labels from the root, joined by dots: the folded name
    std::vector<const TensorEntry*> tensors;  ///< of the branch, every copy; of a leaf: what is folded into it
    bool leaf = false;
    int64_t copies = 1;      ///< tensors of a leaf, branches of an inner row
    int64_t parameters = 0;  ///< sums over `tensors`
    int64_t bytes = 0;
};

/// The rows in the order in which they are shown: embedding, encoder, decoder, head, then by name. Without folding every tensor has a row.
std::vector<TreeRow> tensor_tree(const std::vector<const TensorEntry*>& tensors, bool fold);

/// Text from a file, safe to print: control characters and broken UTF-8 as escapes.
std::string printable(std::string_view text);

}  // namespace flanmoe

#include "checkpoint/tensor_tree.hpp"

#include "checkpoint/hashed_file.hpp"

#include <algorithm>
#include <map>
#include <memory>
#include <tuple>

namespace flanmoe {

namespace {

// A component of a name, cut into its front and the number at its end (-1: none).
struct Numbered {
    std::string front;
    int64_t number = -1;
    explicit Numbered(const std::string& text) : front(text) {
        size_t digits = text.size();
        while (digits > 0 && text[digits - 1] >= '0' && text[digits - 1] <= '9') --digits;
        const size_t count = text.size() - digits;
        if (count == 0 || count > 9 || (count > 1 && text[digits] == '0')) return;
        front = text.substr(0, digits);
        number = std::stoll(text.substr(digits));
    }
};

int rank_of(const std::string& component) {
    constexpr const char* first[] = {"shared", "encoder", "decoder", "model", "lm_head"};
    for (int i = 0; i < 5; ++i)
        if (component == first[i]) return i;
    return 5;
}

struct ComponentOrder {
    bool operator()(const std::string& a, const std::string& b) const {
        const Numbered left(a), right(b);
        return std::make_tuple(rank_of(a), std::cref(left.front), left.number, std::cref(a)) <
               std::make_tuple(rank_of(b), std::cref(right.front), right.number, std::cref(b));
    }
};

struct Node {
    const TensorEntry* tensor = nullptr;
    std::map<std::string, std::unique_ptr<Node>, ComponentOrder> children;
    std::string signature;  // hash over everything below

    void sign() {
        std::string text = tensor ? fmt::format("{}{}", name_of(tensor->type), tensor->shape_text()) : "";
        for (auto& [name, child] : children) {
            child->sign();
            text += "\n" + name + "\t" + child->signature;
        }
        signature = hash_bytes(text);
    }
    bool only_numbers_below() const {
        return !tensor && !children.empty() && std::all_of(children.begin(), children.end(), [](const auto& child) {
            const Numbered name(child.first);
            return name.number >= 0 && name.front.empty();
        });
    }
};

// "0-3,5".
std::string ranges(const std::vector<int64_t>& numbers) {
    std::string text;
    for (size_t i = 0; i < numbers.size();) {
        size_t last = i;
        while (last + 1 < numbers.size() && numbers[last + 1] == numbers[last] + 1) ++last;
        text += fmt::format("{}{}", text.empty() ? "" : ",", numbers[i]);
        if (last > i) text += fmt::format("{}{}", last == i + 1 ? "," : "-", numbers[last]);
        i = last + 1;
    }
    return text;
}

// A branch to show: nodes with the same structure under one label.
struct Branch {
    std::string label;
    std::vector<const Node*> nodes;
};

class Renderer {
public:
    explicit Renderer(bool fold) : fold_(fold) {}
    std::vector<TreeRow> rows;

    void show(const std::vector<const Node*>& parents, const std::string& guide, const std::string& path, bool root) {
        const std::vector<Branch> branches = branches_of(parents, "");
        for (size_t i = 0; i < branches.size(); ++i) {
            Branch branch = branches[i];
            // Join with an only child.
            while (!branch.nodes[0]->tensor) {
                std::vector<Branch> below = branches_of(branch.nodes, branch.label + ".");
                if (below.size() != 1) break;
                branch = std::move(below[0]);
            }
            const bool last = i + 1 == branches.size();
            const std::string path_here = root ? branch.label : path + "." + branch.label;
            add_row(branch, root ? "" : guide + (last ? "└─ " : "├─ "), path_here);
            show(branch.nodes, root ? "" : guide + (last ? "   " : "│  "), path_here, false);
        }
    }

private:
    // The children of nodes with the same structure, numbered ones folded; a child that only holds numbers is replaced by its own children.
    std::vector<Branch> branches_of(const std::vector<const Node*>& parents, const std::string& prefix) const {
        std::vector<Branch> branches;
        std::vector<std::vector<int64_t>> numbers;
        std::map<std::pair<std::string, std::string>, size_t> groups;  // front of the name and structure -> branch
        for (const auto& [name, unused] : parents[0]->children) {
            std::vector<const Node*> nodes;
            for (const Node* parent : parents) nodes.push_back(parent->children.at(name).get());
            if (nodes[0]->only_numbers_below()) {
                for (Branch& branch : branches_of(nodes, prefix + printable(name) + ".")) branches.push_back(std::move(branch));
                numbers.resize(branches.size());
                continue;
            }
            const Numbered numbered(name);
            const bool letter = name.size() == 1 && numbered.number < 0;  // q, k, v
            if (fold_ && (letter || numbered.number >= 0)) {
                const auto [group, fresh] = groups.try_emplace({letter ? "" : numbered.front, nodes[0]->signature}, branches.size());
                if (!fresh) {
                    Branch& branch = branches[group->second];
                    branch.nodes.insert(branch.nodes.end(), nodes.begin(), nodes.end());
                    if (letter) branch.label += "," + printable(name);
                    if (!letter) numbers[group->second].push_back(numbered.number);
                    continue;
                }
            }
            const bool cut = fold_ && !letter && numbered.number >= 0;
            branches.push_back({prefix + printable(cut ? numbered.front : name), std::move(nodes)});
            numbers.push_back(cut ? std::vector<int64_t>{numbered.number} : std::vector<int64_t>());
        }
        for (size_t i = 0; i < branches.size(); ++i) branches[i].label += ranges(numbers[i]);
        return branches;
    }

    static void collect(const Node& node, std::vector<const TensorEntry*>& tensors) {
        if (node.tensor) tensors.push_back(node.tensor);
        for (const auto& [name, child] : node.children) collect(*child, tensors);
    }

    void add_row(const Branch& branch, const std::string& guide, const std::string& path) {
        TreeRow row;
        row.guide = guide;
        row.label = branch.label;
        row.path = path;
        row.leaf = branch.nodes[0]->tensor != nullptr;
        row.copies = static_cast<int64_t>(branch.nodes.size());
        for (const Node* node : branch.nodes) {
            if (row.leaf)
                row.tensors.push_back(node->tensor);
            else
                collect(*node, row.tensors);
        }
        for (const TensorEntry* tensor : row.tensors) row.parameters += tensor->elements(), row.bytes += tensor->bytes();
        rows.push_back(std::move(row));
    }

    bool fold_;
};

}  // namespace

std::vector<TreeRow> tensor_tree(const std::vector<const TensorEntry*>& tensors, bool fold) {
    Node root;
    for (const TensorEntry* tensor : tensors) {
        Node* node = &root;
        for (size_t begin = 0; begin <= tensor->name.size();) {
            const size_t end = std::min(tensor->name.find('.', begin), tensor->name.size());
            std::unique_ptr<Node>& child = node->children[tensor->name.substr(begin, end - begin)];
            if (!child) child = std::make_unique<Node>();
            node = child.get();
            begin = end + 1;
        }
        node->tensor = tensor;
    }
    if (fold) root.sign();
    Renderer renderer(fold);
    if (!root.children.empty()) renderer.show({&root}, "", "", true);
    return std::move(renderer.rows);
}

std::string printable(std::string_view text) {
    const std::string quoted = fmt::format("{:?}", text);
    return quoted.substr(1, quoted.size() - 2);
}

}  // namespace flanmoe

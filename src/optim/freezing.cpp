#include "optim/freezing.hpp"

#include "core/error.hpp"

#include <algorithm>

namespace flanmoe {

namespace {

bool belongs_to(ParameterKind kind, const std::string& part) {
    const bool gate = kind == ParameterKind::router, expert = kind == ParameterKind::expert;
    if (part == "gate") return gate;
    if (part == "experts") return expert;
    if (part == "moe") return gate || expert;
    if (part == "non_moe") return !gate && !expert;
    if (part == "embedding") return kind == ParameterKind::embedding;
    if (part == "attention") return kind == ParameterKind::attention;
    if (part == "norm") return kind == ParameterKind::norm;
    if (part == "ffn") return kind == ParameterKind::ffn;
    if (part == "head") return kind == ParameterKind::head;
    require(false, "a part that the table of options names");
    return false;
}

}  // namespace

void freeze_parameters(ParameterStore& store, const std::vector<std::string>& parts) {
    for (const std::string& part : parts) {
        bool any = false;
        for (Parameter& p : store.records()) {
            if (!belongs_to(p.kind, part)) continue;
            p.frozen = any = true;
        }
        if (!any) fail(Exit::usage, "train.freeze names {}, but the model has nothing of that kind; leave it out", part);
    }
    if (std::all_of(store.records().begin(), store.records().end(), [](const Parameter& p) { return p.frozen; }))
        fail(Exit::usage, "train.freeze freezes every parameter, so there is nothing to train; leave out a part");
}

}  // namespace flanmoe

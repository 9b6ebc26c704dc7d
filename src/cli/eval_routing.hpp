// `flanmoe eval --routing-trace`: the routers' figures instead of the answers.
#pragma once

#include "cli/model_argument.hpp"
#include "eval/evaluate.hpp"

#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace flanmoe::cli {

struct RoutingArguments {
    bool trace = false, dump = false;
    std::string capacity = "evaluation", other;

    /// --routing-trace, --routing-capacity, --routing-drift, --routing-dump.
    void add_to(CLI::App& command);
};

/// What `eval` was told besides.
struct RoutingRun {
    const ModelArgument& model;
    const std::vector<std::string>& files;
    const EvalSettings& settings;
    bool lengths_given = false;  ///< on the command line: they count for more than those that the checkpoint was trained with
    bool json = false, table = false;
    std::string out;
};
void run_routing_trace(const RoutingArguments& arguments, const RoutingRun& run);

}  // namespace flanmoe::cli

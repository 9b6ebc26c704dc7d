// `flanmoe plan`: what a config will need on a cluster, without one: parameters, memory of a rank, communication, time of a step and of the run, and what to change
// where it does not fit.
#include "cli/commands.hpp"
#include "cli/config_arguments.hpp"
#include "cli/table.hpp"
#include "core/error.hpp"
#include "optim/freezing.hpp"
#include "optim/optimizer.hpp"
#include "train/plan.hpp"

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <array>
#include <memory>

namespace flanmoe::cli {

namespace {

struct Arguments {
    ConfigArguments config;
    std::string device = "h100", network = "infiniband-400";
    int ranks = 0, ranks_of_node = 8;
    bool json = false;
};

std::vector<std::pair<const char*, int64_t>> categories(const MemoryNeed& need) {
    return {{"weights", need.weights}, {"bf16 copy", need.compute_copy}, {"gradients", need.gradients}, {"optimizer state", need.optimizer}, {"activations", need.activations}};
}

int64_t tokens_of_step(const Config& config, const RankPlan& plan) { return config.data.batch_rows * (plan.compute.source + plan.compute.target); }

// Weights and optimizer state of the whole model, in float.
int64_t checkpoint_bytes(const Config& config, const ModelCount& count) {
    Transformer model(config.model);
    freeze_parameters(model.parameters(), config.train.freeze);
    int64_t state = 0;
    for (const Parameter& p : model.parameters().records())
        for (const StateSlot& slot : optimizer_slots(config.optimizer, p)) state += p.tensors() * slot.shape.elements();
    return 4 * (count.total + state);
}

std::string duration(double seconds) {
    if (seconds < 120) return fmt::format("{:.0f} s", seconds);
    if (seconds < 7200) return fmt::format("{:.0f} minutes", seconds / 60);
    return seconds < 172800 ? fmt::format("{:.1f} hours", seconds / 3600) : fmt::format("{:.1f} days", seconds / 86400);
}

void print_table(const Config& config, const Cluster& cluster, const RankPlan& plan) {
    const ModelCount count = count_model(config);
    const double tokens = static_cast<double>(tokens_of_step(config, plan)), seconds = plan.seconds();
    fmt::print("model       {} parameters, {} of them active for a token ({:.1f} %); {:.4g} GFLOP forward a token\n", thousands(count.total), thousands(static_cast<int64_t>(count.active + 0.5)),
               100 * count.active / static_cast<double>(std::max<int64_t>(1, count.total)), 1e-9 * count.forward_flops);
    fmt::print("ranks       {} {}, {} a node, {}: {}\n", cluster.ranks, cluster.device.name, cluster.ranks_of_node, cluster.network, plan.mesh.text());
    fmt::print("batch       {} x ({} + {}) tokens a step; {} row{} a rank in micro-batches of {}\n", config.data.batch_rows, plan.compute.source, plan.compute.target, plan.rows,
               plan.rows == 1 ? "" : "s", plan.micro_rows);
    fmt::print("checkpoint  {} on disk\n", human_bytes(checkpoint_bytes(config, count)));
    if (plan.even_rows) fmt::print("dropless    rows are taken to go evenly to the ranks of the experts: figures are means, and a rank whose experts are chosen more often needs more\n");
    fmt::print("\n");

    Table memory({{"memory of a rank", Align::left}, {"bytes", Align::right}, {"share", Align::right}});
    for (const auto& [name, bytes] : categories(plan.memory))
        memory.add({name, human_bytes(bytes), fmt::format("{:.1f} %", 100.0 * static_cast<double>(bytes) / static_cast<double>(cluster.memory))});
    memory.add({fmt::format("all, of {} usable", human_bytes(cluster.memory)), human_bytes(plan.memory.total()),
                fmt::format("{:.1f} %", 100.0 * static_cast<double>(plan.memory.total()) / static_cast<double>(cluster.memory))});
    fmt::print("{}\n", memory.text());

    Table step({{"step of a rank", Align::left}, {"of ranks", Align::right}, {"calls", Align::right}, {"sent", Align::right}, {"ms", Align::right}, {"share", Align::right}});
    const auto share = [&](double part) { return fmt::format("{:.1f} %", 100 * part / seconds); };
    for (const PartPrediction& part : plan.compute.parts) step.add({part.part, "", "", "", fmt::format("{:.2f}", part.milliseconds), share(1e-3 * part.milliseconds)});
    for (const CollectivePlan& c : plan.collectives)
        step.add({fmt::format("{} ({})", c.purpose, name_of(c.kind)), fmt::format("{}", c.ranks), fmt::format("{:.0f}", c.calls), human_bytes(static_cast<int64_t>(c.bytes)),
                  fmt::format("{:.2f}", 1e3 * c.seconds), share(c.seconds)});
    step.add({"all, one after the other", "", "", human_bytes(static_cast<int64_t>(plan.sent())), fmt::format("{:.2f}", 1e3 * seconds), ""});
    fmt::print("{}\n", step.text());

    fmt::print("{:.0f} tokens/s, {:.1f} % of the products' rate of every device; {} steps take {}\n", tokens / seconds, 100 * plan.compute.model_flops / seconds / plan.compute.products,
               config.train.steps, duration(seconds * static_cast<double>(config.train.steps)));
}

void print_json(const Config& config, const Cluster& cluster, const RankPlan& plan, bool fits) {
    const ModelCount count = count_model(config);
    std::string memory, collectives, parts;
    for (const auto& [name, bytes] : categories(plan.memory)) memory += fmt::format("{}\"{}\": {}", memory.empty() ? "" : ", ", name, bytes);
    for (const CollectivePlan& c : plan.collectives)
        collectives += fmt::format("{}{{\"purpose\": \"{}\", \"kind\": \"{}\", \"ranks\": {}, \"calls\": {:.0f}, \"bytes\": {:.0f}, \"milliseconds\": {:.4f}}}", collectives.empty() ? "" : ", ",
                                   c.purpose, name_of(c.kind), c.ranks, c.calls, c.bytes, 1e3 * c.seconds);
    for (const PartPrediction& p : plan.compute.parts) parts += fmt::format("{}\"{}\": {:.4f}", parts.empty() ? "" : ", ", p.part, p.milliseconds);
    fmt::print("{{\"parameters\": {}, \"active_parameters\": {:.0f}, \"forward_flops_per_token\": {:.6e}, \"checkpoint_bytes\": {}, \"ranks\": {}, \"device\": \"{}\", \"network\": \"{}\", "
               "\"data\": {}, \"expert\": {}, \"tensor\": {}, \"rows\": {}, \"micro_batch_rows\": {}, \"rank_parameters\": {}, \"device_bytes\": {}, \"fits\": {}, \"even_rows_assumed\": {}, \"memory\": {{{}}}, "
               "\"compute_milliseconds\": {{{}}}, \"collectives\": [{}], \"step_milliseconds\": {:.4f}, \"tokens_per_second\": {:.1f}}}\n",
               count.total, count.active, count.forward_flops, checkpoint_bytes(config, count), cluster.ranks, cluster.device.name, cluster.network, plan.mesh.data, plan.mesh.expert,
               plan.mesh.tensor, plan.rows, plan.micro_rows, plan.parameters, cluster.memory, fits, plan.even_rows, memory, parts, collectives, 1e3 * plan.seconds(),
               static_cast<double>(tokens_of_step(config, plan)) / plan.seconds());
}

// What makes a plan fit on its mesh, the least costly first: smaller micro-batches, then computing activations again, then sharing the optimizer's state.
std::optional<std::string> remedy_on_same_mesh(const Config& config, const Cluster& cluster, const RankPlan& plan) {
    struct Change {
        const char* text;
        Recompute recompute;
        bool shard;
    };
    for (const Change& change : {Change{"", config.train.recompute, false}, Change{" and train.recompute = cheap", Recompute::cheap, false}, Change{" and train.recompute = full", Recompute::full, false},
                                 Change{" and parallel.shard_optimizer = true", config.train.recompute, true}, Change{", train.recompute = full and parallel.shard_optimizer = true", Recompute::full, true}}) {
        Config changed = config;
        changed.train.recompute = change.recompute;
        changed.parallel.shard_optimizer |= change.shard;
        for (int64_t rows = plan.micro_rows; rows >= 1; rows /= 2) {
            const RankPlan smaller = plan_rank(changed, cluster, plan.mesh, rows);
            if (smaller.memory.total() <= cluster.memory) return fmt::format("it fits as {} with data.micro_batch_rows = {}{}", smaller.mesh.text(), smaller.micro_rows, change.text);
        }
    }
    return std::nullopt;
}

// What to change for a plan that does not fit: options, another mesh of as many ranks, the fewest more that do, or devices with more memory.
std::string remedy(const Config& config, const Cluster& cluster, const RankPlan& plan) {
    if (const auto found = remedy_on_same_mesh(config, cluster, plan)) return *found;
    Cluster larger = cluster;
    for (;; larger.ranks *= 2) {
        if (const auto plan = best_plan(config, larger))
            return fmt::format("it fits on {} {} as {} with data.micro_batch_rows = {}", larger.ranks, larger.device.name, plan->mesh.text(), plan->micro_rows);
        if (larger.ranks > 65536 / 2) break;
    }
    return fmt::format("nor does it fit on more, up to {}; use shorter rows or a smaller model", larger.ranks);
}

void run_plan(const Arguments& arguments) {
    const Config config = arguments.config.load();
    const ParallelConfig& wanted = config.parallel;
    const bool chosen = wanted.data != 1 || wanted.expert != 1 || wanted.tensor != 1;  // else the best one is looked for
    constexpr double most = 1e6;  // as --ranks has it
    const double product = static_cast<double>(std::max<int64_t>(1, wanted.data)) * static_cast<double>(wanted.expert) * static_cast<double>(wanted.tensor);
    if (product > most) fail(Exit::usage, "parallel.data x parallel.expert x parallel.tensor is {:.0f} ranks; plan for {:.0f} at most", product, most);
    const int ranks = arguments.ranks ? arguments.ranks : static_cast<int>(product);
    const Cluster cluster = cluster_of(arguments.device, arguments.network, ranks, arguments.ranks_of_node);

    std::optional<RankPlan> plan;
    if (chosen) {
        const MeshShape mesh = mesh_for({static_cast<int>(wanted.data), static_cast<int>(wanted.expert), static_cast<int>(wanted.tensor)}, ranks);
        if (const std::string objection = objection_to(config, mesh); !objection.empty()) fail(Exit::usage, "{} cannot run this config: {}", mesh.text(), objection);
        plan = plan_rank(config, cluster, mesh);
    } else if (plan = best_plan(config, cluster); !plan && !(plan = smallest_plan(config, cluster))) {
        const std::string objection = objection_to(config, {ranks, 1, 1});
        fail(Exit::usage, "no mesh of {} ranks can run this config: {}", ranks,
             objection.empty() ? fmt::format("data.batch_rows = {} is too few rows to give all of them some; use fewer ranks or more rows", config.data.batch_rows) : objection);
    }
    const bool fits = plan->memory.total() <= cluster.memory;
    if (arguments.json) print_json(config, cluster, *plan, fits);
    else print_table(config, cluster, *plan);
    if (fits) return;
    fail(Exit::out_of_memory, "a rank needs {} and a {} has {} for it; {}", human_bytes(plan->memory.total()), cluster.device.name, human_bytes(cluster.memory), remedy(config, cluster, *plan));
}

}  // namespace

void add_plan(CLI::App& program) {
    auto arguments = std::make_shared<Arguments>();
    CLI::App* command = program.add_subcommand("plan", "What a config needs on a cluster: parameters, memory of a rank, communication, time; runs nothing");
    arguments->config.add_to(command);
    command->get_option("files")->required();
    command->add_option("--ranks", arguments->ranks, "devices in all (default: those of [parallel]); the best mesh of them unless [parallel] names one")->check(CLI::Range(1, 1000000));
    command->add_option("--gpu", arguments->device, "a100, h100 or h200")->capture_default_str()->type_name("DEVICE");
    command->add_option("--network", arguments->network, "between nodes: infiniband-400, infiniband-200 or ethernet (100 Gbit/s a node)")->capture_default_str()->type_name("NAME");
    command->add_option("--gpus-of-node", arguments->ranks_of_node, "devices of a node")->capture_default_str()->check(CLI::Range(1, 1024));
    command->add_flag("--json", arguments->json, "one JSON line instead of tables");
    command->footer("Example:\n  flanmoe plan configs/model/st-moe-32b.toml --set train.dtype=bf16 --set train.forward=bf16 --set data.batch_rows=2048 --ranks 256");
    command->callback([arguments] { run_plan(*arguments); });
}

}  // namespace flanmoe::cli

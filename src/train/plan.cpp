#include "train/plan.hpp"

#include "core/error.hpp"
#include "optim/optimizer.hpp"
#include "train/step.hpp"

#include <algorithm>
#include <cmath>
#include <set>

namespace flanmoe {

namespace {

double real(int64_t n) { return static_cast<double>(n); }
int64_t share(int64_t whole, int64_t ranks) { return (whole + ranks - 1) / ranks; }

int64_t step_rows(const Config& config, const MeshShape& mesh) { return share(config.data.batch_rows, mesh.replicas()); }

// The model that one rank computes: its part of every matrix, and its rows.
Config config_of_rank(Config config, const MeshShape& mesh, int64_t micro_rows) {
    ModelConfig& c = config.model;
    c.kv_heads = share(c.key_heads(), mesh.tensor), c.heads = share(c.heads, mesh.tensor);
    if (c.expert_d_ff == 0) c.expert_d_ff = c.d_ff;
    for (int64_t* width : {&c.d_ff, &c.expert_d_ff, &c.shared_d_ff, &c.vocab_size}) *width = share(*width, mesh.tensor);
    for (std::vector<int64_t>* widths : {&c.encoder_d_ff, &c.decoder_d_ff})
        for (int64_t& width : *widths) width = share(width, mesh.tensor);
    c.experts /= mesh.expert;
    config.data.batch_rows = step_rows(config, mesh);
    config.data.micro_batch_rows = std::min(micro_rows, config.data.batch_rows);
    return config;
}

bool is_expert(const Parameter& p) { return p.kind == ParameterKind::expert && p.experts > 0; }
// Elements of a parameter that a rank holds: norms and routers are whole on every rank.
int64_t held(const Parameter& p, int64_t elements, const MeshShape& mesh) {
    if (is_expert(p)) return share(elements, mesh.expert * mesh.tensor);
    return p.kind == ParameterKind::norm || p.kind == ParameterKind::router ? elements : share(elements, mesh.tensor);
}

struct Held {
    int64_t dense = 0, expert = 0, optimizer = 0;  // elements; of the optimizer's state
};
Held held_by_rank(const Config& config, const Transformer& model, const MeshShape& mesh) {
    Held sum;
    for (const Parameter& p : model.parameters().records()) {
        (is_expert(p) ? sum.expert : sum.dense) += held(p, p.elements(), mesh);
        for (const auto& [suffix, slot, split] : optimizer_slots(config.optimizer, p)) sum.optimizer += held(p, p.tensors() * slot.elements(), mesh);
    }
    return sum;
}

MemoryNeed memory_of_rank(const Config& config, const Config& local, const Held& parameters) {
    const TrainingTypes types = training_types(config.train);
    const int64_t wide = size_of(accumulate_type(types.compute)), count = parameters.dense + parameters.expert, source = config.data.encoder_length;
    MemoryNeed need{.weights = count * wide, .compute_copy = types.compute == DType::bf16 ? count * size_of(DType::bf16) : 0, .gradients = count * wide,
                    .optimizer = parameters.optimizer * wide};
    need.activations = memory_of_training(local, Transformer(local.model), {local.data.micro_batch_rows, source, target_length(config.data, source)}).activations;
    return need;
}

// Collects collectives; what a rank sends follows from the kind (comm/communicator.hpp).
class Collectives {
public:
    explicit Collectives(const Cluster& cluster) : cluster_(cluster) {}
    /// `bytes` of the tensor of one call; `span` neighbours of which the group is a part.
    void add(const char* purpose, Collective kind, int ranks, int span, double calls, double bytes) {
        if (ranks == 1 || calls == 0 || bytes == 0) return;
        const double n = ranks, sent = calls * bytes * (kind == Collective::all_reduce ? 2 : 1) * (n - 1) / n, rounds = kind == Collective::all_reduce ? 2 * (n - 1) : n - 1;
        const Link& link = cluster_.link(span);
        plans.push_back({purpose, kind, ranks, calls, sent, sent / link.bandwidth + calls * rounds * link.latency});
    }
    std::vector<CollectivePlan> plans;

private:
    const Cluster& cluster_;
};

// Rows that one sparse layer sends to its experts: all slots where there is a capacity, since those are exchanges of a fixed size.
double rows_sent(const RoutingConfig& routing, int64_t experts, int64_t rows, int64_t length) {
    const int64_t group_rows = routing.group_rows == 0 ? rows : routing.group_rows;
    const ops::RouteRule rule = rule_of(routing, true);
    const int64_t capacity = ops::capacity_of(rule, group_rows * length, experts);
    return capacity < 0 ? real(rows * length * routing.k) : real(share(rows, group_rows) * experts * capacity);
}

// One stack's part: sums of activations over tensor ranks, and rows on their way to experts and back, forward and backward.
void add_stack(Collectives& all, const Config& config, const MeshShape& mesh, bool decoder, int64_t micro_rows, double passes) {
    const ModelConfig& c = config.model;
    const TrainingTypes types = training_types(config.train);
    const std::vector<int64_t>& sparse = decoder ? c.decoder_sparse : c.encoder_sparse;
    const RoutingConfig& routing = decoder ? c.decoder_routing : c.encoder_routing;
    const int64_t blocks = decoder ? c.decoder_layers : c.encoder_layers, source = config.data.encoder_length;
    const int64_t length = decoder ? target_length(config.data, source) : source;
    const double d = real(c.d_model), n = real(micro_rows * length), wide = real(size_of(accumulate_type(types.compute)));
    const double sublayers = real(blocks) * (decoder && c.encoder_decoder ? 3 : 2) + (c.extra_ffn ? real(static_cast<int64_t>(sparse.size())) : 0);
    // A sum at the end of every sub-layer forward, of the embedding too, and one at its beginning backward, of the output layer too.
    all.add(decoder ? "decoder's activations" : "encoder's activations", Collective::all_reduce, mesh.tensor, mesh.tensor, passes * (2 * sublayers + 1 + decoder), n * d * wide);
    if (sparse.empty()) return;
    const double rows = rows_sent(routing, c.experts, micro_rows, length), layers = real(static_cast<int64_t>(sparse.size()));
    const double size = real(size_of(types.forward) + size_of(types.compute)) / 2;  // forward and backward alike many
    all.add(decoder ? "decoder's rows to experts" : "encoder's rows to experts", Collective::all_to_all, mesh.expert, mesh.expert * mesh.tensor, passes * layers * 4, rows * d * size);
}

}  // namespace

Cluster cluster_of(const std::string& device, const std::string& network, int ranks, int ranks_of_node) {
    Cluster cluster{rates_of(device)};
    cluster.ranks = ranks, cluster.ranks_of_node = ranks_of_node, cluster.network = network;
    // What is left of 80 and 141 GB beside the driver's and the libraries' own.
    cluster.memory = device == "h200" ? int64_t{135'000'000'000} : int64_t{77'000'000'000};
    // NVLink of the third and fourth generation (300 and 450 GB/s a direction), four fifths of which a ring reaches.
    cluster.inside = {device == "a100" ? 240e9 : 360e9, 3e-6};
    if (network == "infiniband-400") cluster.between = {40e9, 5e-6};
    else if (network == "infiniband-200") cluster.between = {20e9, 5e-6};
    else if (network == "ethernet") cluster.between = {10e9 / ranks_of_node, 30e-6};
    else fail(Exit::usage, "rates are known of the networks infiniband-400, infiniband-200 and ethernet, not of {}", network);
    return cluster;
}

double RankPlan::seconds() const {
    double sum = 1e-3 * compute.milliseconds;
    for (const CollectivePlan& c : collectives) sum += c.seconds;
    return sum;
}

double RankPlan::sent() const {
    double sum = 0;
    for (const CollectivePlan& c : collectives) sum += c.bytes;
    return sum;
}

std::string objection_to(const Config& config, const MeshShape& mesh) {
    const ModelConfig& c = config.model;
    const auto tensor_divides = [&](int64_t number, const char* what) {
        return number % mesh.tensor == 0 ? std::string() : fmt::format("{} tensor ranks do not divide {} = {}", mesh.tensor, what, number);
    };
    std::vector<std::string> found = {tensor_divides(c.heads, "model.heads"), tensor_divides(c.key_heads(), "the heads of keys and values"), tensor_divides(c.d_ff, "model.d_ff")};
    for (const std::vector<int64_t>* widths : {&c.encoder_d_ff, &c.decoder_d_ff})
        for (const int64_t width : *widths) found.push_back(tensor_divides(width, "the width of a layer"));
    if (c.experts > 0) found.push_back(tensor_divides(c.expert_width(), "moe.d_ff")), found.push_back(tensor_divides(c.shared_d_ff, "moe.shared_d_ff"));
    if (mesh.expert > 1 && c.experts == 0) found.emplace_back("a dense model has no experts to divide; set parallel.expert = 1");
    else if (c.experts % mesh.expert != 0) found.push_back(fmt::format("{} expert ranks do not divide moe.experts = {}", mesh.expert, c.experts));
    const int64_t group = std::max<int64_t>(1, std::max(c.encoder_routing.group_rows, c.decoder_routing.group_rows));
    if (config.data.batch_rows / group < mesh.replicas())
        found.push_back(fmt::format("data.batch_rows = {} is too few rows for {} ranks with rows of their own; give at least {}", config.data.batch_rows, mesh.replicas(), mesh.replicas() * group));
    for (const std::string& objection : found)
        if (!objection.empty()) return objection;
    return "";
}

RankPlan plan_rank(const Config& config, const Cluster& cluster, const MeshShape& mesh, int64_t micro_rows) {
    const Config local = config_of_rank(config, mesh, micro_rows);
    const Transformer model(config.model);
    const Held parameters = held_by_rank(config, model, mesh);
    RankPlan plan;
    plan.mesh = mesh, plan.rows = local.data.batch_rows, plan.micro_rows = local.data.micro_batch_rows, plan.parameters = parameters.dense + parameters.expert;
    plan.memory = memory_of_rank(config, local, parameters);
    plan.compute = predict_step(local, cluster.device);

    Collectives all(cluster);
    const double wide = real(size_of(accumulate_type(training_types(config.train).compute))), passes = real(plan.compute.passes);
    all.add("dense gradients", Collective::all_reduce, mesh.replicas(), mesh.ranks(), 1, wide * real(parameters.dense));
    all.add("experts' gradients", Collective::all_reduce, mesh.data, mesh.ranks(), 1, wide * real(parameters.expert));
    if (config.model.encoder_decoder) add_stack(all, config, mesh, false, plan.micro_rows, passes);
    add_stack(all, config, mesh, true, plan.micro_rows, passes);
    plan.collectives = std::move(all.plans);
    return plan;
}

std::optional<RankPlan> best_plan(const Config& config, const Cluster& cluster) {
    std::optional<RankPlan> best;
    const int64_t group = std::max<int64_t>(1, std::max(config.model.encoder_routing.group_rows, config.model.decoder_routing.group_rows));
    for (int tensor = 1; tensor <= std::min(cluster.ranks, cluster.ranks_of_node); ++tensor) {
        for (int expert = 1; expert <= std::max<int64_t>(1, config.model.experts); ++expert) {
            if (cluster.ranks % (tensor * expert) != 0) continue;
            const MeshShape mesh{cluster.ranks / (tensor * expert), expert, tensor};
            if (!objection_to(config, mesh).empty()) continue;
            std::set<int64_t> tried;
            for (int64_t micro = config.data.micro_batch_rows ? config.data.micro_batch_rows : config.data.batch_rows; micro >= group; micro = micro / 2 / group * group) {
                const int64_t rows = std::min(micro, step_rows(config, mesh));
                if (!tried.insert(rows).second) continue;
                RankPlan plan = plan_rank(config, cluster, mesh, rows);
                if (plan.memory.total() > cluster.memory) continue;
                if (!best || plan.seconds() < best->seconds()) best = std::move(plan);
                break;  // smaller micro-batches are no faster
            }
        }
    }
    return best;
}

ModelCount count_model(const Config& config) {
    const ModelConfig& c = config.model;
    const Transformer model(c);
    ModelCount count;
    for (const Parameter& p : model.parameters().records()) {
        const RoutingConfig& routing = p.name.starts_with("encoder.") ? c.encoder_routing : c.decoder_routing;
        const double chosen = routing.kind == RouterKind::expert_choice ? routing.eval_capacity_factor : real(routing.k);
        count.total += p.elements();
        count.active += real(p.elements()) * (is_expert(p) ? std::min(1.0, chosen / real(p.experts)) : 1);
    }
    const int64_t source = config.data.encoder_length, target = target_length(config.data, source);
    count.forward_flops = forward_flops(c, {1, source, target}) / real(std::max<int64_t>(1, source + target));
    return count;
}

}  // namespace flanmoe

#include "train/plan.hpp"

#include "core/error.hpp"
#include "data/loader.hpp"
#include "model/sharding.hpp"
#include "optim/freezing.hpp"
#include "optim/optimizer.hpp"
#include "train/replicas.hpp"
#include "train/step.hpp"

#include <algorithm>
#include <cmath>
#include <set>

namespace flanmoe {

namespace {

double real(int64_t n) { return static_cast<double>(n); }

// Collects collectives; what a rank sends follows from the kind (comm/communicator.hpp).
class Collectives {
public:
    explicit Collectives(const Cluster& cluster) : cluster_(cluster) {}
    /// `bytes` of the tensors of all calls; `span` neighbours of which the group is a part.
    void add(const char* purpose, const char* group, Collective kind, int ranks, int span, double calls, double bytes) {
        if (ranks == 1 || calls == 0 || bytes == 0) return;
        const double n = ranks, sent = bytes * (kind == Collective::all_reduce ? 2 : 1) * (n - 1) / n, rounds = kind == Collective::all_reduce ? 2 * (n - 1) : n - 1;
        const Link& link = cluster_.link(span);
        plans.push_back({purpose, group, kind, ranks, calls, sent, sent / link.bandwidth + calls * rounds * link.latency});
    }
    std::vector<CollectivePlan> plans;

private:
    const Cluster& cluster_;
};

// Rows that one sparse layer sends to its experts: all slots where there is a capacity, since those are exchanges of a fixed size.
double rows_sent(const RoutingConfig& routing, int64_t experts, int64_t rows, int64_t length) {
    const int64_t group_rows = routing.group_rows == 0 ? rows : routing.group_rows, group_tokens = group_rows * length;
    const int64_t capacity = ops::capacity_of(rule_of(routing, true), group_tokens, experts);
    return capacity < 0 ? real(rows * length * routing.k) : real(rows / group_rows * experts * std::min(capacity, group_tokens));
}

// Rows of a step that a rank computes in its micro-batches, padding included: the mean of all ranks.
double rows_of_rank(const Config& config, const MeshShape& mesh, int64_t micro_rows) {
    const bool equal = mesh.expert > 1;
    const int ranks = equal ? 1 : mesh.replicas();  // whose rows have to be looked at
    const int64_t group = mesh.replicas() == 1 ? 1 : rows_of_group(config.model);
    micro_rows = (micro_rows + group - 1) / group * group;
    double rows = 0;
    for (int r = 0; r < ranks; ++r) {
        const Share share{r, mesh.replicas(), group, equal};
        const size_t pieces = share.pieces(config.data.batch_rows, micro_rows).size();
        for (size_t i = 0; i < pieces; ++i) rows += real(share.batch_rows(config.data.batch_rows, micro_rows, i)) / ranks;
    }
    return rows;
}

// What the collectives of one stack depend on: bytes of an element, and sub-layers.
struct StackSizes {
    double forward, compute, wide;
    double dense, sparse;     ///< sub-layers
    double gated;             ///< sparse ones with a shared expert and its gate
    double some, again;       ///< 1 if something, or all, is computed again
    double n, passes, filled; ///< tokens of a micro-batch; micro-batches; as many of them, filled, hold all tokens

    StackSizes(const Config& config, bool decoder, int64_t tokens, double passes, double filled) : n(real(tokens)), passes(passes), filled(filled) {
        const ModelConfig& c = config.model;
        const TrainingTypes types = training_types(config.train);
        forward = real(size_of(types.forward)), compute = real(size_of(types.compute)), wide = real(size_of(accumulate_type(types.compute)));
        sparse = real(static_cast<int64_t>((decoder ? c.decoder_sparse : c.encoder_sparse).size()));
        dense = real(decoder ? c.decoder_layers : c.encoder_layers) * (decoder && c.encoder_decoder ? 3 : 2) - sparse + (c.extra_ffn ? sparse : 0);
        gated = c.shared_d_ff > 0 && c.shared_gate ? sparse : 0;
        again = config.train.recompute == Recompute::full, some = config.train.recompute != Recompute::none;
    }
};

// Sums of activations over tensor ranks (model/collectives.hpp): at the end of every sub-layer forward, of the embedding too, and at its beginning backward; of the
// decoder's output, of the encoder's gradient; of shared experts, whose gates' backward needs their answers again.
void add_activations(Collectives& all, const Config& config, const MeshShape& mesh, bool decoder, const StackSizes& z) {
    const double shared = config.model.shared_d_ff > 0 ? z.sparse : 0, dense = z.dense + shared, last = decoder ? z.compute : z.wide, again = z.gated * z.again;
    const double sums = (1 + dense + again) * z.wide + z.sparse * z.forward + (dense + z.sparse) * z.compute + last, calls = 2 + 2 * (dense + z.sparse) + again;
    all.add(decoder ? "decoder's activations" : "encoder's activations", "tensor", Collective::all_reduce, mesh.tensor, mesh.tensor, z.passes * calls,
            z.filled * z.n * real(config.model.d_model) * sums);
}

// The same where the ranks share the tokens between sub-layers (model/token_shards.hpp): sums are divided, and runs of tokens gathered.
void add_divided_activations(Collectives& all, const Config& config, const MeshShape& mesh, bool decoder, const StackSizes& z) {
    const double d = real(config.model.d_model), layers = z.dense + z.sparse, again = z.gated * (1 + z.again), last = decoder ? z.compute : z.wide;
    const double padded = std::ceil(z.n / mesh.tensor) * mesh.tensor, whole = z.filled * z.n * d, divided = z.filled * padded * d;
    all.add(decoder ? "decoder's activations" : "encoder's activations", "tensor", Collective::all_reduce, mesh.tensor, mesh.tensor, z.passes * (2 + again + layers + 1),
            whole * (z.wide * (1 + again) + last) + z.passes * (layers + 1) * d * z.wide);
    all.add(decoder ? "decoder's activations" : "encoder's activations", "tensor", Collective::reduce_scatter, mesh.tensor, mesh.tensor, z.passes * 2 * layers,
            divided * (z.dense * z.wide + z.sparse * z.forward + layers * z.compute));
    all.add(decoder ? "decoder's activations" : "encoder's activations", "tensor", Collective::all_gather, mesh.tensor, mesh.tensor, z.passes * (layers * (2 + z.some) + 2),
            divided * (layers * (1 + z.some) * z.forward + (decoder ? z.compute : z.forward) + (layers + 1) * z.compute));
}

// One stack's part: activations over tensor ranks, and rows on their way to experts and back (model/dispatcher.hpp).
void add_stack(Collectives& all, const Config& config, const MeshShape& mesh, bool decoder, int64_t micro_rows, double passes, double filled) {
    const ModelConfig& c = config.model;
    const RoutingConfig& routing = decoder ? c.decoder_routing : c.encoder_routing;
    const int64_t source = config.data.encoder_length, length = decoder ? target_length(config.data, source) : source;
    const StackSizes z(config, decoder, micro_rows * length, passes, filled);
    const double sparse = z.sparse, again = z.again, some = z.some, forward = z.forward, compute = z.compute, wide = z.wide;
    config.parallel.sequence ? add_divided_activations(all, config, mesh, decoder, z) : add_activations(all, config, mesh, decoder, z);
    if (sparse == 0) return;
    const double rows = rows_sent(routing, c.experts, micro_rows, length), width = real(c.d_model);
    const double gates = real(ops::max_rows(rule_of(routing, true), micro_rows * length, routing.group_rows ? micro_rows / routing.group_rows : 1, c.experts));
    all.add(decoder ? "decoder's gates" : "encoder's gates", "tensor", Collective::all_reduce, mesh.tensor, mesh.tensor, passes * sparse, filled * sparse * gates * wide);
    // To the experts and back forward, the gradients likewise; with a number of 8 bytes for each row, and before them the counts of every expert's.
    const double chunks = real(std::min(config.parallel.exchange_chunks, c.experts / mesh.expert)), calls_of_rows = chunks * (5 + some + 2 * again) + 1 + again;
    const double bytes = width * ((2 + some + again) * forward + 2 * compute) + 8 * (1 + again), counts = passes * (1 + again) * 4 * real(c.experts);
    all.add(decoder ? "decoder's rows to experts" : "encoder's rows to experts", "expert", Collective::all_to_all, mesh.expert, mesh.expert * mesh.tensor, passes * sparse * calls_of_rows,
            sparse * (filled * rows * bytes + counts));
}

// Ranks that share the updates of a record's tensors; 1: every rank makes them all.
int owners_of_record(const Config& config, const Parameter& p, const MeshShape& mesh) {
    return config.parallel.shard_optimizer && is_owned(p) ? (p.experts > 0 && mesh.expert > 1 ? mesh.data : mesh.replicas()) : 1;
}

// Gradients on their way to those that update with them, and from those what everyone reads: the compute copy, or master weights.
void add_gradients(Collectives& all, const Config& config, const Transformer& model, const MeshShape& mesh) {
    const double wide = real(size_of(accumulate_type(training_types(config.train).compute))), narrow = real(size_of(training_types(config.train).compute));
    for (const bool expert : {false, true}) {
        double summed = 0, reduced = 0, updated = 0;
        for (const Parameter& p : model.parameters().records()) {
            if (p.frozen || expert != (p.experts > 0)) continue;
            const double elements = real(p.elements()) / ((expert ? mesh.expert : 1) * (p.split == Split::none ? 1 : mesh.tensor));
            const bool owned = owners_of_record(config, p, mesh) > 1;
            (owned ? reduced : summed) += wide * elements;
            if (owned) updated += (keeps_all_masters(config.train, p) ? wide : narrow) * elements;
        }
        const char* const group = expert && mesh.expert > 1 ? "data" : "replicas";
        const int ranks = expert ? mesh.data : mesh.replicas();
        all.add(expert ? "experts' gradients" : "dense gradients", group, Collective::all_reduce, ranks, mesh.ranks(), 1, summed);
        all.add(expert ? "experts' gradients to owners" : "dense gradients to owners", group, Collective::reduce, ranks, mesh.ranks(), 1, reduced);
        all.add(expert ? "experts' weights from owners" : "dense weights from owners", group, Collective::broadcast, ranks, mesh.ranks(), 1, updated);
    }
}

// Sums within tensors that tensor ranks share (ops/optimizer.hpp): of squares, and of factored state along the other dimension.
double optimizer_sums(const Config& config, const Transformer& model, const MeshShape& mesh) {
    double sums = 0;
    for (const Parameter& p : model.parameters().records()) {
        if (p.frozen || p.split == Split::none || config.optimizer.kind != OptimizerKind::adafactor) continue;
        const bool factored = optimizer_slots(config.optimizer, p).size() == 2;
        const double numbers = factored ? 3 + real(p.shape[p.split == Split::rows ? 1 : 0]) : 2;
        sums += numbers * real(p.tensors()) / ((p.experts > 0 ? mesh.expert : 1) * owners_of_record(config, p, mesh));
    }
    return sums;
}

// What is small and always there: the counts and the report of a step, the gradient's norm, the pieces of the loss, the optimizer's sums.
void add_small(Collectives& all, const Config& config, const Transformer& model, const MeshShape& mesh, double passes, double rows) {
    all.add("counts and losses", "replicas", Collective::all_reduce, mesh.replicas(), mesh.ranks(), 2, 8 * real(3 + model.report_size()));
    all.add("gradient's norm", "tensor", Collective::all_reduce, mesh.tensor, mesh.tensor, 1, 8);
    const bool sharded = config.parallel.shard_optimizer && mesh.replicas() > 1;
    if (sharded) all.add("gradient's norm", "replicas", Collective::all_reduce, mesh.replicas(), mesh.ranks(), 1, 8);
    else all.add("gradient's norm", "expert", Collective::all_reduce, mesh.expert, mesh.expert * mesh.tensor, 1, 8);
    const double targets = rows * real(target_length(config.data, config.data.encoder_length));
    all.add("loss of a part of the vocabulary", "tensor", Collective::all_gather, mesh.tensor, mesh.tensor, passes, targets * 32 * mesh.tensor);
    all.add("optimizer's sums", "tensor", Collective::all_reduce, mesh.tensor, mesh.tensor, 2, 8 * optimizer_sums(config, model, mesh));
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

namespace {

bool routes_without_capacity(const ModelConfig& c) {
    return (!c.encoder_sparse.empty() && c.encoder_decoder && c.encoder_routing.dropless) || (!c.decoder_sparse.empty() && c.decoder_routing.dropless);
}

}  // namespace

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
    if (std::string problem = division_problem(config.model, mesh); !problem.empty()) return problem;
    const int64_t group = rows_of_group(config.model);
    if (mesh.replicas() == 1 || group > 0) return "";
    return "moe.group_rows = 0 routes the whole batch together, so its rows cannot be divided; set it to the rows of a group";
}

RankPlan plan_rank(const Config& config, const Cluster& cluster, const MeshShape& mesh, int64_t micro_rows) {
    const Config local = config_of_rank(config, mesh, micro_rows);
    Transformer model(config.model);
    freeze_parameters(model.parameters(), config.train.freeze);
    RankPlan plan;
    plan.mesh = mesh, plan.rows = local.data.batch_rows, plan.micro_rows = local.data.micro_batch_rows;
    plan.memory = memory_of_rank(config, mesh, micro_rows);
    plan.parameters = plan.memory.parameters;
    plan.even_rows = mesh.expert > 1 && routes_without_capacity(config.model);
    plan.compute = predict_step(local, cluster.device);

    Collectives all(cluster);
    const double passes = real(plan.compute.passes);
    add_gradients(all, config, model, mesh);
    const double rows = rows_of_rank(config, mesh, plan.micro_rows), filled = rows / real(plan.micro_rows);
    if (config.model.encoder_decoder) add_stack(all, config, mesh, false, plan.micro_rows, passes, filled);
    add_stack(all, config, mesh, true, plan.micro_rows, passes, filled);
    add_small(all, config, model, mesh, passes, rows);
    plan.collectives = std::move(all.plans);
    return plan;
}

namespace {

// Those of the cluster's ranks that can run the config, and leave no rank without rows.
std::vector<MeshShape> meshes_of(const Config& config, const Cluster& cluster) {
    const int64_t groups = config.data.batch_rows / std::max<int64_t>(1, rows_of_group(config.model));
    std::vector<MeshShape> meshes;
    for (int tensor = 1; tensor <= std::min(cluster.ranks, cluster.ranks_of_node); ++tensor) {
        for (int expert = 1; expert <= std::max<int64_t>(1, config.model.experts); ++expert) {
            if (cluster.ranks % (tensor * expert) != 0) continue;
            const MeshShape mesh{cluster.ranks / (tensor * expert), expert, tensor};
            if (mesh.replicas() <= groups && objection_to(config, mesh).empty()) meshes.push_back(mesh);
        }
    }
    return meshes;
}

}  // namespace

std::optional<RankPlan> best_plan(const Config& config, const Cluster& cluster) {
    std::optional<RankPlan> best;
    const int64_t group = std::max<int64_t>(1, rows_of_group(config.model));
    for (const MeshShape& mesh : meshes_of(config, cluster)) {
        std::set<int64_t> tried;
        for (int64_t micro = config.data.micro_batch_rows ? config.data.micro_batch_rows : config.data.batch_rows; micro >= group; micro = micro / 2 / group * group) {
            if (!tried.insert(config_of_rank(config, mesh, micro).data.micro_batch_rows).second) continue;
            RankPlan plan = plan_rank(config, cluster, mesh, micro);
            if (plan.memory.total() > cluster.memory) continue;
            if (!best || plan.seconds() < best->seconds()) best = std::move(plan);
            break;  // smaller micro-batches are no faster
        }
    }
    return best;
}

std::optional<RankPlan> smallest_plan(const Config& config, const Cluster& cluster) {
    std::optional<RankPlan> smallest;
    for (const MeshShape& mesh : meshes_of(config, cluster)) {
        RankPlan plan = plan_rank(config, cluster, mesh, 1);
        if (!smallest || plan.memory.total() < smallest->memory.total()) smallest = std::move(plan);
    }
    return smallest;
}

ModelCount count_model(const Config& config) {
    const ModelConfig& c = config.model;
    const Transformer model(c);
    ModelCount count;
    for (const Parameter& p : model.parameters().records()) {
        const RoutingConfig& routing = p.name.starts_with("encoder.") ? c.encoder_routing : c.decoder_routing;
        count.total += p.elements();
        count.active += real(p.elements()) * (p.experts > 0 ? active_share(routing, p.experts) : 1);
    }
    const int64_t source = config.data.encoder_length, target = target_length(config.data, source);
    count.forward_flops = forward_flops(c, {1, source, target}) / real(std::max<int64_t>(1, source + target));
    return count;
}

}  // namespace flanmoe

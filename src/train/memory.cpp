#include "train/memory.hpp"

#include "core/error.hpp"
#include "core/memory.hpp"
#include "data/span_corruption.hpp"
#include "model/moe_layer.hpp"
#include "optim/freezing.hpp"
#include "optim/optimizer.hpp"
#include "train/planned_rank.hpp"
#include "train/replicas.hpp"
#include "train/step.hpp"

#include <algorithm>

namespace flanmoe {

namespace {

// Bytes of activations: what a forward pass keeps, and the most that one sub-layer's backward pass adds.
struct Activations {
    Recompute recompute;
    int64_t kept = 0, added = 0;
    int64_t reused_dense = 0, reused_sparse = 0;  // shared by all layers with Recompute::cheap
    /// `stream` is always kept; `dear` costs products, `cheap` does not.
    void sublayer(bool sparse, int64_t stream, int64_t dear, int64_t cheap, int64_t adds) {
        int64_t& reused = sparse ? reused_sparse : reused_dense;
        kept += stream;
        if (recompute == Recompute::full) return void(added = std::max(added, dear + cheap + adds));
        kept += dear, added = std::max(added, adds);
        if (recompute == Recompute::cheap)
            reused = std::max(reused, cheap);
        else
            kept += cheap;
    }
};

// Bytes of an element: what the forward saves, what the backward's products take, and the residual stream.
struct Sizes {
    int64_t forward, compute, accumulate;
    int64_t token_ranks = 1;  ///< that share the tokens between sub-layers
    /// Of a copy that the backward pass makes of what the forward saved in another type.
    int64_t copy() const { return forward == compute ? 0 : compute; }
};

// Of one sparse layer: rows that this rank sorts, room for rows at its experts, and slots that it sends and receives (model/dispatcher.hpp).
struct ExpertRows {
    int64_t sorted, at_experts, sent = 0, received = 0;
};

ExpertRows expert_rows(const RoutingConfig& routing, int64_t rows, int64_t length, int64_t experts, int64_t expert_ranks) {
    const int64_t groups = routing.group_rows == 0 ? 1 : std::max<int64_t>(1, rows / routing.group_rows), group_tokens = rows * length / groups;
    const ops::RouteRule rule = rule_of(routing, true);
    const int64_t sorted = ops::max_rows(rule, rows * length, groups, experts), capacity = ops::capacity_of(rule, group_tokens, experts);
    if (expert_ranks == 1) return {sorted, sorted};
    if (capacity < 0) return {sorted, sorted, 0, sorted};  // as many come as go, on average; they go as they are
    const int64_t slots = experts * groups * std::min(capacity, group_tokens);
    return {sorted, slots, slots, slots};
}

// In elements of `n` tokens unless said otherwise; see the allocations of model/*_layer.cpp and model/stack.cpp. `c` has the experts of one of so many ranks.
Activations activations_of_stack(const ModelConfig& c, bool decoder, int64_t rows, int64_t length, int64_t memory_tokens, Sizes size, Recompute recompute, int64_t expert_ranks) {
    const std::vector<int64_t>& sparse = decoder ? c.decoder_sparse : c.encoder_sparse;
    const int64_t n = rows * length, d = c.d_model, inner = c.heads * c.d_kv, keys_values = 2 * c.key_heads() * c.d_kv, blocks = decoder ? c.decoder_layers : c.encoder_layers;
    const int64_t own = (n + size.token_ranks - 1) / size.token_ranks;  // tokens of this rank between sub-layers
    const int64_t stream = own * d * size.accumulate, rstd = own * size.accumulate, normed = n * d * size.forward;  // the stream is what the sub-layer's output becomes
    const int64_t dx = n * d * (size.compute + size.copy());                              // gradient and copy of the input
    Activations sum{recompute};
    for (int64_t layer = 0; layer < blocks; ++layer) {
        const auto attention = [&](int64_t fused, int64_t keys) {
            sum.sublayer(false, stream, rstd + (n * (fused + inner) + keys) * size.forward + n * c.heads * size.accumulate, normed, dx + (n * (fused + inner) + keys) * (size.forward + size.copy()));
        };
        attention(inner + keys_values, 0);
        if (decoder && c.encoder_decoder) attention(inner, memory_tokens * keys_values);
        const bool is_sparse = c.experts > 0 && std::find(sparse.begin(), sparse.end(), layer) != sparse.end();
        if (is_sparse) {
            const RoutingConfig& routing = decoder ? c.decoder_routing : c.encoder_routing;
            const ExpertRows of = expert_rows(routing, rows, length, c.experts * expert_ranks, expert_ranks);
            const int64_t m = of.at_experts, f = c.expert_width(), halves = c.expert_gated ? 2 : 1, scores = n * c.experts * expert_ranks * size.accumulate;
            const int64_t products = of.sorted * d + m * halves * f + n * halves * c.shared_d_ff, others = m * (d + (1 + c.multiplicative_bias) * f) + n * c.shared_d_ff;
            const int64_t drawn = routing.sample_temperature > 0 ? scores : 0;
            // What is on its way, and the answers' gradient where the experts are.
            const int64_t exchange = expert_ranks == 1 ? 0 : (m + of.sent + of.received) * d * size.compute;
            const int64_t delta = size.forward == size.accumulate ? 0 : own * d * size.forward;
            sum.sublayer(true, stream + delta, rstd + 2 * scores + drawn + products * size.forward, normed + n * d * size.accumulate + others * size.forward,
                         dx + m * f * size.compute + exchange + (products + others) * size.copy() + scores);
        }
        if (!is_sparse || c.extra_ffn) {
            const int64_t f = dense_width(c, decoder, layer), products = n * (c.gated ? 2 : 1) * f, activated = n * f;
            sum.sublayer(false, stream, rstd + products * size.forward, normed + activated * size.forward, dx + n * f * size.compute + (products + activated) * size.copy());
        }
    }
    sum.kept += own * d * size.accumulate + n * d * size.forward;  // the last sum of the stream, output
    sum.added += own * d * (size.accumulate + size.compute);        // gradients of the stream and of a sub-layer's output
    if (size.token_ranks > 1) sum.kept += n * d * (size.accumulate + size.forward) + own * d * size.forward, sum.added += n * d * size.compute;  // whole before sums and after gathers
    return sum;
}

}  // namespace

int64_t target_length(const DataConfig& data, int64_t source) {
    if (data.decoder_length > 0) return data.decoder_length;
    return data.objective == Objective::span_corruption ? span_lengths(source, data.noise_density, data.mean_span).targets : source;
}

MemoryNeed memory_of_weights(const ParameterStore& parameters, DType compute) {
    const ArrayBytes bytes = parameters.array_bytes(compute, false, compute);
    return {.weights = bytes.masters, .compute_copy = bytes.compute};
}

namespace {

// Of optimizer state for one tensor of a record's part: a piece of memory a slot, in whole cache lines.
int64_t state_bytes(const OptimizerConfig& config, const ParameterStore& store, const Parameter& p, DType type) {
    constexpr int64_t line = 64;
    const Mesh& mesh = store.mesh();
    int64_t bytes = 0, first = 0;
    for (const StateSlot& slot : optimizer_slots(config, p)) {
        const int64_t part = part_of(slot.shape, slot.split, mesh.tensor_index(), mesh.shape().tensor, first).elements() * size_of(type);
        bytes += (part + line - 1) / line * line;
    }
    return bytes;
}

// Weights, gradients and optimizer state of the rank's store; of a sharded one, of the replica that needs most.
MemoryNeed memory_beside_activations(const Config& config, const ParameterStore& store) {
    const TrainingTypes types = training_types(config.train);
    const ArrayBytes bytes = store.array_bytes(types.compute, true, types.forward);
    const std::vector<int64_t> masters = store.is_sharded() ? store.master_bytes_of_replicas(types.compute, types.forward) : std::vector{bytes.masters};
    std::vector<int64_t> state(masters.size());
    int64_t count = 0;
    for (const Parameter& p : store.records()) {
        count += p.part_elements();
        const int64_t one = state_bytes(config.optimizer, store, p, accumulate_type(types.compute));
        if (p.owners.empty()) {
            for (int64_t& of : state) of += one * p.part_tensors();
            continue;
        }
        for (int64_t t = 0; t < p.part_tensors(); ++t)
            for (const int replica : store.replicas_that_update(p, t)) state[static_cast<size_t>(replica)] += one;
    }
    size_t most = 0;
    for (size_t r = 1; r < state.size(); ++r)
        if (masters[r] + state[r] > masters[most] + state[most]) most = r;
    return {.weights = masters[most], .compute_copy = bytes.compute, .gradients = bytes.gradients, .optimizer = state[most], .parameters = count};
}

}  // namespace

MemoryNeed memory_of_training(const Config& config, const Transformer& model, const SequenceShape& shape, int64_t expert_ranks) {
    const ModelConfig& c = config.model;
    const TrainingTypes types = training_types(config.train);
    const DType compute = types.compute;
    const Sizes size{size_of(types.forward), size_of(compute), size_of(accumulate_type(compute)), config.parallel.sequence ? std::max<int64_t>(1, config.parallel.tensor) : 1};
    MemoryNeed need = memory_beside_activations(config, model.parameters());
    const int64_t memory_tokens = shape.rows * shape.source;
    const Recompute recompute = config.train.recompute;
    Activations encoder{recompute}, decoder = activations_of_stack(c, true, shape.rows, shape.target, memory_tokens, size, recompute, expert_ranks);
    if (c.encoder_decoder) encoder = activations_of_stack(c, false, shape.rows, shape.source, 0, size, recompute, expert_ranks);
    const int64_t reused = std::max(encoder.reused_dense, decoder.reused_dense) + std::max(encoder.reused_sparse, decoder.reused_sparse);
    // Between the stacks: the gradient of the decoder's output, and of the encoder's with its copies.
    const int64_t target_tokens = shape.rows * shape.target, between = target_tokens * c.d_model * size.compute + memory_tokens * c.d_model * (size.accumulate + 2 * size.copy());
    const int64_t decoder_gradients = target_tokens * c.d_model * (size.accumulate + size.compute);
    need.rows = shape.rows;
    need.activations = encoder.kept + decoder.kept + reused + between + std::max(decoder.added, encoder.added + decoder_gradients);
    return need;
}

Config config_of_rank(Config config, const MeshShape& mesh, int64_t micro_rows) {
    const auto share = [](int64_t whole, int64_t ranks) { return (whole + ranks - 1) / ranks; };
    ModelConfig& c = config.model;
    // Rows are given out by routing groups, those of a rank in micro-batches of about the same size (Share::pieces).
    DataConfig& data = config.data;
    const int64_t group = rows_of_group(c) ? rows_of_group(c) : data.batch_rows, groups = std::max<int64_t>(1, share(data.batch_rows / group, mesh.replicas()));
    const int64_t micro = micro_rows ? micro_rows : data.micro_batch_rows ? data.micro_batch_rows : data.batch_rows;
    data.batch_rows = groups * group;
    data.micro_batch_rows = share(groups, share(groups, std::max<int64_t>(1, micro / group))) * group;
    c.kv_heads = share(c.key_heads(), mesh.tensor), c.heads = share(c.heads, mesh.tensor);
    c.expert_d_ff = c.expert_width();
    for (int64_t* width : {&c.d_ff, &c.expert_d_ff, &c.shared_d_ff, &c.vocab_size}) *width = share(*width, mesh.tensor);
    for (std::vector<int64_t>* widths : {&c.encoder_d_ff, &c.decoder_d_ff})
        for (int64_t& width : *widths) width = share(width, mesh.tensor);
    c.experts /= mesh.expert;
    config.parallel.data = mesh.data, config.parallel.expert = mesh.expert, config.parallel.tensor = mesh.tensor;
    return config;
}

bool keeps_all_masters(const TrainConfig& config, const Parameter& p) {
    return training_types(config).forward == accumulate_type(training_types(config).compute) || p.full_precision;
}

MemoryNeed memory_of_rank(const Config& config, const MeshShape& mesh, int64_t micro_rows) {
    PlannedRank last(mesh.ranks() - 1, mesh.ranks());  // where sizes do not divide, it has the larger parts
    const Mesh place(last, mesh);
    Transformer model(config.model, place);
    freeze_parameters(model.parameters(), config.train.freeze);
    if (config.parallel.shard_optimizer) model.parameters().shard();
    const Config rank = config_of_rank(config, mesh, micro_rows);
    const int64_t source = config.data.encoder_length;
    return memory_of_training(rank, model, {rank.data.micro_batch_rows, source, target_length(config.data, source)}, mesh.expert);
}

namespace {

std::string what_fits(const MemoryNeed& need, int64_t parameters, int64_t available) {
    const int64_t fixed = need.total() - need.activations, room = available - fixed;
    if (need.rows > 0 && room > 0) {
        const auto rows = static_cast<int64_t>(static_cast<double>(room) / static_cast<double>(need.activations) * static_cast<double>(need.rows));
        if (rows > 0) return fmt::format("data.micro_batch_rows={} would fit; train.recompute, shorter rows or a smaller model help too", rows);
        return "not one row fits beside the model: use train.recompute, shorter rows, a smaller model or a machine with more memory";
    }
    const double share = static_cast<double>(available) / static_cast<double>(fixed);
    return fmt::format("use a smaller model, of about {:.0f} parameters, or a machine with more memory", share * static_cast<double>(parameters));
}

}  // namespace

void check_memory(const MemoryNeed& need, int64_t parameters, const Engine& engine, int sharers) {
    const int64_t all = engine.available_bytes(), available = all / sharers;
    if (all < 0 || need.total() <= available) return;
    std::string parts = human_bytes(need.weights) + " of weights";
    for (const auto& [bytes, name] : {std::pair{need.compute_copy, "bf16 copy"}, {need.gradients, "gradients"}, {need.optimizer, "optimizer state"}, {need.activations, "activations"}})
        if (bytes > 0) parts += fmt::format(", {} of {}", human_bytes(bytes), name);
    const int64_t device = engine.device_bytes();
    std::string where = device > 0 ? " of the GPU's " + human_bytes(device) : "", remedy = what_fits(need, parameters, available);
    if (sharers > 1) where += fmt::format(" to each of the {} ranks of this host", sharers);
    if (device > 0 && need.total() * sharers <= device) remedy = "other processes hold the rest (nvidia-smi lists them): end those, or choose another GPU by CUDA_VISIBLE_DEVICES; else " + remedy;
    fail(Exit::out_of_memory, "the model's {} parameters need about {} of memory ({}), but only {} are available{}; {}", parameters, human_bytes(need.total()), parts, human_bytes(available), where, remedy);
}

}  // namespace flanmoe

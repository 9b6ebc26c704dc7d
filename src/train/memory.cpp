#include "train/memory.hpp"

#include "core/error.hpp"
#include "core/memory.hpp"
#include "data/span_corruption.hpp"
#include "model/moe_layer.hpp"
#include "optim/optimizer.hpp"
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
    /// Of a copy that the backward pass makes of what the forward saved in another type.
    int64_t copy() const { return forward == compute ? 0 : compute; }
};

int64_t expert_rows(const ModelConfig& c, const RoutingConfig& routing, int64_t rows, int64_t length) {
    const int64_t groups = routing.group_rows == 0 ? 1 : std::max<int64_t>(1, rows / routing.group_rows);
    return ops::max_rows(rule_of(routing, true), rows * length, groups, c.experts);
}

// In elements of `n` tokens unless said otherwise; see the allocations of model/*_layer.cpp and model/stack.cpp.
Activations activations_of_stack(const ModelConfig& c, bool decoder, int64_t rows, int64_t length, int64_t memory_tokens, Sizes size, Recompute recompute) {
    const std::vector<int64_t>& sparse = decoder ? c.decoder_sparse : c.encoder_sparse;
    const int64_t n = rows * length, d = c.d_model, inner = c.heads * c.d_kv, keys_values = 2 * c.key_heads() * c.d_kv, blocks = decoder ? c.decoder_layers : c.encoder_layers;
    const int64_t stream = n * d * size.accumulate, rstd = n * size.accumulate, normed = n * d * size.forward;  // the stream is what the sub-layer's output becomes
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
            const int64_t m = expert_rows(c, decoder ? c.decoder_routing : c.encoder_routing, rows, length), f = c.expert_width();
            const int64_t halves = c.expert_gated ? 2 : 1, scores = n * c.experts * size.accumulate;
            const int64_t products = m * (d + halves * f) + n * halves * c.shared_d_ff, others = m * (d + (1 + c.multiplicative_bias) * f) + n * c.shared_d_ff;
            const int64_t drawn = (decoder ? c.decoder_routing : c.encoder_routing).sample_temperature > 0 ? scores : 0;
            const int64_t delta = size.forward == size.accumulate ? 0 : n * d * size.forward;
            sum.sublayer(true, stream + delta, rstd + 2 * scores + drawn + products * size.forward, normed + n * d * size.accumulate + others * size.forward,
                         dx + m * f * size.compute + (products + others) * size.copy() + scores);
        }
        if (!is_sparse || c.extra_ffn) {
            const int64_t f = dense_width(c, decoder, layer), products = n * (c.gated ? 2 : 1) * f, activated = n * f;
            sum.sublayer(false, stream, rstd + products * size.forward, normed + activated * size.forward, dx + n * f * size.compute + (products + activated) * size.copy());
        }
    }
    sum.kept += n * d * (size.accumulate + size.forward);  // the last sum of the stream, output
    sum.added += n * d * (size.accumulate + size.compute);  // gradients of the stream and of a sub-layer's output
    return sum;
}

}  // namespace

int64_t target_length(const DataConfig& data, int64_t source) {
    if (data.decoder_length > 0) return data.decoder_length;
    return data.objective == Objective::span_corruption ? span_lengths(source, data.noise_density, data.mean_span).targets : source;
}

MemoryNeed memory_of_weights(const ParameterStore& parameters, DType compute) {
    const int64_t count = parameters.parameter_count();
    return {.weights = count * size_of(accumulate_type(compute)), .compute_copy = compute == DType::bf16 ? count * size_of(compute) : 0};
}

MemoryNeed memory_of_training(const Config& config, const Transformer& model, const SequenceShape& shape) {
    const ModelConfig& c = config.model;
    const TrainingTypes types = training_types(config.train);
    const DType compute = types.compute;
    const Sizes size{size_of(types.forward), size_of(compute), size_of(accumulate_type(compute))};
    MemoryNeed need = memory_of_weights(model.parameters(), compute);
    need.gradients = need.weights;
    for (const Parameter& p : model.parameters().records())
        for (const auto& [suffix, slot, split] : optimizer_slots(config.optimizer, p)) need.optimizer += p.tensors() * slot.elements() * size.accumulate;
    const int64_t memory_tokens = shape.rows * shape.source;
    const Recompute recompute = config.train.recompute;
    Activations encoder{recompute}, decoder = activations_of_stack(c, true, shape.rows, shape.target, memory_tokens, size, recompute);
    if (c.encoder_decoder) encoder = activations_of_stack(c, false, shape.rows, shape.source, 0, size, recompute);
    const int64_t reused = std::max(encoder.reused_dense, decoder.reused_dense) + std::max(encoder.reused_sparse, decoder.reused_sparse);
    // Between the stacks: the gradient of the decoder's output, and of the encoder's with its copies.
    const int64_t target_tokens = shape.rows * shape.target, between = target_tokens * c.d_model * size.compute + memory_tokens * c.d_model * (size.accumulate + 2 * size.copy());
    const int64_t decoder_gradients = target_tokens * c.d_model * (size.accumulate + size.compute);
    need.rows = shape.rows;
    need.activations = encoder.kept + decoder.kept + reused + between + std::max(decoder.added, encoder.added + decoder_gradients);
    return need;
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

void check_memory(const MemoryNeed& need, int64_t parameters, const Engine& engine) {
    const int64_t available = engine.available_bytes();
    if (available < 0 || need.total() <= available) return;
    std::string parts = human_bytes(need.weights) + " of weights";
    for (const auto& [bytes, name] : {std::pair{need.compute_copy, "bf16 copy"}, {need.gradients, "gradients"}, {need.optimizer, "optimizer state"}, {need.activations, "activations"}})
        if (bytes > 0) parts += fmt::format(", {} of {}", human_bytes(bytes), name);
    fail(Exit::out_of_memory, "the model's {} parameters need about {} of memory ({}), but only {} are available; {}", parameters, human_bytes(need.total()), parts, human_bytes(available),
         what_fits(need, parameters, available));
}

}  // namespace flanmoe

// Checks between options; the range of a single one stands in the table.
#include "config/config.hpp"
#include "core/error.hpp"

namespace flanmoe {

namespace {

template <class... Args>
void check(bool ok, fmt::format_string<Args...> format, Args&&... args) {
    if (!ok) fail(Exit::usage, format, std::forward<Args>(args)...);
}

void validate_sparse_layers(const std::vector<int64_t>& sparse, int64_t layers, const char* stack) {
    for (size_t i = 0; i < sparse.size(); ++i) {
        check(sparse[i] < layers, "moe.{0}.layers names layer {1}, but model.{0}_layers is {2} and layers count from 0", stack, sparse[i], layers);
        check(i == 0 || sparse[i - 1] < sparse[i], "moe.{}.layers must ascend without repetition; {} follows {}", stack, sparse[i], sparse[i ? i - 1 : 0]);
    }
}

void validate_routing(const RoutingConfig& routing, int64_t experts, const DataConfig& data, const char* stack) {
    check(routing.k <= experts, "moe.{}.k is {}, more than the {} experts of moe.experts", stack, routing.k, experts);
    const int64_t micro = data.micro_batch_rows ? data.micro_batch_rows : data.batch_rows;
    if (routing.group_rows == 0)
        check(micro == data.batch_rows, "moe.{}.group_rows = 0 routes the whole batch together, so data.micro_batch_rows must be 0 or {}, not {}", stack, data.batch_rows, micro);
    else
        check(micro % routing.group_rows == 0, "moe.{}.group_rows is {} and must divide the {} rows of a micro-batch (data.micro_batch_rows)", stack, routing.group_rows, micro);
}

void validate_model(const ModelConfig& model) {
    if (model.encoder_decoder)
        check(model.encoder_layers > 0, "model.encoder_layers is 0; give the encoder layers, or set model.encoder_decoder = false for a decoder-only model");
    else
        check(model.encoder_layers == 0, "model.encoder_layers is {}, but a decoder-only model has no encoder; set it to 0", model.encoder_layers);
    check(model.buckets % 4 == 0, "model.buckets is {} and must be a multiple of 4: half of them for each direction, half of those for exact distances", model.buckets);
    check(model.max_distance > model.buckets / 2, "model.max_distance is {} and must be above model.buckets / 2 = {}", model.max_distance, model.buckets / 2);
    check(model.heads % model.key_heads() == 0, "model.kv_heads is {} and must divide model.heads = {}", model.kv_heads, model.heads);
    check(model.rotary == 0 || model.d_kv % 2 == 0, "model.d_kv is {}, but rotary positions turn pairs of elements; make it even, or set model.rotary = 0", model.d_kv);
    check(model.rotary == 0 || !model.bias_per_layer, "model.rotary stands in place of the relative position tables; set model.bias_per_layer = false, or model.rotary = 0");
    check(!model.bidirectional_prefix || !model.encoder_decoder,
          "model.bidirectional_prefix is for decoder-only models: an encoder sees its inputs in both directions anyway; set it to false");
    check(!model.bidirectional_prefix || model.attention_window == 0, "model.attention_window hides tokens that model.bidirectional_prefix shows; set one of them to 0 or false");
    check(!model.shared_gate || model.shared_d_ff > 0, "moe.shared_gate needs a shared expert; set moe.shared_d_ff to its inner width, or moe.shared_gate = false");
    check(model.pad_id != model.eos_id, "model.pad_id and model.eos_id are both {}; padding and end mark must differ", model.pad_id);
    for (const auto& [name, id] : {std::pair{"pad_id", model.pad_id}, {"eos_id", model.eos_id}, {"decoder_start_id", model.decoder_start_id}})
        check(id < model.vocab_size, "model.{} is {}, outside the {} rows of model.vocab_size", name, id, model.vocab_size);
    if (model.attention_dropout < 0) check(model.attention_dropout == -1, "model.attention_dropout is {}; it must be -1 or in [0, 1)", model.attention_dropout);
    if (model.expert_dropout < 0) check(model.expert_dropout == -1, "moe.expert_dropout is {}; it must be -1 or in [0, 1)", model.expert_dropout);
    if (model.experts == 0) return;
    check(!model.encoder_sparse.empty() || !model.decoder_sparse.empty(),
          "moe.experts is {}, but no layer is sparse; set moe.every = 2, moe.encoder.layers or moe.decoder.layers, or moe.experts = 0 for a dense model", model.experts);
    validate_sparse_layers(model.encoder_sparse, model.encoder_layers, "encoder");
    validate_sparse_layers(model.decoder_sparse, model.decoder_layers, "decoder");
}

void validate_data(const DataConfig& data) {
    if (data.micro_batch_rows)
        check(data.batch_rows % data.micro_batch_rows == 0, "data.micro_batch_rows is {} and must divide data.batch_rows = {}", data.micro_batch_rows, data.batch_rows);
    check(data.weights.empty() || data.weights.size() == data.train.size(), "data.weights has {} entries and data.train {}; give one weight for each, or none", data.weights.size(),
          data.train.size());
    check(!data.encoder_decoder || data.encoder_length > 0, "data.encoder_length is 0, which is for decoder-only models; give the tokens of an encoder row");
    check(data.encoder_decoder || data.encoder_length == 0, "data.encoder_length is {}, but a decoder-only model has no encoder; set it to 0 and data.decoder_length instead",
          data.encoder_length);
    check(data.encoder_decoder || data.objective != Objective::span_corruption, "data.objective = \"span_corruption\" needs an encoder; use prefix_lm or causal_lm for a decoder-only model");
    check(!data.encoder_decoder || data.objective != Objective::causal_lm, "data.objective = \"causal_lm\" is for decoder-only models; use prefix_lm or span_corruption with an encoder");
    const bool solved = data.encoder_decoder && data.objective != Objective::instruct;
    check(data.decoder_length > 0 || solved, "data.decoder_length is 0; give the tokens of a decoder row (only span_corruption and prefix_lm derive it from data.encoder_length)");
}

void validate_training(const Config& config) {
    const OptimizerConfig& o = config.optimizer;
    if (o.schedule == Schedule::linear || o.schedule == Schedule::cosine)
        check(o.warmup_steps < config.train.steps, "optimizer.warmup_steps is {} and must be below train.steps = {} with this schedule", o.warmup_steps, config.train.steps);
    check(config.train.spike_factor == 0 || config.train.spike_factor > 1, "train.spike_factor is {}; it must be 0 (not watched) or above 1", config.train.spike_factor);
    const EvalConfig& e = config.eval;
    check(e.metric == "loss" || e.samples > 0, "eval.metric = \"{}\" is measured on generated answers; set eval.samples to how many", e.metric);
    check(e.patience == 0 || e.every > 0, "eval.patience is {}, but eval.every is 0; early stopping needs validations, so set eval.every", e.patience);
}

}  // namespace

void validate(const Config& config) {
    validate_model(config.model);
    validate_data(config.data);
    if (config.model.experts > 0) {
        if (!config.model.encoder_sparse.empty()) validate_routing(config.model.encoder_routing, config.model.experts, config.data, "encoder");
        if (!config.model.decoder_sparse.empty()) validate_routing(config.model.decoder_routing, config.model.experts, config.data, "decoder");
    }
    validate_training(config);
}

}  // namespace flanmoe

// Checks between options; the range of a single one stands in the table.
#include "config/config.hpp"
#include "config/limits.hpp"
#include "core/error.hpp"

#include <algorithm>
#include <cmath>
#include <tuple>

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

// A full group must give every expert at least one slot, in training and in evaluation.
void validate_capacity(const RoutingConfig& r, int64_t experts, int64_t group_tokens, const char* stack) {
    if (r.capacity > 0 || r.dropless || group_tokens == 0) return;
    const auto slots = [&](double factor) { return std::max(r.min_capacity, static_cast<int64_t>(std::nearbyint(factor * static_cast<double>(group_tokens) / static_cast<double>(experts)))); };
    for (const auto& [name, factor, unlimited] : {std::tuple{"capacity_factor", r.capacity_factor, false}, {"eval_capacity_factor", r.eval_capacity_factor, r.eval_dropless}})
        check(unlimited || slots(factor) > 0,
              "moe.{0}.{1} = {2} leaves no slot: a group of {3} tokens and {4} experts gives each round({2} x {3} / {4}) = 0; raise it, or set moe.{0}.min_capacity above 0", stack, name,
              factor, group_tokens, experts);
}

void validate_kind(const RoutingConfig& r, bool causal, const char* stack) {
    const bool choice = r.kind == RouterKind::expert_choice;
    check(!choice || !causal || r.force_causal,
          "moe.{0}.kind = \"expert_choice\" lets experts compare a token with later ones, which a causal decoder must not; set moe.{0}.router = \"top_k\", or "
          "moe.{0}.force_causal = true to study it all the same",
          stack);
    check(!choice || !(r.dropless || r.eval_dropless), "moe.{}.kind = \"expert_choice\" needs a capacity, the number of tokens that an expert takes; set dropless and eval_dropless to false",
          stack);
    check((r.jitter > 0) + (r.input_dropout > 0) + (r.sample_temperature > 0) <= 1,
          "moe.{0}.jitter = {1}, input_dropout = {2} and sample_temperature = {3} are policies of exploration in place of each other; leave one of them above 0", stack, r.jitter,
          r.input_dropout, r.sample_temperature);
    check(r.sample_temperature == 0 || (r.kind == RouterKind::token_choice && !r.balance_bias),
          "moe.{}.sample_temperature draws the experts that tokens choose; with this kind, or with balance_bias, something else decides, so set it to 0", stack);
    check(!r.balance_bias || r.kind == RouterKind::token_choice, "moe.{}.balance_bias is for token choice; with this kind no token chooses, so set it to false", stack);
}

void validate_routing(const RoutingConfig& routing, int64_t experts, const DataConfig& data, bool decoder) {
    const char* stack = decoder ? "decoder" : "encoder";
    check(routing.k <= experts || routing.kind == RouterKind::expert_choice, "moe.{}.k is {}, more than the {} experts of moe.experts; lower the one or raise the other", stack, routing.k, experts);
    validate_kind(routing, decoder, stack);
    // A decoder length that is left to the objective follows from the encoder's and is no longer than that.
    const int64_t length = decoder && data.decoder_length ? data.decoder_length : data.encoder_length;
    validate_capacity(routing, experts, (routing.group_rows ? routing.group_rows : data.batch_rows) * length, stack);
    const int64_t micro = data.micro_batch_rows ? data.micro_batch_rows : data.batch_rows;
    if (routing.group_rows == 0)
        check(micro == data.batch_rows, "moe.{}.group_rows = 0 routes the whole batch together, so data.micro_batch_rows must be 0 or {}, not {}", stack, data.batch_rows, micro);
    else
        check(micro % routing.group_rows == 0, "moe.{}.group_rows is {} and must divide the {} rows of a micro-batch (data.micro_batch_rows)", stack, routing.group_rows, micro);
}

void validate_widths(const std::vector<int64_t>& widths, int64_t layers, const char* stack) {
    check(widths.empty() || static_cast<int64_t>(widths.size()) == layers, "model.{0}_d_ff has {1} entries, but model.{0}_layers is {2}; give one for each layer, or none", stack,
          widths.size(), layers);
}

void validate_model(const ModelConfig& model) {
    if (model.encoder_decoder)
        check(model.encoder_layers > 0, "model.encoder_layers is 0; give the encoder layers, or set model.encoder_decoder = false for a decoder-only model");
    else
        check(model.encoder_layers == 0, "model.encoder_layers is {}, but a decoder-only model has no encoder; set it to 0", model.encoder_layers);
    validate_widths(model.encoder_d_ff, model.encoder_layers, "encoder");
    validate_widths(model.decoder_d_ff, model.decoder_layers, "decoder");
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
    check(!model.multiplicative_bias || model.expert_gated, "moe.multiplicative_bias is a part of gated experts; set moe.activation to gated_gelu, or the bias to false");
    check(!model.encoder_sparse.empty() || !model.decoder_sparse.empty(),
          "moe.experts is {}, but no layer is sparse; set moe.every = 2, moe.encoder.layers or moe.decoder.layers, or moe.experts = 0 for a dense model", model.experts);
    validate_sparse_layers(model.encoder_sparse, model.encoder_layers, "encoder");
    validate_sparse_layers(model.decoder_sparse, model.decoder_layers, "decoder");
}

// Bounds from above: they only have to keep what is counted later within 64 bits.
void validate_sizes(const ModelConfig& model, const DataConfig& data) {
    const auto real = [](int64_t n) { return static_cast<double>(n); };
    int64_t widest = std::max({model.d_ff, model.expert_d_ff, model.shared_d_ff, model.heads * model.d_kv});
    for (const std::vector<int64_t>& widths : {model.encoder_d_ff, model.decoder_d_ff})
        for (const int64_t width : widths) widest = std::max(widest, width);
    const double layers = real(model.encoder_layers + model.decoder_layers), matrices = 10 + 3 * real(model.experts);
    const double weights = real(model.d_model) * (2 * real(model.vocab_size) + layers * matrices * real(widest));
    check(weights <= most_weights, "the model's sizes multiply to about {:.0e} weights, and at most {:.0e} can be counted; check model.d_model, model.d_ff, moe.experts and the layers", weights, most_weights);
    const double tokens = real(data.batch_rows) * real(data.encoder_length + data.decoder_length);
    check(tokens <= most_tokens, "a batch of {} rows of {} tokens is {:.0e} tokens; check data.batch_rows and the lengths of rows", data.batch_rows, data.encoder_length + data.decoder_length, tokens);
}

void validate_data(const DataConfig& data) {
    if (data.micro_batch_rows)
        check(data.batch_rows % data.micro_batch_rows == 0, "data.micro_batch_rows is {} and must divide data.batch_rows = {}", data.micro_batch_rows, data.batch_rows);
    check(data.weights.empty() || data.weights.size() == data.train.size(), "data.weights has {} entries and data.train {}; give one weight for each, or none", data.weights.size(),
          data.train.size());
    check(data.mixture.empty() || data.train.empty(), "data.mixture and data.train are both set; leave one empty");
    check(data.validation_mixture.empty() || data.validation.empty(), "data.validation_mixture and data.validation are both set; leave one empty");
    check(data.validation_split.empty() || (data.validation.empty() && data.validation_mixture.empty()), "data.validation_split stands in place of data.validation and data.validation_mixture; leave them empty");
    check(data.validation_split.empty() || !data.mixture.empty(), "data.validation_split = \"{}\" is a split of data.mixture, which is empty; name a mixture or task file", data.validation_split);
    check(data.only.empty() || !data.mixture.empty() || !data.validation_mixture.empty(), "data.only chooses tasks of data.mixture, which is empty; name a mixture or task file");
    check((data.mixture.empty() && data.validation_mixture.empty()) || data.objective == Objective::instruct, "a mixture of tasks is for data.objective = \"instruct\"");
    check(data.mixture.empty() || (data.weights.empty() && data.cap == 0), "data.weights and data.cap are for data.train; the mixture has proportions and caps of its own");
    check(data.tasks == 0 || data.objective == Objective::instruct, "data.tasks is {}, but only data.objective = \"instruct\" reads tasks; set it to 0", data.tasks);
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
    check(e.metric == "loss" || e.samples > 0, "eval.metric = \"{}\" is measured on answers; set eval.samples to how many", e.metric);
    check(e.test_split.empty() || !config.data.mixture.empty(), "eval.test_split = \"{}\" is a split of data.mixture, which is empty; name a mixture or task file", e.test_split);
    check(e.test_split.empty() || e.samples > 0, "eval.test_split is measured on answers; set eval.samples to how many are answered in a validation (at least 1)");
    check(e.test_split.empty() || e.metric != "loss", "eval.test_split is measured on answers, but eval.metric is \"loss\"; set eval.metric to what the test shall say");
    check(e.test_split.empty() || e.keep_best, "eval.test_split is answered by the best checkpoint, but eval.keep_best is false; set it to true");
    check(e.patience == 0 || e.every > 0, "eval.patience is {}, but eval.every is 0; early stopping needs validations, so set eval.every", e.patience);
}

}  // namespace

std::vector<std::string> routing_warnings(const ModelConfig& model) {
    std::vector<std::string> found;
    const auto look_at = [&](const RoutingConfig& r, const char* stack) {
        if (r.kind == RouterKind::balanced)
            found.push_back(fmt::format("the {} routes by turns (kind = \"balanced\"), whatever its routers say: good for measurements, but such a model learns no routing", stack));
    };
    if (model.experts == 0) return found;
    if (!model.encoder_sparse.empty()) look_at(model.encoder_routing, "encoder");
    if (model.decoder_sparse.empty()) return found;
    look_at(model.decoder_routing, "decoder");
    if (model.decoder_routing.kind == RouterKind::expert_choice)
        found.emplace_back("expert choice in the decoder sees the future: its experts compare each token with later ones, so losses are too good and generation, "
                           "where later tokens do not exist yet, computes something else");
    if (model.decoder_routing.prioritized && !model.decoder_routing.dropless)
        found.emplace_back("moe.decoder.prioritized sees the future: which tokens are dropped depends on later ones, so losses are too good");
    return found;
}

void validate(const Config& config) {
    validate_sizes(config.model, config.data);
    validate_model(config.model);
    validate_data(config.data);
    if (config.model.experts > 0) {
        if (!config.model.encoder_sparse.empty()) validate_routing(config.model.encoder_routing, config.model.experts, config.data, false);
        if (!config.model.decoder_sparse.empty()) validate_routing(config.model.decoder_routing, config.model.experts, config.data, true);
    }
    validate_training(config);
}

}  // namespace flanmoe

#include "checkpoint/hf_config_parts.hpp"

#include "checkpoint/routing_json.hpp"

#include <algorithm>
#include <cmath>
#include <optional>
#include <tuple>

namespace flanmoe {

const char* activation_name(Activation activation) {
    switch (activation) {
        case Activation::relu: return "relu";
        case Activation::gelu_tanh: return "gelu_new";
        case Activation::gelu_erf: return "gelu";
        case Activation::silu: return "silu";
    }
    return "";
}

Activation activation_of(const JsonReader& reader, const char* key, const std::string& name) {
    if (name == "relu") return Activation::relu;
    if (name == "gelu_new" || name == "gelu_pytorch_tanh") return Activation::gelu_tanh;
    if (name == "gelu" || name == "gelu_erf") return Activation::gelu_erf;
    if (name == "silu" || name == "swish") return Activation::silu;
    reader.refuse(key, fmt::format("asks for the activation {:?}", name),
                  "relu, gelu, gelu_new and silu are supported, each also with gated- in front");
}

namespace {

constexpr int64_t no_drops = 1'000'000;  // an expert_capacity with which nothing is dropped

// feed_forward_proj: "gated-gelu" is the tanh form (as in transformers), ungated "gelu" the erf form; the gated erf form, which has no name there, is
// "gated-gelu_erf".
std::string projection_name(Activation activation, bool gated) {
    if (!gated) return activation_name(activation);
    if (activation == Activation::gelu_tanh) return "gated-gelu";
    return std::string("gated-") + (activation == Activation::gelu_erf ? "gelu_erf" : activation_name(activation));
}

void read_projection(const JsonReader& reader, const char* key, Activation& activation, bool& gated) {
    if (!reader.has(key)) return;
    const std::string text = reader.text(key, "");
    gated = text.starts_with("gated-");
    activation = text == "gated-gelu" ? Activation::gelu_tanh : activation_of(reader, key, gated ? text.substr(6) : text);
}

// Layers that the Switch class makes sparse for a step.
std::vector<int64_t> layers_of_step(int64_t step, int64_t layers) {
    std::vector<int64_t> sparse;
    for (int64_t i = 0; i < layers && step > 0; ++i)
        if (step == 1 || i % step == 1) sparse.push_back(i);
    return sparse;
}

// The step that gives these layers, preferring one that follows from the number of sparse layers too (layers / number, as the class computes it).
std::optional<int64_t> step_of_layers(const std::vector<int64_t>& sparse, int64_t layers) {
    if (sparse.empty()) return 0;
    const int64_t usual = layers / static_cast<int64_t>(sparse.size());
    if (layers_of_step(usual, layers) == sparse) return usual;
    for (int64_t step = 1; step <= layers + 1; ++step)
        if (layers_of_step(step, layers) == sparse) return step;
    return {};
}

bool one_width(const ModelConfig& c) { return c.encoder_d_ff.empty() && c.decoder_d_ff.empty(); }

// Attention and sparse layers without what only other families have.
bool fits_t5_family(const ModelConfig& c) {
    return c.encoder_decoder && c.tied == c.scale_outputs && !c.bias_per_layer && c.key_heads() == c.heads && c.rotary == 0 && !c.scale_attention && !c.qkv_bias &&
           c.attention_window == 0 && one_width(c);
}

bool fits_switch(const ModelConfig& c) {
    const RoutingConfig &e = c.encoder_routing, &d = c.decoder_routing;
    const auto top_1 = [](const RoutingConfig& r) { return r.kind == RouterKind::token_choice && r.k == 1 && !r.normalize && !r.prioritized && !r.balance_bias; };
    const bool same_capacity = e.dropless == d.dropless && (e.dropless || e.capacity == d.capacity);
    const bool sparse = c.experts > 0 && !(c.encoder_sparse.empty() && c.decoder_sparse.empty());
    return fits_t5_family(c) && sparse && !c.gated && !c.expert_gated && c.activation == c.expert_activation &&
           (!c.expert_d_ff || c.expert_d_ff == c.d_ff) && !c.extra_ffn && c.shared_d_ff == 0 && top_1(e) && top_1(d) && same_capacity && step_of_layers(c.encoder_sparse, c.encoder_layers) && step_of_layers(c.decoder_sparse, c.decoder_layers);
}

bool fits_t5(const ModelConfig& c) {
    return fits_t5_family(c) && c.experts == 0 && !c.flanmoe_layout && !(c.gated && c.activation == Activation::gelu_erf);
}

// The integer capacity of a row for the Switch class.
int64_t switch_capacity(const ModelConfig& c, int64_t row_tokens) {
    const RoutingConfig &e = c.encoder_routing, &d = c.decoder_routing;
    if (e.dropless) return no_drops;
    if (e.capacity > 0) return e.capacity;
    if (row_tokens <= 0) return no_drops;
    const auto slots = [&](const RoutingConfig& r) {
        const double share = static_cast<double>(row_tokens) / static_cast<double>(c.experts);
        return std::max(r.min_capacity, static_cast<int64_t>(std::llround(r.eval_capacity_factor * share)));
    };
    return std::max(slots(e), slots(d));
}

Json optional_rate(double rate) { return rate < 0 ? Json(nullptr) : Json(rate); }

}  // namespace

void write_ours(Json& json, const ModelConfig& c) {
    json["attention_dropout_rate"] = optional_rate(c.attention_dropout);
    json["dropout_broadcast"] = c.dropout_broadcast;
    json["init_scale"] = c.init_scale;
    json["num_experts"] = c.experts;
    json["expert_feed_forward_proj"] = projection_name(c.expert_activation, c.expert_gated);
    json["expert_d_ff"] = c.expert_d_ff;
    json["expert_dropout_rate"] = optional_rate(c.expert_dropout);
    json["shared_expert_d_ff"] = c.shared_d_ff;
    json["shared_expert_gate"] = c.shared_gate;
    json["moe_multiplicative_bias"] = c.multiplicative_bias;
    json["moe_extra_ffn"] = c.extra_ffn;
    json["relative_attention_per_layer"] = c.bias_per_layer;
    json["num_key_value_heads"] = c.kv_heads;
    json["rope_theta"] = c.rotary;
    json["scale_attention"] = c.scale_attention;
    json["qkv_bias"] = c.qkv_bias;
    json["attention_window"] = c.attention_window;
    json["bidirectional_prefix"] = c.bidirectional_prefix;
    const auto stack = [](const std::vector<int64_t>& layers, const RoutingConfig& routing) {
        Json moe;
        moe["layers"] = layers;
        moe.update(routing_json(routing));
        return moe;
    };
    json["encoder_moe"] = stack(c.encoder_sparse, c.encoder_routing);
    json["decoder_moe"] = stack(c.decoder_sparse, c.decoder_routing);
}

namespace {

void read_stack(const JsonReader& reader, const char* key, int64_t depth, std::vector<int64_t>& layers, RoutingConfig& routing) {
    if (!reader.has(key)) return;
    const JsonReader stack = reader.object(key);
    read_routing(stack, routing);
    if (routing.kind == RouterKind::expert_choice && (routing.dropless || routing.eval_dropless))
        stack.refuse("router", "is expert_choice without a capacity", "give the number of tokens that an expert takes, or capacity factors");
    if (routing.capacity_factor <= 0 || routing.eval_capacity_factor <= 0)
        stack.refuse(routing.capacity_factor <= 0 ? "capacity_factor" : "eval_capacity_factor", "leaves no slot", "give a number above 0");
    if (!stack.has("layers")) return;
    if (!stack.raw("layers").is_array()) stack.refuse("layers", "is not a list", "give the indices of the sparse layers");
    layers.clear();
    for (const ParsedJson& value : stack.raw("layers")) {
        if (!value.is_number_unsigned() || value.get<uint64_t>() >= static_cast<uint64_t>(depth) ||
            (!layers.empty() && value.get<int64_t>() <= layers.back()))
            stack.refuse("layers", "are not ascending layer numbers", fmt::format("give numbers from 0 to {}", depth - 1));
        layers.push_back(value.get<int64_t>());
    }
}

}  // namespace

void read_ours(const JsonReader& reader, ModelConfig& c) {
    c.attention_dropout = reader.number("attention_dropout_rate", 0, 1, -1);
    c.dropout_broadcast = reader.boolean("dropout_broadcast", false);
    c.init_scale = reader.number("init_scale", 0, 1e6, c.init_scale);
    c.experts = reader.integer("num_experts", 0, most_experts, c.experts);
    read_projection(reader, "expert_feed_forward_proj", c.expert_activation, c.expert_gated);
    c.expert_d_ff = reader.integer("expert_d_ff", 0, largest_size, c.expert_d_ff);
    c.expert_dropout = reader.number("expert_dropout_rate", 0, 1, -1);
    c.shared_d_ff = reader.integer("shared_expert_d_ff", 0, largest_size, c.shared_d_ff);
    c.shared_gate = reader.boolean("shared_expert_gate", c.shared_gate);
    c.multiplicative_bias = reader.boolean("moe_multiplicative_bias", c.multiplicative_bias);
    if (c.multiplicative_bias && !c.expert_gated) reader.refuse("moe_multiplicative_bias", "is true although experts are not gated", "correct it or expert_feed_forward_proj");
    c.extra_ffn = reader.boolean("moe_extra_ffn", c.extra_ffn);
    c.bias_per_layer = reader.boolean("relative_attention_per_layer", c.bias_per_layer);
    c.kv_heads = reader.integer("num_key_value_heads", 0, c.heads, c.kv_heads);
    if (c.heads % c.key_heads() != 0) reader.refuse("num_key_value_heads", fmt::format("is {}", c.kv_heads), "it must divide num_heads");
    c.rotary = reader.number("rope_theta", 0, 1e12, c.rotary);
    if (c.rotary > 0 && c.d_kv % 2 != 0) reader.refuse("rope_theta", "is set", "rotary positions need an even d_kv: correct one of them");
    c.scale_attention = reader.boolean("scale_attention", c.scale_attention);
    c.qkv_bias = reader.boolean("qkv_bias", c.qkv_bias);
    c.attention_window = reader.integer("attention_window", 0, int64_t{1} << 40, c.attention_window);
    c.bidirectional_prefix = reader.boolean("bidirectional_prefix", c.bidirectional_prefix);
    read_stack(reader, "encoder_moe", c.encoder_layers, c.encoder_sparse, c.encoder_routing);
    read_stack(reader, "decoder_moe", c.decoder_layers, c.decoder_sparse, c.decoder_routing);
    if (c.experts == 0 && !(c.encoder_sparse.empty() && c.decoder_sparse.empty()))
        reader.refuse("num_experts", "is 0 although there are sparse layers", "correct it");
    for (const auto& [key, layers, routing] : {std::tuple{"encoder_moe", &c.encoder_sparse, &c.encoder_routing}, {"decoder_moe", &c.decoder_sparse, &c.decoder_routing}})
        if (!layers->empty() && routing->kind != RouterKind::expert_choice && routing->k > c.experts)
            reader.refuse(key, fmt::format("has k = {}, more than the {} experts", routing->k, c.experts), "correct k or num_experts");
}

namespace {

// Keys that t5, switch_transformers and flanmoe share.
void read_t5_keys(const JsonReader& reader, ModelConfig& c) {
    c.vocab_size = reader.integer("vocab_size", 1, largest_size);
    c.d_model = reader.integer("d_model", 1, largest_size);
    c.d_kv = reader.integer("d_kv", 1, largest_size);
    c.d_ff = reader.integer("d_ff", 1, largest_size);
    c.heads = reader.integer("num_heads", 1, largest_size);
    c.encoder_decoder = reader.boolean("is_encoder_decoder", true);
    const int64_t layers = reader.integer("num_layers", 1, most_layers);
    c.encoder_layers = c.encoder_decoder ? layers : 0;
    c.decoder_layers = c.encoder_decoder ? reader.integer("num_decoder_layers", 1, most_layers, layers) : layers;
    c.buckets = reader.integer("relative_attention_num_buckets", 2, most_buckets, 32);
    c.max_distance = reader.integer("relative_attention_max_distance", 1, largest_size, 128);
    c.dropout = reader.number("dropout_rate", 0, 1, 0.1);
    c.norm_epsilon = reader.number("layer_norm_epsilon", 0, 1, 1e-6);
    c.pad_id = reader.integer("pad_token_id", 0, c.vocab_size - 1, 0);
    c.eos_id = reader.integer("eos_token_id", 0, c.vocab_size - 1, 1);
    c.decoder_start_id = reader.integer("decoder_start_token_id", 0, c.vocab_size - 1, c.pad_id);
    c.tied = reader.boolean("tie_word_embeddings", true);
    c.scale_outputs = reader.boolean("scale_decoder_outputs", c.tied);
    c.activation = Activation::relu, c.gated = false;
    read_projection(reader, "feed_forward_proj", c.activation, c.gated);
}

void read_switch_keys(const JsonReader& reader, ModelConfig& c) {
    if (reader.boolean("router_bias", false)) reader.refuse("router_bias", "is true", "only routers without a bias are supported");
    const std::string router_type = reader.text("router_dtype", "float32");
    if (router_type != "float32")
        reader.refuse("router_dtype", fmt::format("is {:?}", router_type),
                      "our routers compute in float32: set it to that if the difference is welcome");
    c.activation = activation_of(reader, "dense_act_fn", reader.text("dense_act_fn", "relu"));
    c.gated = false;
    c.expert_activation = c.activation, c.expert_gated = false;
    c.experts = reader.integer("num_experts", 1, most_experts, 8);
    const auto sparse = [&](const char* count_key, const char* step_key, int64_t layers) {
        const int64_t count = reader.integer(count_key, 0, layers, std::min<int64_t>(3, layers));
        const int64_t step =
            reader.integer(step_key, 0, largest_size, count > 0 ? layers / count : layers);  // without sparse layers the class takes the depth, too
        return layers_of_step(step, layers);
    };
    c.encoder_sparse = sparse("num_sparse_encoder_layers", "encoder_sparse_step", c.encoder_layers);
    c.decoder_sparse = sparse("num_sparse_decoder_layers", "decoder_sparse_step", c.decoder_layers);
    RoutingConfig& routing = c.encoder_routing;  // the class: a fixed number of slots a row, padding included, in training and evaluation
    routing.capacity = reader.integer("expert_capacity", 1, int64_t{1} << 40, 64);
    routing.route_padding = true;
    routing.jitter = reader.number("router_jitter_noise", 0, 1, 0.01);
    c.decoder_routing = routing;
    if (c.encoder_sparse.empty() && c.decoder_sparse.empty()) c.experts = 0, c.flanmoe_layout = true;  // dense, with the tensor names of Switch
}

void read_widths(const JsonReader& reader, const char* key, int64_t layers, std::vector<int64_t>& widths) {
    if (!reader.has(key)) return;
    const ParsedJson& list = reader.raw(key);
    bool valid = list.is_array() && static_cast<int64_t>(list.size()) == layers;
    for (size_t i = 0; valid && i < list.size(); ++i) {
        valid = list[i].is_number_unsigned() && list[i].get<uint64_t>() >= 1 && list[i].get<uint64_t>() <= static_cast<uint64_t>(largest_size);
        if (valid) widths.push_back(list[i].get<int64_t>());
    }
    if (!valid) reader.refuse(key, "is not a list of one width for each layer", fmt::format("give {} numbers from 1 to {}", layers, largest_size));
}

void read_flanmoe_keys(const JsonReader& reader, ModelConfig& c) {
    reader.only({"model_type",
                 "architectures",
                 "vocab_size",
                 "d_model",
                 "d_kv",
                 "d_ff",
                 "num_heads",
                 "num_layers",
                 "num_decoder_layers",
                 "feed_forward_proj",
                 "is_encoder_decoder",
                 "relative_attention_num_buckets",
                 "relative_attention_max_distance",
                 "dropout_rate",
                 "layer_norm_epsilon",
                 "initializer_factor",
                 "pad_token_id",
                 "eos_token_id",
                 "bos_token_id",
                 "decoder_start_token_id",
                 "tie_word_embeddings",
                 "scale_decoder_outputs",
                 "use_cache",
                 "torch_dtype",
                 "dtype",
                 "transformers_version",
                 "_name_or_path",
                 "auto_map",
                 "attention_dropout_rate",
                 "dropout_broadcast",
                 "init_scale",
                 "num_experts",
                 "expert_feed_forward_proj",
                 "expert_d_ff",
                 "expert_dropout_rate",
                 "shared_expert_d_ff",
                 "shared_expert_gate",
                 "moe_multiplicative_bias",
                 "moe_extra_ffn",
                 "relative_attention_per_layer",
                 "num_key_value_heads",
                 "rope_theta",
                 "scale_attention",
                 "qkv_bias",
                 "attention_window",
                 "bidirectional_prefix",
                 "encoder_moe",
                 "decoder_moe",
                 "encoder_d_ff",
                 "decoder_d_ff",
                 "flanmoe_layout"});
    read_ours(reader, c);
    read_widths(reader, "encoder_d_ff", c.encoder_layers, c.encoder_d_ff);
    read_widths(reader, "decoder_d_ff", c.decoder_layers, c.decoder_d_ff);
    c.flanmoe_layout = reader.boolean("flanmoe_layout", c.experts == 0 && c.encoder_decoder && !c.bias_per_layer && one_width(c));
}

}  // namespace

void read_sub_object(const JsonReader& reader, ModelConfig& c) {
    if (!reader.has("flanmoe")) return;
    const ModelConfig before = c;
    const JsonReader ours = reader.object("flanmoe");
    ours.only({"attention_dropout_rate", "dropout_broadcast", "init_scale", "num_experts", "expert_feed_forward_proj", "expert_d_ff", "expert_dropout_rate",
               "shared_expert_d_ff", "shared_expert_gate", "moe_multiplicative_bias", "moe_extra_ffn", "relative_attention_per_layer", "num_key_value_heads", "rope_theta",
               "scale_attention", "qkv_bias", "attention_window", "bidirectional_prefix", "encoder_moe", "decoder_moe", "dropout_rate",
               "relative_attention_num_buckets", "relative_attention_max_distance"});
    c.encoder_routing = c.decoder_routing = RoutingConfig();
    read_ours(ours, c);
    c.dropout = ours.number("dropout_rate", 0, 1, c.dropout);  // these three are other keys of T5's own
    c.buckets = ours.integer("relative_attention_num_buckets", 2, most_buckets, c.buckets);
    c.max_distance = ours.integer("relative_attention_max_distance", 1, largest_size, c.max_distance);
    const auto computed = [](const ModelConfig& m) {
        return std::tuple(m.encoder_sparse, m.decoder_sparse, m.experts, m.key_heads(), m.rotary, m.scale_attention, m.qkv_bias, m.attention_window,
                          m.experts ? m.shared_d_ff : 0, m.experts ? m.decoder_routing.k : 0, m.experts && m.decoder_routing.normalize);
    };
    if (computed(c) != computed(before))
        reader.refuse("flanmoe", "contradicts the sparse layers, experts or attention of the other keys", "remove this key, or correct one of them");
}

const char* name_of(HfLayout layout) {
    switch (layout) {
        case HfLayout::t5: return "t5";
        case HfLayout::switch_transformers: return "switch_transformers";
        case HfLayout::flanmoe: return "flanmoe";
        case HfLayout::mixtral: return "mixtral";
        case HfLayout::qwen2_moe: return "qwen2_moe";
    }
    return "";
}

HfLayout layout_of(const ModelConfig& config) {
    if (fits_t5(config)) return HfLayout::t5;
    if (fits_switch(config)) return HfLayout::switch_transformers;
    if (fits_mixtral(config)) return HfLayout::mixtral;
    return fits_qwen2_moe(config) ? HfLayout::qwen2_moe : HfLayout::flanmoe;
}

namespace {

const char* architecture(const ModelConfig& c, HfLayout layout) {
    switch (layout) {
        case HfLayout::t5: return "T5ForConditionalGeneration";
        case HfLayout::switch_transformers: return "SwitchTransformersForConditionalGeneration";
        case HfLayout::mixtral: return "MixtralForCausalLM";
        case HfLayout::qwen2_moe: return "Qwen2MoeForCausalLM";
        case HfLayout::flanmoe: break;
    }
    return c.encoder_decoder ? "FlanMoeForConditionalGeneration" : "FlanMoeForCausalLM";
}

void write_switch_keys(Json& json, const ModelConfig& c, int64_t row_tokens) {
    json["num_sparse_encoder_layers"] = c.encoder_sparse.size();
    json["num_sparse_decoder_layers"] = c.decoder_sparse.size();
    json["encoder_sparse_step"] = *step_of_layers(c.encoder_sparse, c.encoder_layers);
    json["decoder_sparse_step"] = *step_of_layers(c.decoder_sparse, c.decoder_layers);
    json["num_experts"] = c.experts;
    json["expert_capacity"] = switch_capacity(c, row_tokens);
    json["router_bias"] = false;
    json["router_jitter_noise"] = c.encoder_routing.jitter;
    json["router_dtype"] = "float32";
    json["router_ignore_padding_tokens"] = false;
}

void write_t5_keys(Json& json, const ModelConfig& c, HfLayout layout) {
    json["vocab_size"] = c.vocab_size;
    json["d_model"] = c.d_model;
    json["d_kv"] = c.d_kv;
    json["d_ff"] = c.d_ff;
    json["num_heads"] = c.heads;
    json["num_layers"] = c.encoder_decoder ? c.encoder_layers : c.decoder_layers;
    json["num_decoder_layers"] = c.decoder_layers;
    if (layout == HfLayout::switch_transformers)
        json["dense_act_fn"] = activation_name(c.activation);
    else
        json["feed_forward_proj"] = projection_name(c.activation, c.gated);
    json["relative_attention_num_buckets"] = c.buckets;
    json["relative_attention_max_distance"] = c.max_distance;
    json["dropout_rate"] = c.dropout;
    json["layer_norm_epsilon"] = c.norm_epsilon;
    json["initializer_factor"] = 1.0;
    json["is_encoder_decoder"] = c.encoder_decoder;
    json["pad_token_id"] = c.pad_id;
    json["eos_token_id"] = c.eos_id;
    json["decoder_start_token_id"] = c.decoder_start_id;
    json["tie_word_embeddings"] = c.tied;
    json["scale_decoder_outputs"] = c.scale_outputs;
    json["use_cache"] = true;
}

}  // namespace

std::string write_hf_config(const ModelConfig& c, DType weights, int64_t row_tokens) {
    const HfLayout layout = layout_of(c);
    const bool decoder_family = layout == HfLayout::mixtral || layout == HfLayout::qwen2_moe;
    Json json;
    json["model_type"] = name_of(layout);
    json["architectures"] = {architecture(c, layout)};
    if (decoder_family)
        write_decoder_keys(json, c, layout);
    else
        write_t5_keys(json, c, layout);
    json["torch_dtype"] = weights == DType::bf16 ? "bfloat16" : "float32";
    if (layout == HfLayout::switch_transformers) write_switch_keys(json, c, row_tokens);
    Json& ours = layout == HfLayout::flanmoe ? json : json["flanmoe"];
    write_ours(ours, c);
    if (decoder_family) {
        ours["dropout_rate"] = c.dropout;
        ours["relative_attention_num_buckets"] = c.buckets;
        ours["relative_attention_max_distance"] = c.max_distance;
    }
    if (layout != HfLayout::flanmoe) return json.dump(2) + "\n";
    json["flanmoe_layout"] = c.flanmoe_layout;
    if (!c.encoder_d_ff.empty()) json["encoder_d_ff"] = c.encoder_d_ff;
    if (!c.decoder_d_ff.empty()) json["decoder_d_ff"] = c.decoder_d_ff;
    return json.dump(2) + "\n";
}

ModelConfig parse_hf_config(std::string_view text, const std::string& where) {
    const ParsedJson json = parse_json_object(text, where);
    const JsonReader reader(json, where);
    const std::string type = reader.text("model_type", "");
    const bool mixtral = type == "mixtral", decoder_family = mixtral || type == "qwen2_moe";
    if (!decoder_family && type != "t5" && type != "switch_transformers" && type != "flanmoe")
        reader.refuse("model_type", type.empty() ? "is missing" : fmt::format("is {:?}", type),
                      "models of type t5, switch_transformers, mixtral, qwen2_moe and flanmoe are supported");
    if (reader.has("quantization_config"))
        reader.refuse("quantization_config", "is set", "quantised weights are not supported: get the unquantised model");
    ModelConfig c;
    if (decoder_family) {
        c = read_decoder_keys(reader, mixtral ? HfLayout::mixtral : HfLayout::qwen2_moe);
        read_sub_object(reader, c);
        return c;
    }
    read_t5_keys(reader, c);
    if (type != "flanmoe" && !c.encoder_decoder) reader.refuse("is_encoder_decoder", "is false", "models of this type have an encoder and a decoder");
    if (type == "t5") {
        // As in transformers, the derived keys win over feed_forward_proj where they are written.
        if (reader.has("dense_act_fn")) c.activation = activation_of(reader, "dense_act_fn", reader.text("dense_act_fn", ""));
        c.gated = reader.boolean("is_gated_act", c.gated);
    }
    if (type == "switch_transformers") read_switch_keys(reader, c);
    if (type == "flanmoe")
        read_flanmoe_keys(reader, c);
    else
        read_sub_object(reader, c);
    return c;
}

std::string write_generation_config(const ModelConfig& config) {
    Json json;
    json[config.encoder_decoder ? "decoder_start_token_id" : "bos_token_id"] = config.decoder_start_id;
    json["eos_token_id"] = config.eos_id;
    json["pad_token_id"] = config.pad_id;
    return json.dump(2) + "\n";
}

}  // namespace flanmoe

// config.json of Mixtral and Qwen2-MoE: decoder-only, rotary positions, scaled scores, dropless top-k over gated experts.
//
// transformers writes only what differs from the defaults of the class, so a key that is absent has the default of the class, not ours.
#include "checkpoint/hf_config_parts.hpp"

#include <algorithm>
#include <optional>

namespace flanmoe {

namespace {

// What both families compute beside the feed-forwards.
bool fits_decoder(const ModelConfig& c) {
    return !c.encoder_decoder && c.rotary > 0 && c.scale_attention && c.gated && !c.scale_outputs && !c.bidirectional_prefix && !c.extra_ffn && c.decoder_d_ff.empty();
}

bool fits_experts(const ModelConfig& c) {
    const RoutingConfig& r = c.decoder_routing;
    return c.expert_gated && c.expert_activation == c.activation && !c.multiplicative_bias && r.kind == RouterKind::token_choice && r.dropless && !r.balance_bias &&
           r.second_eval == SecondPolicy::all;
}

std::vector<int64_t> layers_of_step(int64_t step, int64_t layers, const std::vector<int64_t>& dense) {
    std::vector<int64_t> sparse;
    for (int64_t i = 0; i < layers; ++i)
        if ((i + 1) % step == 0 && std::find(dense.begin(), dense.end(), i) == dense.end()) sparse.push_back(i);
    return sparse;
}

// The step without exceptions that gives these layers; 1, with every other layer an exception, otherwise.
int64_t step_of_layers(const std::vector<int64_t>& sparse, int64_t layers) {
    for (int64_t step = 1; step <= layers; ++step)
        if (layers_of_step(step, layers, {}) == sparse) return step;
    return 1;
}

double read_theta(const JsonReader& reader, double otherwise) {
    if (reader.has("rope_scaling")) reader.refuse("rope_scaling", "is set", "only plain rotary positions are supported: set it to null if the difference is welcome");
    if (reader.number("partial_rotary_factor", 0, 1, 1) != 1) reader.refuse("partial_rotary_factor", "is not 1", "only whole heads are turned");
    if (!reader.has("rope_parameters")) return reader.number("rope_theta", 1e-6, 1e12, otherwise);
    const JsonReader rope = reader.object("rope_parameters");  // transformers 5
    const std::string type = rope.text("rope_type", "default");
    if (type != "default") rope.refuse("rope_type", fmt::format("is {:?}", type), "only plain rotary positions (\"default\") are supported");
    return rope.number("rope_theta", 1e-6, 1e12, reader.number("rope_theta", 1e-6, 1e12, otherwise));
}

// An end mark may be a list of ids; the first is ours.
int64_t read_token(const JsonReader& reader, const char* key, int64_t vocabulary, int64_t otherwise) {
    if (!reader.has(key) || !reader.raw(key).is_array()) return reader.integer(key, 0, vocabulary - 1, otherwise);
    const ParsedJson& list = reader.raw(key);
    if (list.empty() || !list[0].is_number_integer() || list[0].get<int64_t>() < 0 || list[0].get<int64_t>() >= vocabulary)
        reader.refuse(key, "does not begin with a token id", "give one id");
    return list[0].get<int64_t>();
}

void read_tokens(const JsonReader& reader, bool mixtral, ModelConfig& c) {
    c.eos_id = read_token(reader, "eos_token_id", c.vocab_size, std::min<int64_t>(c.vocab_size - 1, mixtral ? 2 : 1));
    // Padding is hidden from everything, so any other id serves a model that names none; a model without a start mark starts from padding.
    const int64_t other = c.eos_id == 0 ? std::min<int64_t>(1, c.vocab_size - 1) : 0;
    c.pad_id = read_token(reader, "pad_token_id", c.vocab_size, other);
    if (c.pad_id == c.eos_id) c.pad_id = other;
    c.decoder_start_id = read_token(reader, "bos_token_id", c.vocab_size, mixtral ? std::min<int64_t>(1, c.vocab_size - 1) : c.pad_id);
}

void read_attention(const JsonReader& reader, bool mixtral, ModelConfig& c) {
    c.heads = reader.integer("num_attention_heads", 1, largest_size, mixtral ? 32 : 16);
    if (!reader.has("head_dim") && c.d_model % c.heads != 0) reader.refuse("num_attention_heads", "does not divide hidden_size", "correct one of them, or give head_dim");
    c.d_kv = reader.integer("head_dim", 1, largest_size, c.d_model / c.heads);
    if (c.d_kv % 2 != 0) reader.refuse("head_dim", fmt::format("is {}", c.d_kv), "rotary positions need heads of even width");
    const int64_t class_default = mixtral ? 8 : 16;
    c.kv_heads = reader.integer("num_key_value_heads", 1, c.heads, reader.contains("num_key_value_heads") ? c.heads : std::min(class_default, c.heads));
    if (c.heads % c.kv_heads != 0) reader.refuse("num_key_value_heads", fmt::format("is {}", c.kv_heads), "it must divide num_attention_heads");
    if (c.kv_heads == c.heads) c.kv_heads = 0;
    c.rotary = read_theta(reader, mixtral ? 1e6 : 1e4);
    c.scale_attention = true;
    c.attention_dropout = reader.number("attention_dropout", 0, 1, 0);
    if (mixtral) {
        c.attention_window = reader.integer("sliding_window", 1, int64_t{1} << 40, 0);
        if (reader.boolean("attention_bias", false)) reader.refuse("attention_bias", "is true", "biases are supported in qwen2_moe only");
    } else {
        c.qkv_bias = reader.boolean("qkv_bias", true);
        // The class's kernels differ in which layers the window is for, so there is no telling what such a model computes.
        if (reader.boolean("use_sliding_window", false))
            reader.refuse("use_sliding_window", "is true", "windows of single layers are not supported: set it to false if the difference is welcome");
    }
}

void read_experts(const JsonReader& reader, bool mixtral, ModelConfig& c) {
    RoutingConfig& routing = c.decoder_routing;
    const int64_t experts = mixtral ? reader.integer("num_local_experts", 1, most_experts, 8) : reader.integer("num_experts", 0, most_experts, 60);
    if (mixtral) {
        c.decoder_sparse = layers_of_step(1, c.decoder_layers, {});
    } else if (experts > 0) {
        std::vector<int64_t> dense;
        if (reader.has("mlp_only_layers")) {
            if (!reader.raw("mlp_only_layers").is_array()) reader.refuse("mlp_only_layers", "is not a list", "give the numbers of the dense layers");
            for (const ParsedJson& layer : reader.raw("mlp_only_layers")) {
                if (!layer.is_number_integer()) reader.refuse("mlp_only_layers", "holds what is no number", "give the numbers of the dense layers");
                dense.push_back(layer.get<int64_t>());
            }
        }
        c.decoder_sparse = layers_of_step(reader.integer("decoder_sparse_step", 1, largest_size, 1), c.decoder_layers, dense);
    }
    c.experts = c.decoder_sparse.empty() ? 0 : experts;
    c.expert_activation = c.activation, c.expert_gated = true;
    if (!mixtral) {
        c.expert_d_ff = reader.integer("moe_intermediate_size", 1, largest_size, 1408);
        c.shared_d_ff = reader.integer("shared_expert_intermediate_size", 1, largest_size, 5632);
        c.shared_gate = true;
    }
    routing.k = reader.integer("num_experts_per_tok", 1, most_experts, mixtral ? 2 : 4);
    if (c.experts > 0 && routing.k > c.experts) reader.refuse("num_experts_per_tok", fmt::format("is {}, more than the {} experts", routing.k, c.experts), "correct one of them");
    routing.normalize = mixtral || reader.boolean("norm_topk_prob", false);
    routing.density = Density::any;
    routing.dropless = true;
    routing.jitter = mixtral ? reader.number("router_jitter_noise", 0, 1, 0) : 0;
}

}  // namespace

bool fits_mixtral(const ModelConfig& c) {
    return fits_decoder(c) && !c.qkv_bias && c.experts > 0 && fits_experts(c) && c.shared_d_ff == 0 && c.expert_width() == c.d_ff &&
           c.decoder_sparse == layers_of_step(1, c.decoder_layers, {}) && c.decoder_routing.normalize;
}

bool fits_qwen2_moe(const ModelConfig& c) {
    if (!fits_decoder(c) || c.attention_window != 0 || c.heads * c.d_kv != c.d_model) return false;
    return c.experts == 0 || (fits_experts(c) && c.shared_d_ff > 0 && c.shared_gate);
}

void write_decoder_keys(Json& json, const ModelConfig& c, HfLayout layout) {
    const bool mixtral = layout == HfLayout::mixtral;
    json["vocab_size"] = c.vocab_size;
    json["hidden_size"] = c.d_model;
    json["intermediate_size"] = c.d_ff;
    json["num_hidden_layers"] = c.decoder_layers;
    json["num_attention_heads"] = c.heads;
    json["num_key_value_heads"] = c.key_heads();
    if (mixtral) json["head_dim"] = c.d_kv;
    json["hidden_act"] = activation_name(c.activation);
    json["max_position_embeddings"] = 32768;  // for information only: rotary positions know no end
    json["initializer_range"] = 0.02;
    json["rms_norm_eps"] = c.norm_epsilon;
    json["rope_theta"] = c.rotary;
    json["attention_dropout"] = c.attention_dropout_rate();
    json["num_experts_per_tok"] = c.decoder_routing.k;
    if (mixtral) {
        json["num_local_experts"] = c.experts;
        json["sliding_window"] = c.attention_window ? Json(c.attention_window) : Json(nullptr);
        json["router_jitter_noise"] = c.decoder_routing.jitter;
    } else {
        const int64_t step = step_of_layers(c.decoder_sparse, c.decoder_layers);
        std::vector<int64_t> dense;
        for (const int64_t layer : layers_of_step(step, c.decoder_layers, c.decoder_sparse)) dense.push_back(layer);
        json["num_experts"] = c.experts;
        json["moe_intermediate_size"] = c.expert_width();
        json["shared_expert_intermediate_size"] = c.shared_d_ff ? c.shared_d_ff : c.d_ff;
        json["norm_topk_prob"] = c.decoder_routing.normalize;
        json["decoder_sparse_step"] = step;
        json["mlp_only_layers"] = c.experts ? dense : std::vector<int64_t>();
        json["qkv_bias"] = c.qkv_bias;
        json["use_sliding_window"] = false;
    }
    json["pad_token_id"] = c.pad_id;
    json["bos_token_id"] = c.decoder_start_id;
    json["eos_token_id"] = c.eos_id;
    json["tie_word_embeddings"] = c.tied;
    json["use_cache"] = true;
}

ModelConfig read_decoder_keys(const JsonReader& reader, HfLayout layout) {
    const bool mixtral = layout == HfLayout::mixtral;
    ModelConfig c;
    c.encoder_decoder = false, c.encoder_layers = 0;
    c.vocab_size = reader.integer("vocab_size", 1, largest_size, mixtral ? 32000 : 151936);
    c.d_model = reader.integer("hidden_size", 1, largest_size, mixtral ? 4096 : 2048);
    c.d_ff = reader.integer("intermediate_size", 1, largest_size, mixtral ? 14336 : 5632);
    c.decoder_layers = reader.integer("num_hidden_layers", 1, most_layers, mixtral ? 32 : 24);
    c.activation = activation_of(reader, "hidden_act", reader.text("hidden_act", "silu"));
    c.gated = true;
    c.norm_epsilon = reader.number("rms_norm_eps", 0, 1, mixtral ? 1e-5 : 1e-6);
    c.tied = reader.boolean("tie_word_embeddings", false);
    c.scale_outputs = false;
    c.dropout = 0;
    read_attention(reader, mixtral, c);
    read_experts(reader, mixtral, c);
    read_tokens(reader, mixtral, c);
    return c;
}

}  // namespace flanmoe

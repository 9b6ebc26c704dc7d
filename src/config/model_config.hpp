// Shape and behaviour of a model: what `[model]` and `[moe]` of a config file say, and what config.json of a checkpoint holds.
//
// One struct for every family: dense T5 (v1.0: relu, tied; v1.1: gated_gelu, untied), Switch, GShard, expert choice, ST-MoE, and the
// decoder-only shapes of GLaM, Mixtral and Qwen2-MoE. Defaults are T5 v1.1 small without experts. Names follow the papers; the Hugging Face keys they map to are in
// checkpoint/hf_config.hpp.
#pragma once

#include "core/kinds.hpp"

#include <cstddef>
#include <cstdint>
#include <vector>

namespace flanmoe {

/// How one stack routes. The named sets of these settings (Switch, GShard, expert choice, ...) are in config/routers/.
struct RoutingConfig {
    RouterKind kind = RouterKind::token_choice;
    int64_t k = 1;                      ///< experts a token (token choice)
    bool normalize = false;             ///< gates divided by the sum of the token's k gates, before drops
    bool prioritized = false;           ///< tokens claim slots in order of their largest probability
    Density density = Density::first;
    SecondPolicy second_train = SecondPolicy::all, second_eval = SecondPolicy::all;
    double second_threshold = 0.2;
    int64_t capacity = 0;               ///< fixed slots per expert and group; 0 = from the factors
    double capacity_factor = 1.25;      ///< training: slots = max(min_capacity, round(factor x real tokens / experts))
    double eval_capacity_factor = 2.0;  ///< the same in evaluation
    int64_t min_capacity = 4;
    bool dropless = false;              ///< no limit at all, in training and evaluation
    bool eval_dropless = false;         ///< no limit in evaluation
    bool balance_bias = false;          ///< loss-free balancing: a bias per expert on the scores that choose, not on the gates
    double balance_bias_rate = 1e-3;    ///< after each step: bias += rate x sign(mean load - load)
    bool force_causal = false;          ///< expert choice may stand in a causal decoder, where it sees the future (for study)
    int64_t group_rows = 1;             ///< whole batch rows a routing group; 0 = the whole batch is one group
    bool route_padding = false;         ///< padding is routed and takes slots (imported models only)
    // Exploration in training, at most one of the three (Mesh TensorFlow's policies; none of them is its "argmax").
    double jitter = 0.0;                ///< router input x uniform(1 - jitter, 1 + jitter)
    double input_dropout = 0.0;         ///< dropout of the router's input
    double sample_temperature = 0.0;    ///< experts drawn from softmax(logits / temperature), without replacement; 0 = the most probable
};

struct ModelConfig {
    bool encoder_decoder = true;  ///< false: a decoder-only stack, causal or prefix-LM
    int64_t vocab_size = 32128;   ///< rows of the embedding table
    int64_t d_model = 512;
    int64_t d_kv = 64;            ///< width of a head
    int64_t heads = 6;
    int64_t kv_heads = 0;         ///< heads of keys and values, each of which serves heads / kv_heads query heads; 0 = heads
    int64_t d_ff = 1024;          ///< inner width of dense feed-forwards
    std::vector<int64_t> encoder_d_ff, decoder_d_ff;  ///< the same layer by layer (dense twins of sparse models); empty = d_ff in all
    int64_t encoder_layers = 8;   ///< 0 if not encoder_decoder
    int64_t decoder_layers = 8;
    Activation activation = Activation::gelu_tanh;
    bool gated = true;
    bool tied = false;            ///< output matrix = embedding table
    bool scale_outputs = false;   ///< hidden states x d_model^-0.5 before the output matrix (T5 v1.0 and Switch)
    int64_t buckets = 32;         ///< relative position buckets
    int64_t max_distance = 128;
    bool bias_per_layer = false;  ///< a bias table in every layer (GLaM) instead of one a stack
    double rotary = 0;            ///< base theta of rotary positions in self-attention, in place of the bias tables; 0 = bias tables
    bool scale_attention = false; ///< scores x d_kv^-0.5 (Mixtral, Qwen2-MoE), which T5 leaves out
    bool qkv_bias = false;        ///< queries, keys and values have a bias vector (Qwen2-MoE)
    int64_t attention_window = 0; ///< causal self-attention sees so many tokens, the query's own included; 0 = all
    bool bidirectional_prefix = false;  ///< decoder-only: an example's inputs see one another in both directions (prefix-LM); false = causal throughout
    double norm_epsilon = 1e-6;
    double dropout = 0.1;
    double attention_dropout = -1;  ///< on attention probabilities; -1 = dropout
    bool dropout_broadcast = false; ///< T5X: one mask for all places of a row (for all queries in attention), but after the encoder's final norm
    int64_t pad_id = 0, eos_id = 1, decoder_start_id = 0;

    int64_t experts = 0;                   ///< experts of a sparse layer; 0 = dense model
    std::vector<int64_t> encoder_sparse;   ///< indices of sparse layers, ascending
    std::vector<int64_t> decoder_sparse;
    int64_t expert_d_ff = 0;               ///< 0 = d_ff
    Activation expert_activation = Activation::relu;
    bool expert_gated = false;
    double expert_dropout = -1;            ///< inside experts; -1 = dropout
    int64_t shared_d_ff = 0;               ///< inner width of the shared expert of a sparse layer, which every token visits besides; 0 = none
    bool shared_gate = false;              ///< its answer x sigmoid(x w) (Qwen2-MoE)
    bool multiplicative_bias = false;      ///< gated experts: hidden units x a learned vector per expert before wo (ST-MoE appendix C)
    bool extra_ffn = false;                ///< ST-MoE: a dense feed-forward sub-layer after each sparse one
    RoutingConfig encoder_routing, decoder_routing;
    bool dense_twin = false;               ///< moe.dense_twin: a request that loading a config fulfils (config/dense_twin.hpp); no model has it

    bool flanmoe_layout = false;  ///< a dense model that keeps the tensor names of the `flanmoe` layout, because it was imported from it
    double init_scale = 1.0;  ///< variance scale of weight matrices (0.1 in Switch and ST-MoE)

    int64_t key_heads() const { return kv_heads ? kv_heads : heads; }
    int64_t expert_width() const { return expert_d_ff ? expert_d_ff : d_ff; }
    double attention_dropout_rate() const { return attention_dropout < 0 ? dropout : attention_dropout; }
    double expert_dropout_rate() const { return expert_dropout < 0 ? dropout : expert_dropout; }
};

/// Inner width of the dense feed-forward of layer `layer` of a stack (where that layer has one).
inline int64_t dense_width(const ModelConfig& config, bool decoder, int64_t layer) {
    const std::vector<int64_t>& widths = decoder ? config.decoder_d_ff : config.encoder_d_ff;
    return widths.empty() ? config.d_ff : widths[static_cast<std::size_t>(layer)];
}

}  // namespace flanmoe

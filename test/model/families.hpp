// A small model of every family of routers: each named router, and what only single papers have. Tests of properties that all must have loop over them.
#pragma once

#include "config/routers/routers.hpp"
#include "model/small_models.hpp"

namespace flanmoe::test {

struct Family {
    std::string name;
    ModelConfig config;
    bool by_scores = true;  ///< false: forced balanced, which looks at no score
};

inline ModelConfig routed_model(const std::string& router, bool gated = false) {
    ModelConfig c = small_switch(4);
    for (const NamedRouter& named : named_routers())
        if (named.name == router) c.encoder_routing = named.settings(false), c.decoder_routing = named.settings(true);
    c.encoder_routing.min_capacity = c.decoder_routing.min_capacity = 1;
    c.expert_gated = gated;
    c.activation = c.expert_activation = Activation::gelu_tanh;
    return c;
}

inline std::vector<Family> families() {
    std::vector<Family> all;
    for (const NamedRouter& named : named_routers()) all.push_back({named.name, routed_model(named.name), std::string(named.name) != "balanced"});
    const auto add = [&](const char* name, const char* router, auto change, bool gated = false) {
        all.push_back({name, routed_model(router, gated)});
        change(all.back().config);
    };
    add("Mesh TensorFlow's top-2", "gshard", [](ModelConfig& c) { c.encoder_routing.second_threshold = 0.2, c.decoder_routing.capacity_factor = 1; });
    add("prioritized top-k", "top_k", [](ModelConfig& c) { c.encoder_routing.prioritized = true, c.encoder_routing.capacity_factor = 0.5; });
    add("top-3 with a threshold", "st_moe", [](ModelConfig& c) {
        c.encoder_routing.k = 3, c.encoder_routing.second_train = c.encoder_routing.second_eval = SecondPolicy::threshold, c.encoder_routing.second_threshold = 0.3;
    });
    add("input dropout", "switch", [](ModelConfig& c) { c.encoder_routing.jitter = 0, c.encoder_routing.input_dropout = 0.1; });
    add("experts drawn at random", "top_k", [](ModelConfig& c) {
        for (RoutingConfig* r : {&c.encoder_routing, &c.decoder_routing}) r->jitter = 0, r->sample_temperature = 0.5;
    });
    add("expert choice in both stacks", "expert_choice", [](ModelConfig& c) { c.decoder_routing = c.encoder_routing, c.decoder_routing.force_causal = true; });
    add("ST-MoE with its dense layers and biases", "st_moe", [](ModelConfig& c) { c.extra_ffn = c.multiplicative_bias = true, c.init_scale = 0.3; }, true);
    add("GLaM", "gshard", [](ModelConfig& c) {
        c.encoder_decoder = false, c.encoder_layers = 0, c.encoder_sparse = {};
        c.gated = c.bias_per_layer = true, c.tied = c.scale_outputs = false;
    });
    return all;
}

/// A batch for the model: the decoder's side alone for decoder-only models.
inline Batch family_batch(const ModelConfig& config, int64_t rows, uint64_t seed, int64_t first_row = 0) {
    Batch b = random_batch(rows, 11, 7, config.vocab_size, seed, first_row);
    if (!config.encoder_decoder) b.encoder_length = 0, b.encoder_ids = b.encoder_segments = {};
    return b;
}

/// Random weights with routers that tell tokens apart: the initial deviation would make every probability about 1 / E.
inline void randomise(Transformer& model, uint64_t seed) {
    model.parameters().initialise(seed);
    for (const Parameter& p : model.parameters().records()) {
        const Tensor t = model.parameters().master(p);
        if (p.kind != ParameterKind::router && p.init != Init::ones) continue;
        for (int64_t i = 0; i < p.elements(); ++i) {
            double& w = t.as<double>()[i];
            const double u = uniform({seed, 1, 0, Purpose::sampling}, static_cast<uint64_t>(i));
            if (p.init == Init::zeros) w = 0.1 * u - 0.05;             // balance biases
            else if (p.kind == ParameterKind::router) w *= 10;
            else if (p.kind == ParameterKind::expert) w = 0.5 + u;     // multiplicative biases
        }
    }
    model.parameters().update_compute();
}

}  // namespace flanmoe::test

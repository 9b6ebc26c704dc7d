// A small model's config and parameters for tests of files: every kind of record, without the operations behind them.
#pragma once

#include "config/model_config.hpp"
#include "model/parameters.hpp"

namespace flanmoe {

inline Parameter test_record(const char* name, Shape shape, ParameterKind kind = ParameterKind::attention, int64_t experts = 0) {
    Parameter p;
    p.name = name, p.shape = shape, p.kind = kind, p.experts = experts;
    return p;
}

/// Switch with one sparse encoder layer of three experts.
inline ModelConfig small_config(bool tied = true) {
    ModelConfig c;
    c.vocab_size = 11, c.d_model = 6, c.d_kv = 2, c.heads = 2, c.d_ff = 5, c.encoder_layers = 2, c.decoder_layers = 1;
    c.activation = Activation::relu, c.gated = false, c.tied = c.scale_outputs = tied;
    c.experts = 3, c.encoder_sparse = {1};
    return c;
}

/// Not all records of that model: those that a file has to tell apart.
inline void fill_small_store(ParameterStore& store, uint64_t seed, bool tied = true, DType compute = DType::f32) {
    store.declare({test_record("shared.weight", {11, 6}, ParameterKind::embedding)});
    store.declare({test_record("encoder.block.0.layer.0.SelfAttention.q.weight", {4, 6}),
                   test_record("encoder.block.0.layer.0.SelfAttention.k.weight", {4, 6}),
                   test_record("encoder.block.0.layer.0.SelfAttention.v.weight", {4, 6})});
    store.declare({test_record("encoder.block.0.layer.1.mlp.wi.weight", {5, 6}, ParameterKind::ffn)});
    store.declare({test_record("encoder.block.1.layer.1.mlp.router.classifier.weight", {3, 6}, ParameterKind::router)});
    store.declare({test_record("encoder.block.1.layer.1.mlp.experts.expert_{e}.wi_0.weight", {5, 6}, ParameterKind::expert, 3),
                   test_record("encoder.block.1.layer.1.mlp.experts.expert_{e}.wi_1.weight", {5, 6}, ParameterKind::expert, 3)});
    store.declare({test_record("encoder.final_layer_norm.weight", {6}, ParameterKind::norm)});
    if (!tied) store.declare({test_record("lm_head.weight", {11, 6}, ParameterKind::head)});
    store.allocate(compute, false);
    store.initialise(seed);
}

/// Same bits in every parameter.
inline bool equal_weights(const ParameterStore& a, const ParameterStore& b) {
    for (const Parameter& p : a.records())
        for (int64_t e = 0; e < p.tensors(); ++e) {
            const Tensor left = a.master(p, e), right = b.master(*b.find(p.name), e);
            for (int64_t i = 0; i < left.elements(); ++i)
                if (left.as<float>()[i] != right.as<float>()[i]) return false;
        }
    return true;
}

}  // namespace flanmoe

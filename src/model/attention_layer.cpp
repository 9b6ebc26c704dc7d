#include "model/attention_layer.hpp"

#include "ops/matmul.hpp"

#include <cmath>

namespace flanmoe {

AttentionLayer declare_attention(ParameterStore& store, const ModelConfig& config, const std::string& prefix, bool cross) {
    const int64_t inner = config.heads * config.d_kv, d = config.d_model;
    // T5X: variance scale / fan_in; queries divided by d_kv besides, which stands for the missing 1/sqrt(d_kv) of the scores.
    const auto projection = [&](const char* name, Shape shape, double fan_in) {
        Parameter p;
        p.name = prefix + "." + name + ".weight";
        p.shape = shape;
        p.deviation = std::sqrt(config.init_scale / fan_in);
        p.kind = ParameterKind::attention;
        return p;
    };
    Parameter q = projection("q", {inner, d}, static_cast<double>(d * config.d_kv));
    Parameter k = projection("k", {inner, d}, static_cast<double>(d)), v = projection("v", {inner, d}, static_cast<double>(d));
    AttentionLayer layer;
    layer.cross = cross;
    if (cross) {
        layer.query = store.declare({q});
        layer.key = store.declare({k, v});
    } else {
        layer.query = store.declare({q, k, v});
        layer.key = layer.query + 1;
    }
    layer.output = store.declare({projection("o", {d, inner}, static_cast<double>(inner))});
    return layer;
}

Tensor attention_forward(Pass& pass, const AttentionLayer& layer, const Tensor& x, const Sequence& sequence, const Tensor& memory, const Sequence* memory_sequence,
                         AttentionSaved& saved) {
    Context& context = pass.context;
    const ModelConfig& config = pass.config;
    const int64_t inner = config.heads * config.d_kv, n = x.rows();
    const DType type = x.dtype;
    const Sequence& keys = layer.cross ? *memory_sequence : sequence;
    const auto split = [](const Tensor& fused, int64_t first, int64_t count, const Sequence& s) {
        return Tensor(fused.columns(first, count).data, fused.dtype, {s.rows, s.length, count}, fused.ld);
    };
    ops::AttentionArgs& args = saved.args;
    if (layer.cross) {
        saved.fused = context.allocate(type, {n, inner});
        saved.memory_fused = context.allocate(type, {memory.rows(), 2 * inner});
        ops::matmul(context, {.a = x, .b = pass.weight_of(type, layer.query), .out = saved.fused, .transpose_b = true});
        ops::matmul(context, {.a = memory, .b = pass.fused_weight_of(type, layer.key, 2), .out = saved.memory_fused, .transpose_b = true});
        args.k = split(saved.memory_fused, 0, inner, keys);
        args.v = split(saved.memory_fused, inner, inner, keys);
    } else {
        saved.fused = context.allocate(type, {n, 3 * inner});
        ops::matmul(context, {.a = x, .b = pass.fused_weight_of(type, layer.query, 3), .out = saved.fused, .transpose_b = true});
        args.k = split(saved.fused, inner, inner, keys);
        args.v = split(saved.fused, 2 * inner, inner, keys);
    }
    args.q = split(saved.fused, 0, inner, sequence);
    args.heads = args.kv_heads = config.heads;
    if (layer.has_bias) {
        args.bias_table = pass.master(layer.bias);
        args.buckets = {config.buckets, config.max_distance, !layer.causal};
    }
    args.causal = layer.causal;
    args.query_segments = sequence.segments;
    args.key_segments = keys.segments;
    if (layer.causal) args.prefix_lengths = sequence.prefix_lengths;
    const double rate = config.attention_dropout < 0 ? config.dropout : config.attention_dropout;
    args.dropout = pass.dropout(rate, layer.layer, layer.cross ? Purpose::cross_attention_dropout : Purpose::attention_dropout,
                                sequence.first_row * config.heads * sequence.length * keys.length);
    args.out = context.allocate(type, {sequence.rows, sequence.length, inner});
    args.log_sum = context.allocate(pass.accumulate(), {sequence.rows, config.heads, sequence.length});
    ops::attention(context, args);

    const Tensor delta = context.allocate(pass.accumulate(), {n, config.d_model});
    ops::matmul(context, {.a = args.out, .b = pass.weight_of(type, layer.output), .out = delta, .transpose_b = true});
    return delta;
}

Tensor attention_backward(Pass& pass, const AttentionLayer& layer, const Tensor& x, const Tensor& d_delta, const Tensor& memory, const Tensor& d_memory,
                          const AttentionSaved& saved) {
    Context& context = pass.context;
    const int64_t inner = pass.config.heads * pass.config.d_kv, n = x.rows();
    const Tensor dx = context.allocate(pass.type(), {n, pass.config.d_model});
    Arena::Scope scope(context.arena);

    const ops::AttentionArgs& args = saved.args;
    const Tensor d_out = context.allocate(args.out.dtype, args.out.shape);
    ops::matmul(context, {.a = d_delta, .b = pass.weight(layer.output), .out = d_out});
    ops::matmul(context, {.a = d_delta, .b = pass.narrow(args.out), .out = pass.gradient(layer.output), .transpose_a = true, .accumulate = true});

    // Probabilities are recomputed: in the precision of the forward, whose normalisers are used.
    const Tensor d_wide = context.allocate(saved.fused.dtype, saved.fused.shape);
    const Tensor d_memory_wide = layer.cross ? context.allocate(saved.fused.dtype, saved.memory_fused.shape) : Tensor();
    const Tensor& d_keys = layer.cross ? d_memory_wide : d_wide;
    const int64_t first_key = layer.cross ? 0 : inner;
    const auto like = [](const Tensor& fused, int64_t first, const Tensor& view) { return Tensor(fused.columns(first, view.cols()).data, fused.dtype, view.shape, fused.ld); };
    ops::AttentionBackwardArgs backward;
    backward.forward = args;
    backward.d_out = d_out;
    backward.d_q = like(d_wide, 0, args.q);
    backward.d_k = like(d_keys, first_key, args.k);
    backward.d_v = like(d_keys, first_key + inner, args.v);
    if (layer.has_bias) backward.d_bias_table = pass.gradient(layer.bias);
    ops::attention_backward(context, backward);

    const Tensor d_fused = pass.narrow(d_wide), input = pass.narrow(x);
    if (layer.cross) {
        const Tensor d_memory_fused = pass.narrow(d_memory_wide);
        ops::matmul(context, {.a = d_fused, .b = pass.weight(layer.query), .out = dx});
        ops::matmul(context, {.a = d_fused, .b = input, .out = pass.gradient(layer.query), .transpose_a = true, .accumulate = true});
        ops::matmul(context, {.a = d_memory_fused, .b = pass.fused_weight(layer.key, 2), .out = d_memory, .accumulate = true});
        ops::matmul(context, {.a = d_memory_fused, .b = memory, .out = pass.fused_gradient(layer.key, 2), .transpose_a = true, .accumulate = true});
    } else {
        ops::matmul(context, {.a = d_fused, .b = pass.fused_weight(layer.query, 3), .out = dx});
        ops::matmul(context, {.a = d_fused, .b = input, .out = pass.fused_gradient(layer.query, 3), .transpose_a = true, .accumulate = true});
    }
    return dx;
}

}  // namespace flanmoe

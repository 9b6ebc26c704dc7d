#include "model/attention_layer.hpp"

#include "model/collectives.hpp"
#include "ops/bias.hpp"
#include "ops/matmul.hpp"
#include "ops/rotary.hpp"

#include <cmath>

namespace flanmoe {

namespace {

Parameter vector_record(const Parameter& matrix) {
    Parameter p = matrix;
    p.name = matrix.name.substr(0, matrix.name.rfind('.')) + ".bias";
    p.shape = {matrix.shape[0]};
    p.init = Init::zeros;
    return p;
}

// out = x W^T + b for `count` projections that lie side by side.
Tensor project(Pass& pass, const AttentionLayer& layer, size_t matrix, size_t vector, int64_t count, const Tensor& x) {
    const Tensor weight = pass.fused_weight_of(x.dtype, matrix, count), out = pass.context.allocate(x.dtype, {x.rows(), weight.rows()});
    const Tensor bias = layer.has_vectors ? pass.fused_vector_of(x.dtype, vector, count) : Tensor();
    ops::matmul(pass.context, {.a = x, .b = weight, .out = out, .transpose_b = true, .bias = bias});
    return out;
}

// Gradients of their weights; d_x, or what is added to it.
void project_backward(Pass& pass, const AttentionLayer& layer, size_t matrix, size_t vector, int64_t count, const Tensor& x, const Tensor& d_out, const Tensor& d_x, bool accumulate) {
    ops::matmul(pass.context, {.a = d_out, .b = pass.fused_weight(matrix, count), .out = d_x, .accumulate = accumulate});
    ops::matmul(pass.context, {.a = d_out, .b = x, .out = pass.fused_gradient(matrix, count), .transpose_a = true, .accumulate = true});
    if (layer.has_vectors) ops::bias_backward(pass.context, {d_out, pass.fused_vector_gradient(vector, count)});
}

}  // namespace

AttentionLayer declare_attention(ParameterStore& store, const ModelConfig& config, const std::string& prefix, bool cross) {
    const int64_t inner = config.heads * config.d_kv, keys = config.key_heads() * config.d_kv, d = config.d_model;
    // T5X: variance scale / fan_in; queries divided by d_kv besides, which stands for the missing 1/sqrt(d_kv) of the scores.
    const auto projection = [&](const char* name, Shape shape, double fan_in, Split split = Split::rows) {
        Parameter p;
        p.name = prefix + "." + name + ".weight";
        p.shape = shape;
        p.split = split;
        p.deviation = std::sqrt(config.init_scale / fan_in);
        p.kind = ParameterKind::attention;
        return p;
    };
    Parameter q = projection("q", {inner, d}, static_cast<double>(config.scale_attention ? d : d * config.d_kv));
    Parameter k = projection("k", {keys, d}, static_cast<double>(d)), v = projection("v", {keys, d}, static_cast<double>(d));
    AttentionLayer layer;
    layer.cross = cross;
    layer.has_vectors = config.qkv_bias;
    if (cross) {
        layer.query = store.declare({q});
        layer.key = store.declare({k, v});
    } else {
        layer.query = store.declare({q, k, v});
        layer.key = layer.query + 1;
    }
    layer.output = store.declare({projection("o", {d, inner}, static_cast<double>(inner), Split::columns)});
    if (!layer.has_vectors) return layer;
    if (cross) {
        layer.query_bias = store.declare({vector_record(q)});
        layer.key_bias = store.declare({vector_record(k), vector_record(v)});
    } else {
        layer.query_bias = store.declare({vector_record(q), vector_record(k), vector_record(v)});
        layer.key_bias = layer.query_bias + 1;
    }
    return layer;
}

Tensor rotary_table(Context& context, const ModelConfig& config, DType type, int64_t positions) {
    if (config.rotary == 0) return {};
    const Tensor table = context.allocate(type, {positions, config.d_kv});
    ops::rotary_table(context, {config.rotary, 0, table});
    return table;
}

ops::AttentionArgs attention_rule(const Pass& pass, const AttentionLayer& layer) {
    const ModelConfig& config = pass.config;
    ops::AttentionArgs args;
    args.heads = query_width(pass, layer) / config.d_kv, args.kv_heads = key_width(pass, layer) / config.d_kv;
    if (config.scale_attention) args.scale = 1 / std::sqrt(static_cast<double>(config.d_kv));
    if (layer.has_bias) {
        args.bias_table = pass.master(layer.bias);
        args.buckets = {config.buckets, config.max_distance, !layer.causal};
    }
    args.causal = layer.causal;
    if (layer.causal) args.window = config.attention_window;
    return args;
}

Tensor self_projection(Pass& pass, const AttentionLayer& layer, const Tensor& x, int64_t length, const Tensor& rotary) {
    const Tensor fused = project(pass, layer, layer.query, layer.query_bias, 3, x);
    turn_projection(pass, layer, fused, length, rotary, false);
    return fused;
}

Tensor query_projection(Pass& pass, const AttentionLayer& layer, const Tensor& x) { return project(pass, layer, layer.query, layer.query_bias, 1, x); }

Tensor memory_projection(Pass& pass, const AttentionLayer& layer, const Tensor& memory) { return project(pass, layer, layer.key, layer.key_bias, 2, memory); }

Tensor output_projection(Pass& pass, const AttentionLayer& layer, const Tensor& attended, const Tensor& into) {
    const Tensor delta = into ? into : pass.context.allocate(pass.accumulate(), {attended.rows(), pass.config.d_model});
    ops::matmul(pass.context, {.a = attended, .b = pass.weight_of(attended.dtype, layer.output), .out = delta, .transpose_b = true});
    leave_split(pass, delta);
    return delta;
}

void turn_projection(Pass& pass, const AttentionLayer& layer, const Tensor& fused, int64_t length, const Tensor& rotary, bool inverse) {
    if (!rotary) return;
    const int64_t width = query_width(pass, layer) + key_width(pass, layer);
    ops::rotary(pass.context, {Tensor(fused.data, fused.dtype, {fused.rows() / length, length, width}, fused.ld), width / pass.config.d_kv, rotary, inverse});
}

void attention_inner(Pass& pass, const AttentionLayer& layer, const Tensor& x, const Sequence& sequence, const Tensor& memory, const Sequence* memory_sequence,
                     AttentionSaved& saved) {
    Context& context = pass.context;
    const ModelConfig& config = pass.config;
    const int64_t inner = query_width(pass, layer), width = key_width(pass, layer);
    const Sequence& keys = layer.cross ? *memory_sequence : sequence;
    const int64_t rows = keys.rows, queries = sequence.tokens() / rows;  // rows that read the same row of memory are one row of queries to it
    const auto split = [&](const Tensor& fused, int64_t first, int64_t count, int64_t length) {
        return Tensor(fused.columns(first, count).data, fused.dtype, {rows, length, count}, fused.ld);
    };
    ops::AttentionArgs& args = saved.args;
    args = attention_rule(pass, layer);
    if (layer.cross) {
        saved.fused = query_projection(pass, layer, x);
        saved.memory_fused = memory_projection(pass, layer, memory);
    } else {
        saved.rotary = sequence.rotary;
        saved.fused = self_projection(pass, layer, x, sequence.length, sequence.rotary);
    }
    const Tensor& fused_keys = layer.cross ? saved.memory_fused : saved.fused;
    const int64_t first_key = layer.cross ? 0 : inner;
    args.q = split(saved.fused, 0, inner, queries);
    args.k = split(fused_keys, first_key, width, keys.length);
    args.v = split(fused_keys, first_key + width, width, keys.length);
    args.query_segments = sequence.segments;
    args.key_segments = keys.segments;
    if (layer.causal) args.prefix_ends = sequence.prefix_ends;
    const int64_t first_head = pass.record(layer.query).first / config.d_kv;  // the heads of the layer number its matrices of scores, whoever has them
    args.dropout = pass.dropout(config.attention_dropout_rate(), layer.layer, layer.cross ? Purpose::cross_attention_dropout : Purpose::attention_dropout,
                                (sequence.first_row * config.heads + first_head) * sequence.length * keys.length, sequence.length, keys.length);
    args.dropout_heads = config.heads;
    args.out = context.allocate(x.dtype, {rows, queries, inner});
    args.log_sum = context.allocate(pass.accumulate(), {rows, args.heads, queries});
    ops::attention(context, args);
}

Tensor attention_forward(Pass& pass, const AttentionLayer& layer, const Tensor& x, const Sequence& sequence, const Tensor& memory, const Sequence* memory_sequence,
                         AttentionSaved& saved, const Tensor& into) {
    attention_inner(pass, layer, x, sequence, memory, memory_sequence, saved);
    return output_projection(pass, layer, saved.args.out, into);
}

Tensor attention_backward(Pass& pass, const AttentionLayer& layer, const Tensor& x, const Tensor& d_delta, const Tensor& memory, const Tensor& d_memory,
                          const AttentionSaved& saved) {
    Context& context = pass.context;
    const int64_t inner = query_width(pass, layer), width = key_width(pass, layer);
    const Tensor dx = context.allocate(pass.type(), {x.rows(), pass.config.d_model});
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
    backward.d_v = like(d_keys, first_key + width, args.v);
    if (layer.has_bias) backward.d_bias_table = pass.gradient(layer.bias);
    ops::attention_backward(context, backward);

    if (layer.cross) {
        project_backward(pass, layer, layer.query, layer.query_bias, 1, pass.narrow(x), pass.narrow(d_wide), dx, false);
        project_backward(pass, layer, layer.key, layer.key_bias, 2, memory, pass.narrow(d_memory_wide), d_memory, true);
    } else {
        turn_projection(pass, layer, d_wide, args.q.shape[1], saved.rotary, true);
        project_backward(pass, layer, layer.query, layer.query_bias, 3, pass.narrow(x), pass.narrow(d_wide), dx, false);
    }
    enter_split_backward(pass, dx);
    return dx;
}

}  // namespace flanmoe

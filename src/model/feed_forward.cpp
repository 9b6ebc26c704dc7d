#include "model/feed_forward.hpp"

#include "model/collectives.hpp"
#include "ops/activation.hpp"
#include "ops/matmul.hpp"

#include <cmath>

namespace flanmoe {

namespace {

Parameter matrix(const ModelConfig& config, std::string name, Shape shape, Split split, int64_t experts) {
    Parameter p;
    p.name = std::move(name);
    p.shape = shape;
    p.split = split;
    p.experts = experts;
    p.init = Init::truncated_normal;
    p.deviation = std::sqrt(config.init_scale / static_cast<double>(shape[1]));
    p.kind = experts ? ParameterKind::expert : ParameterKind::ffn;
    return p;
}

void declare_records(ParameterStore& store, const ModelConfig& config, const std::string& prefix, FeedForward& layer) {
    layer.input = store.declare(feed_forward_input_records(config, prefix, layer.gated, layer.width, 0));
    layer.output = store.declare({feed_forward_output_record(config, prefix, layer.width, 0)});
}

// Element (token, f) of the layer, whichever rank has its column.
Dropout dropout_of(const Pass& pass, const FeedForward& layer, const Sequence& sequence) {
    return pass.dropout(layer.dropout, layer.layer, layer.purpose, sequence.first_token() * layer.width + pass.record(layer.input).first, sequence.length, layer.width);
}

}  // namespace

std::vector<Parameter> feed_forward_input_records(const ModelConfig& config, const std::string& prefix, bool gated, int64_t d_ff, int64_t experts) {
    if (!gated) return {matrix(config, prefix + ".wi.weight", {d_ff, config.d_model}, Split::rows, experts)};
    return {matrix(config, prefix + ".wi_0.weight", {d_ff, config.d_model}, Split::rows, experts), matrix(config, prefix + ".wi_1.weight", {d_ff, config.d_model}, Split::rows, experts)};
}

Parameter feed_forward_output_record(const ModelConfig& config, const std::string& prefix, int64_t d_ff, int64_t experts) {
    return matrix(config, prefix + ".wo.weight", {config.d_model, d_ff}, Split::columns, experts);
}

FeedForward declare_feed_forward(ParameterStore& store, const ModelConfig& config, const std::string& prefix, int64_t d_ff) {
    FeedForward layer;
    layer.gated = config.gated;
    layer.activation = config.activation;
    layer.width = d_ff;
    layer.dropout = config.dropout;
    declare_records(store, config, prefix, layer);
    return layer;
}

FeedForward declare_shared_expert(ParameterStore& store, const ModelConfig& config, const std::string& prefix) {
    FeedForward layer;
    layer.gated = config.expert_gated;
    layer.activation = config.expert_activation;
    layer.width = config.shared_d_ff;
    layer.dropout = config.expert_dropout_rate();
    layer.purpose = Purpose::shared_expert_dropout;
    declare_records(store, config, prefix, layer);
    return layer;
}

void feed_forward_activation(Pass& pass, const FeedForward& layer, const Sequence& sequence, FeedForwardSaved& saved) {
    saved.activated = pass.cheap(Reused::activated, saved.inner.dtype, {saved.inner.rows(), pass.record(layer.input).part[0]});
    ops::activation(pass.context, {.kind = layer.activation,
                                   .gated = layer.gated,
                                   .in = saved.inner,
                                   .dropout = dropout_of(pass, layer, sequence),
                                   .out = saved.activated,
                                   .dropout_cols = layer.width});
}

void feed_forward_inner(Pass& pass, const FeedForward& layer, const Tensor& x, const Sequence& sequence, FeedForwardSaved& saved) {
    const int64_t halves = layer.gated ? 2 : 1;
    saved.inner = pass.context.allocate(x.dtype, {x.rows(), halves * pass.record(layer.input).part[0]});
    ops::matmul(pass.context, {.a = x, .b = pass.fused_weight_of(x.dtype, layer.input, halves), .out = saved.inner, .transpose_b = true});
    feed_forward_activation(pass, layer, sequence, saved);
}

Tensor feed_forward_forward(Pass& pass, const FeedForward& layer, const Tensor& x, const Sequence& sequence, FeedForwardSaved& saved, const Tensor& into) {
    feed_forward_inner(pass, layer, x, sequence, saved);
    const Tensor delta = into ? into : pass.context.allocate(pass.accumulate(), {x.rows(), pass.config.d_model});
    ops::matmul(pass.context, {.a = saved.activated, .b = pass.weight_of(x.dtype, layer.output), .out = delta, .transpose_b = true});
    leave_split(pass, delta);
    return delta;
}

Tensor feed_forward_backward(Pass& pass, const FeedForward& layer, const Tensor& x, const Sequence& sequence, const Tensor& d_delta, const FeedForwardSaved& saved) {
    Context& context = pass.context;
    const int64_t n = x.rows(), f = pass.record(layer.input).part[0], halves = layer.gated ? 2 : 1;
    const Tensor dx = context.allocate(pass.type(), {n, pass.config.d_model});
    Arena::Scope scope(context.arena);
    const Tensor d_activated = context.allocate(pass.type(), {n, f});
    ops::matmul(context, {.a = d_delta, .b = pass.weight(layer.output), .out = d_activated});
    ops::matmul(context, {.a = d_delta, .b = pass.narrow(saved.activated), .out = pass.gradient(layer.output), .transpose_a = true, .accumulate = true});
    const Tensor inner = pass.narrow(saved.inner);  // its gradient takes its place
    ops::activation_backward(context, {.kind = layer.activation,
                                       .gated = layer.gated,
                                       .in = inner,
                                       .dropout = dropout_of(pass, layer, sequence),
                                       .d_out = d_activated,
                                       .d_in = inner,
                                       .dropout_cols = layer.width});
    ops::matmul(context, {.a = inner, .b = pass.fused_weight(layer.input, halves), .out = dx});
    enter_split_backward(pass, dx);
    ops::matmul(context, {.a = inner, .b = pass.narrow(x), .out = pass.fused_gradient(layer.input, halves), .transpose_a = true, .accumulate = true});
    return dx;
}

}  // namespace flanmoe

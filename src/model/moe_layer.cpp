#include "model/moe_layer.hpp"

#include "model/collectives.hpp"
#include "ops/activation.hpp"
#include "ops/dispatch.hpp"
#include "ops/elementwise.hpp"
#include "ops/expert_scale.hpp"
#include "ops/matmul.hpp"
#include "ops/report.hpp"
#include "ops/row_gate.hpp"

namespace flanmoe {

namespace {

int64_t groups_of(const Pass& pass, const RoutingConfig& routing, const Sequence& sequence) {
    if (pass.route_rows_alone) return sequence.rows;
    if (routing.group_rows == 0) return 1;
    require(sequence.rows % routing.group_rows == 0, "micro-batches of whole routing groups");
    return sequence.rows / routing.group_rows;
}

RandomKey key_of(const Pass& pass, const MoeLayer& layer, Purpose purpose) { return {pass.seed, pass.step, static_cast<uint16_t>(layer.layer), purpose}; }

// Exploration in training: random factors on the router's input, and the same ones on its gradient.
void explore(Pass& pass, const MoeLayer& layer, const Sequence& sequence, const Tensor& values) {
    if (!pass.training) return;
    const RoutingConfig& routing = routing_of(pass.config, layer);
    const RandomKey key = key_of(pass, layer, Purpose::jitter);
    const auto first = static_cast<uint64_t>(sequence.first_token() * values.cols());
    if (routing.jitter > 0) ops::jitter(pass.context, {values, values, routing.jitter, key, first});
    if (routing.input_dropout > 0) ops::dropout(pass.context, {values, Dropout::with(static_cast<float>(routing.input_dropout), key, first), values});
}

// Scores by which experts are drawn in training; empty where the most probable ones are taken.
Tensor drawn_scores(Pass& pass, const MoeLayer& layer, const Sequence& sequence, const Tensor& logits) {
    const double temperature = routing_of(pass.config, layer).sample_temperature;
    if (!pass.training || temperature == 0) return {};
    const Tensor scores = pass.context.allocate(logits.dtype, logits.shape);
    ops::sampling_scores(pass.context, {logits, scores, temperature, key_of(pass, layer, Purpose::jitter), static_cast<uint64_t>(sequence.first_token() * logits.cols())});
    return scores;
}

ops::RowTables tables_of(const ops::RouteArgs& route) { return {route.offsets, route.row_token, route.token_offsets, route.token_rows}; }

// The last offset: how many sorted rows are in use.
Tensor rows_used(const Tensor& offsets) { return offsets.view({offsets.elements(), 1}).slice_rows(offsets.elements() - 1, 1); }

// Broadcast dropout: one mask for the tokens of a row that meet in an expert, row ids being (first_token + token) * E + expert.
ops::ActivationArgs expert_activation(const Pass& pass, const MoeLayer& layer, const Sequence& sequence, const MoeSaved& saved) {
    const ModelConfig& config = pass.config;
    ops::ActivationArgs args;
    args.kind = config.expert_activation;
    args.gated = config.expert_gated;
    args.in = saved.inner;
    args.row_ids = saved.dispatch.row_ids;
    args.rows_used = rows_used(saved.dispatch.offsets);
    args.dropout = pass.dropout(config.expert_dropout_rate(), layer.layer, Purpose::expert_dropout, pass.record(layer.input).first, sequence.length,
                                config.experts * config.expert_width());
    args.dropout_cols = config.expert_width();
    args.out = saved.activated;
    return args;
}

// The records of the router: its matrix, and the bias of loss-free balancing, which no gradient and no optimizer touches.
void declare_router(ParameterStore& store, const ModelConfig& config, const std::string& prefix, MoeLayer& layer) {
    Parameter router;
    router.name = prefix + ".router.classifier.weight";
    router.shape = {config.experts, config.d_model};
    router.deviation = 2e-2;  // flaxformer's moe.gin; not scaled by init_scale
    router.kind = ParameterKind::router;
    router.full_precision = true;
    layer.router = store.declare({router});
    if (!routing_of(config, layer).balance_bias) return;
    Parameter bias;
    bias.name = prefix + ".router.e_score_correction_bias";  // as in DeepSeek-V3's checkpoints
    bias.shape = {config.experts};
    bias.init = Init::zeros;
    bias.kind = ParameterKind::router;
    bias.full_precision = true;
    bias.frozen = true;
    layer.balance_bias = store.declare({bias});
}

// The multiplicative bias of every expert [F], 1 at first.
void declare_scale(ParameterStore& store, const ModelConfig& config, const std::string& experts, MoeLayer& layer) {
    if (!config.multiplicative_bias) return;
    Parameter scale;
    scale.name = experts + ".multiplicative_bias";
    scale.shape = {config.expert_width()};
    scale.experts = config.experts;
    scale.split = Split::rows;
    scale.init = Init::ones;
    scale.kind = ParameterKind::expert;
    layer.scale = store.declare({scale});
}

// saved.scaled from saved.activated.
void scale_forward(Pass& pass, const MoeLayer& layer, MoeSaved& saved) {
    saved.scaled = saved.activated;
    if (!pass.config.multiplicative_bias) return;
    const DType type = saved.activated.dtype;
    saved.scaled = pass.cheap(Reused::scaled, type, saved.activated.shape);
    ops::expert_scale(pass.context, {saved.activated, pass.weight_of(type, layer.scale), pass.parameters.records()[layer.scale].expert_stride, saved.dispatch.offsets, saved.scaled});
}

// From the gradient of what the bias scaled to that of `activated`, in place.
void scale_backward(Pass& pass, const MoeLayer& layer, const Tensor& offsets, const Tensor& activated, const Tensor& d) {
    if (!pass.config.multiplicative_bias) return;
    ops::expert_scale_backward(pass.context, {activated, pass.weight(layer.scale), pass.parameters.records()[layer.scale].expert_stride, offsets, d, d, pass.gradient(layer.scale)});
}

// What the router reads.
void router_forward(Pass& pass, const MoeLayer& layer, const Tensor& x, const Sequence& sequence, MoeSaved& saved) {
    saved.router_input = pass.cheap(Reused::router_input, pass.accumulate(), x.shape);
    ops::cast(pass.context, x, saved.router_input);
    explore(pass, layer, sequence, saved.router_input);
}

// The rows that the experts read, and what is done with them as they come.
void gather_forward(Pass& pass, const Tensor& x, MoeSaved& saved, const ExpertWork& work) {
    saved.rows = pass.cheap(Reused::rows, x.dtype, {saved.dispatch.rows, x.cols()});
    Arena::Scope scope(pass.context.arena);
    const bool exchanges = saved.dispatch.exchanges;
    const Tensor local = exchanges ? pass.context.allocate(x.dtype, {saved.route.row_token.elements(), x.cols()}) : saved.rows;
    ops::gather_rows(pass.context, {x, tables_of(saved.route), local});
    rows_to_experts(pass, saved.dispatch, local, saved.rows, work);
}

// What the experts' last product reads.
void experts_activation(Pass& pass, const MoeLayer& layer, const Sequence& sequence, MoeSaved& saved) {
    saved.activated = pass.cheap(Reused::expert_activated, saved.inner.dtype, {saved.inner.rows(), pass.record(layer.input).part[0]});
    ops::activation(pass.context, expert_activation(pass, layer, sequence, saved));
    scale_forward(pass, layer, saved);
}

// The shared expert's answer in the type of x, and the logit of its gate: what the gate's backward needs.
void shared_gate_forward(Pass& pass, const MoeLayer& layer, const Tensor& x, const Sequence& sequence, MoeSaved& saved) {
    Context& context = pass.context;
    saved.shared_answer = feed_forward_forward(pass, layer.shared, x, sequence, saved.shared);
    if (pass.sequence_parallel) sum_over_split(pass, saved.shared_answer);
    if (x.dtype != saved.shared_answer.dtype) {
        const Tensor wide = saved.shared_answer;
        saved.shared_answer = context.allocate(x.dtype, wide.shape);
        ops::cast(context, wide, saved.shared_answer);
    }
    saved.shared_logit = context.allocate(pass.accumulate(), {x.rows(), 1});
    ops::matmul(context, {.a = x, .b = pass.weight_of(x.dtype, layer.shared_gate), .out = saved.shared_logit, .transpose_b = true});
}

// Adds the shared expert's answer to delta.
void shared_forward(Pass& pass, const MoeLayer& layer, const Tensor& x, const Sequence& sequence, const Tensor& delta, MoeSaved& saved) {
    saved.x = x;
    if (!layer.shared_gated) return ops::add(pass.context, feed_forward_forward(pass, layer.shared, x, sequence, saved.shared), delta);
    shared_gate_forward(pass, layer, x, sequence, saved);
    if (adds_whole(pass)) ops::row_gate(pass.context, {saved.shared_answer, saved.shared_logit, delta});
}

// Adds what reaches the layer's input through the shared expert to dx.
void shared_backward(Pass& pass, const MoeLayer& layer, const Sequence& sequence, const Tensor& d_delta, const Tensor& dx, const MoeSaved& saved) {
    Context& context = pass.context;
    Tensor d_answer = d_delta;
    if (layer.shared_gated) {
        d_answer = pass.narrow(saved.shared_answer);
        const Tensor d_logit = context.allocate(pass.type(), saved.shared_logit.shape);
        ops::row_gate_backward(context, {d_answer, saved.shared_logit, d_delta, d_answer, d_logit});
        ops::matmul(context, {.a = d_logit, .b = pass.narrow(saved.x), .out = pass.gradient(layer.shared_gate), .transpose_a = true, .accumulate = true});
        if (adds_whole(pass)) ops::matmul(context, {.a = d_logit, .b = pass.weight(layer.shared_gate), .out = dx, .accumulate = true});
    }
    ops::add(context, feed_forward_backward(pass, layer.shared, saved.x, sequence, d_answer, saved.shared), dx);
}

}  // namespace

const RoutingConfig& routing_of(const ModelConfig& config, const MoeLayer& layer) { return layer.decoder ? config.decoder_routing : config.encoder_routing; }

void update_balance_bias(Context& context, const ParameterStore& store, const ModelConfig& config, const MoeLayer& layer, const Tensor& demand, const Tensor& accepted) {
    const RoutingConfig& routing = routing_of(config, layer);
    if (!routing.balance_bias || store.records()[layer.router].frozen) return;
    ops::balance_bias(context, {store.master(store.records()[layer.balance_bias]), demand, routing.balance_bias_rate, accepted});
}

ops::RouteRule rule_of(const RoutingConfig& routing, bool training) {
    ops::RouteRule rule;
    rule.kind = routing.kind;
    rule.k = routing.k;
    rule.normalize = routing.normalize;
    rule.prioritized = routing.prioritized;
    rule.density = routing.density;
    rule.second = training ? routing.second_train : routing.second_eval;
    rule.second_threshold = routing.second_threshold;
    rule.dropless = routing.dropless || (!training && routing.eval_dropless);
    rule.fixed_capacity = routing.capacity;
    rule.capacity_factor = training ? routing.capacity_factor : routing.eval_capacity_factor;
    rule.min_capacity = routing.min_capacity;
    return rule;
}

MoeLayer declare_moe(ParameterStore& store, const ModelConfig& config, const std::string& prefix, bool decoder) {
    MoeLayer layer;
    layer.decoder = decoder;
    declare_router(store, config, prefix, layer);
    const std::string experts = prefix + ".experts.expert_{e}";
    layer.input = store.declare(feed_forward_input_records(config, experts, config.expert_gated, config.expert_width(), config.experts));
    layer.output = store.declare({feed_forward_output_record(config, experts, config.expert_width(), config.experts)});
    declare_scale(store, config, experts, layer);
    if (config.shared_d_ff == 0) return layer;
    layer.has_shared = true;
    layer.shared = declare_shared_expert(store, config, prefix + ".shared_expert");
    if (!config.shared_gate) return layer;
    layer.shared_gated = true;
    Parameter gate = store.records()[layer.router];
    gate.name = prefix + ".shared_expert_gate.weight";
    gate.shape = {1, config.d_model};
    layer.shared_gate = store.declare({gate});
    return layer;
}

namespace {

// Which rows go to which experts.
void decide(Pass& pass, const MoeLayer& layer, const Tensor& x, const Sequence& sequence, MoeSaved& saved) {
    Context& context = pass.context;
    const RoutingConfig& routing = routing_of(pass.config, layer);
    router_forward(pass, layer, x, sequence, saved);
    const Tensor logits = pass.router_logits ? pass.router_logits->at(static_cast<size_t>(layer.layer)) : context.allocate(pass.accumulate(), {x.rows(), pass.config.experts});
    if (!pass.router_logits) ops::matmul(context, {.a = saved.router_input, .b = pass.master(layer.router), .out = logits, .transpose_b = true});
    ops::RouteArgs& route = saved.route;
    route.logits = logits;
    route.groups = groups_of(pass, routing, sequence);
    route.rule = rule_of(routing, pass.training || pass.training_capacity);
    route.rule.dropless |= pass.no_drop && routing.kind != RouterKind::expert_choice;
    if (!routing.route_padding) route.mask = sequence.routed;
    if (routing.balance_bias) route.bias = pass.master(layer.balance_bias);
    route.scores = drawn_scores(pass, layer, sequence, logits);
    route.key = key_of(pass, layer, Purpose::second_expert);
    route.first_token = static_cast<uint64_t>(sequence.first_token());
    ops::allocate_route_outputs(context, route);
    ops::route(context, route);
}

// From the decision to the experts' answers.
void answer(Pass& pass, const MoeLayer& layer, const Tensor& x, const Sequence& sequence, MoeSaved& saved) {
    Context& context = pass.context;
    const int64_t d = pass.config.d_model, f = pass.record(layer.input).part[0], halves = pass.config.expert_gated ? 2 : 1;
    saved.dispatch = plan_dispatch(pass, saved.route);
    saved.inner = context.allocate(x.dtype, {saved.dispatch.rows, halves * f});
    saved.answers = context.allocate(x.dtype, {saved.route.row_token.elements(), d});
    const auto& records = pass.parameters.records();
    gather_forward(pass, x, saved, [&](const ExpertRange& experts) {
        ops::grouped_matmul(context, {.a = saved.rows,
                                      .b = pass.fused_weight_of(x.dtype, layer.input, halves, experts.first),
                                      .b_stride = records[layer.input].expert_stride,
                                      .offsets = experts.offsets,
                                      .out = saved.inner,
                                      .transpose_b = true});
    });
    experts_activation(pass, layer, sequence, saved);
    Arena::Scope scope(context.arena);
    const Tensor answers = saved.dispatch.exchanges ? context.allocate(x.dtype, {saved.dispatch.rows, d}) : saved.answers;
    const auto product = [&](const ExpertRange& experts) {
        ops::grouped_matmul(context, {.a = saved.scaled,
                                      .b = pass.weight_of(x.dtype, layer.output, experts.first),
                                      .b_stride = records[layer.output].expert_stride,
                                      .offsets = experts.offsets,
                                      .out = answers,
                                      .transpose_b = true});
    };
    rows_from_experts(pass, saved.dispatch, product, answers, saved.answers);
}

}  // namespace

Tensor moe_forward(Pass& pass, const MoeLayer& layer, const Tensor& x, const Sequence& sequence, MoeSaved& saved, const Tensor& into) {
    decide(pass, layer, x, sequence, saved);
    const Tensor delta = into ? into : pass.context.allocate(x.dtype, {x.rows(), pass.config.d_model});
    answer(pass, layer, x, sequence, saved);
    ops::combine(pass.context, {saved.answers, saved.route.row_gate, tables_of(saved.route), delta});
    leave_split(pass, delta);  // tokens are fewer than rows: the weighted sums are added over the ranks, not the answers
    if (layer.has_shared) shared_forward(pass, layer, x, sequence, delta, saved);
    return delta;
}

void moe_inner(Pass& pass, const MoeLayer& layer, const Tensor& x, const Sequence& sequence, MoeSaved& saved) {
    decide(pass, layer, x, sequence, saved);
    answer(pass, layer, x, sequence, saved);
    if (!layer.has_shared) return;
    saved.x = x;
    layer.shared_gated ? shared_gate_forward(pass, layer, x, sequence, saved) : feed_forward_inner(pass, layer.shared, x, sequence, saved.shared);
}

void moe_recompute(Pass& pass, const MoeLayer& layer, const Tensor& x, const Sequence& sequence, MoeSaved& saved) {
    router_forward(pass, layer, x, sequence, saved);
    gather_forward(pass, x, saved, [](const ExpertRange&) {});
    experts_activation(pass, layer, sequence, saved);
    if (layer.has_shared) saved.x = x, feed_forward_activation(pass, layer.shared, sequence, saved.shared);
}

Tensor moe_backward(Pass& pass, const MoeLayer& layer, const Sequence& sequence, const Tensor& d_delta, const MoeSaved& saved) {
    Context& context = pass.context;
    const ModelConfig& config = pass.config;
    const ops::RouteArgs& route = saved.route;
    const int64_t n = d_delta.rows(), d = config.d_model, halves = config.expert_gated ? 2 : 1;
    const auto& records = pass.parameters.records();
    const Tensor dx = context.allocate(pass.type(), {n, d});
    Arena::Scope scope(context.arena);

    // Experts, last product first. Gradients take the place of the saved values where those are not needed again.
    const Tensor& offsets = saved.dispatch.offsets;
    const Tensor d_gate = context.allocate(pass.accumulate(), route.row_gate.shape);
    const Tensor rows = pass.narrow(saved.rows), activated = pass.narrow(saved.activated), d_local = pass.narrow(saved.answers), d_inner = pass.narrow(saved.inner);
    ops::combine_backward(context, {d_local, route.row_gate, tables_of(route), d_delta, d_local, d_gate});
    // A rank's answers are its part's share: so are their products with the gradient. With this sum every rank has the whole gradient of the gates, and
    // computes the same gradient of router and router input.
    pass.mesh().tensor().all_reduce(context, d_gate);
    const Tensor d_answers = saved.dispatch.exchanges ? context.allocate(pass.type(), rows.shape) : d_local;
    const Tensor scaled = config.multiplicative_bias ? pass.narrow(saved.scaled) : activated;
    const Tensor d_activated = context.allocate(pass.type(), saved.activated.shape);
    const int64_t input_stride = records[layer.input].expert_stride, output_stride = records[layer.output].expert_stride;
    rows_to_experts(pass, saved.dispatch, d_local, d_answers, [&](const ExpertRange& e) {
        ops::grouped_matmul(context, {.a = d_answers, .b = pass.weight(layer.output, e.first), .b_stride = output_stride, .offsets = e.offsets, .out = d_activated});
        ops::grouped_matmul_weight(context, {d_answers, scaled, e.offsets, pass.gradient(layer.output, e.first), output_stride});
    });
    scale_backward(pass, layer, offsets, activated, d_activated);
    const ops::ActivationArgs forward = expert_activation(pass, layer, sequence, saved);
    ops::activation_backward(context, {forward.kind, forward.gated, d_inner, forward.row_ids, forward.rows_used, forward.dropout, d_activated, d_inner, forward.dropout_cols});
    const Tensor d_rows = d_answers;
    const auto to_input = [&](const ExpertRange& e) {
        ops::grouped_matmul_weight(context, {d_inner, rows, e.offsets, pass.fused_gradient(layer.input, halves, e.first), input_stride});
        ops::grouped_matmul(context, {.a = d_inner, .b = pass.fused_weight(layer.input, halves, e.first), .b_stride = input_stride, .offsets = e.offsets, .out = d_rows});
    };
    rows_from_experts(pass, saved.dispatch, to_input, d_rows, d_local);
    ops::gather_rows_backward(context, {tables_of(route), d_local, dx});
    enter_split_backward(pass, dx);  // before the router's part, which is whole on every rank

    // Router: through the gates and through its own losses, which are means over sparse layers and over the step's groups.
    const double layers = static_cast<double>(config.encoder_sparse.size() + config.decoder_sparse.size());
    const double groups = static_cast<double>(layer.decoder ? pass.loss.decoder_groups : pass.loss.encoder_groups);
    const Tensor d_logits = context.allocate(pass.accumulate(), route.logits.shape);
    ops::route_backward(context, {route, d_gate, pass.loss.balance / (layers * groups), pass.loss.router_z / (layers * groups), d_logits});
    ops::matmul(context, {.a = d_logits, .b = saved.router_input, .out = pass.gradient(layer.router), .transpose_a = true, .accumulate = true});
    const Tensor d_router_input = saved.router_input;
    ops::matmul(context, {.a = d_logits, .b = pass.master(layer.router), .out = d_router_input});
    explore(pass, layer, sequence, d_router_input);
    if (adds_whole(pass)) ops::add(context, d_router_input, dx);
    if (layer.has_shared) shared_backward(pass, layer, sequence, d_delta, dx, saved);
    return dx;
}

}  // namespace flanmoe

#include "model/transformer.hpp"

#include "model/collectives.hpp"
#include "ops/elementwise.hpp"
#include "ops/embedding.hpp"
#include "ops/matmul.hpp"
#include "ops/report.hpp"

#include <algorithm>
#include <cmath>

namespace flanmoe {

namespace {

Parameter embedding_record(const ModelConfig& config, const char* name, ParameterKind kind, double deviation) {
    Parameter p;
    p.name = name;
    p.shape = {config.vocab_size, config.d_model};
    p.split = Split::rows;
    p.deviation = deviation;
    p.kind = kind;
    p.full_precision = kind == ParameterKind::embedding;  // lookups take rows of the master weights
    return p;
}

// Groups of one side with at least one routable token.
int64_t live_groups(const Batch& batch, const std::vector<uint8_t>& routed, const std::vector<int32_t>& segments, int64_t length, const RoutingConfig& routing) {
    if (length == 0) return 0;
    const int64_t rows_in_group = routing.group_rows == 0 ? batch.rows : routing.group_rows;
    int64_t groups = 0;
    for (int64_t first = 0; first < batch.rows; first += rows_in_group) {
        bool live = routing.route_padding;
        const int64_t end = std::min(batch.rows, first + rows_in_group) * length;
        for (int64_t i = first * length; i < end && !live; ++i) live = routed.empty() ? segments[static_cast<size_t>(i)] != 0 : routed[static_cast<size_t>(i)] != 0;
        groups += live;
    }
    return groups;
}

}  // namespace

void count_groups(const ModelConfig& config, const StepBatch& batches, LossScales& scales) {
    scales.encoder_groups = scales.decoder_groups = 0;
    for (const Batch& b : batches) {
        scales.encoder_groups += live_groups(b, b.encoder_routed, b.encoder_segments, b.encoder_length, config.encoder_routing);
        scales.decoder_groups += live_groups(b, b.decoder_routed, b.decoder_segments, b.decoder_length, config.decoder_routing);
    }
}

void LossSums::add(const LossSums& other) {
    output.nll += other.output.nll;
    output.z += other.output.z;
    output.tokens += other.output.tokens;
    output.correct += other.output.correct;
    if (routing.empty()) {
        routing = other.routing;
        return;
    }
    require(routing.size() == other.routing.size(), "reports of the same sparse layers");
    for (size_t i = 0; i < routing.size(); ++i) {
        for (size_t j = 0; j < routing[i].statistics.size(); ++j) routing[i].statistics[j] += other.routing[i].statistics[j];
        for (size_t j = 0; j < routing[i].load.size(); ++j) routing[i].load[j] += other.routing[i].load[j];
        for (size_t j = 0; j < routing[i].demand.size(); ++j) routing[i].demand[j] += other.routing[i].demand[j];
    }
}

double LossSums::cross_entropy() const { return output.tokens ? output.nll / static_cast<double>(output.tokens) : 0; }
double LossSums::output_z() const { return output.tokens ? output.z / static_cast<double>(output.tokens) : 0; }

namespace {
double mean_over_layers(const std::vector<RoutingReport>& reports, ops::RouteStatistic statistic) {
    double sum = 0;
    for (const RoutingReport& r : reports) {
        const double groups = r[ops::RouteStatistic::groups];
        if (groups > 0) sum += r[statistic] / groups;
    }
    return reports.empty() ? 0 : sum / static_cast<double>(reports.size());
}
}  // namespace

double LossSums::balance() const { return mean_over_layers(routing, ops::RouteStatistic::balance); }
double LossSums::router_z() const { return mean_over_layers(routing, ops::RouteStatistic::z); }

std::string division_problem(const ModelConfig& config, const MeshShape& mesh) {
    if (config.experts == 0 && mesh.expert > 1) return fmt::format("parallel.expert = {} divides experts, but the model has none; use parallel.data", mesh.expert);
    if (config.experts % mesh.expert != 0) {
        const int64_t below = config.experts / mesh.expert * mesh.expert;
        return fmt::format("{} experts do not divide over parallel.expert = {} ranks; choose {}{} experts, or another number of ranks", config.experts, mesh.expert,
                           below ? fmt::format("{} or ", below) : "", below + mesh.expert);
    }
    std::string problem;
    const auto divides = [&](int64_t size, const char* what, const char* key) {
        if (size % mesh.tensor == 0 || !problem.empty()) return;
        problem = fmt::format("{} {} ({}) do not divide over parallel.tensor = {} ranks; choose a divisor of {}", size, what, key, mesh.tensor, size);
    };
    divides(config.heads, "heads", "model.heads");
    divides(config.key_heads(), "heads of keys and values", "model.kv_heads");
    const auto dense_layers = [&](bool decoder, int64_t layers, const std::vector<int64_t>& sparse) {
        for (int64_t i = 0; i < layers; ++i)
            if (config.extra_ffn || std::find(sparse.begin(), sparse.end(), i) == sparse.end()) divides(dense_width(config, decoder, i), "hidden units of a feed-forward", "model.d_ff");
    };
    dense_layers(false, config.encoder_layers, config.encoder_sparse);
    dense_layers(true, config.decoder_layers, config.decoder_sparse);
    if (config.experts > 0) divides(config.expert_width(), "hidden units of an expert", "moe.expert_d_ff");
    divides(config.shared_d_ff, "hidden units of a shared expert", "moe.shared_d_ff");
    return problem;
}

void check_division(const ModelConfig& config, const MeshShape& mesh) {
    if (const std::string problem = division_problem(config, mesh); !problem.empty()) fail(Exit::usage, "{}", problem);
}

Transformer::Transformer(const ModelConfig& config, const Mesh& mesh) : config_(config), parameters_(mesh) {
    check_division(config, mesh.shape());
    // T5 v1.1: N(0, 1) embeddings; a head of its own starts with variance 1 / fan_in.
    embedding_ = parameters_.declare({embedding_record(config_, "shared.weight", ParameterKind::embedding, 1.0)});
    if (config_.encoder_decoder) encoder_ = declare_stack(parameters_, config_, false);
    decoder_ = declare_stack(parameters_, config_, true);
    if (!config_.tied) {
        const double deviation = std::sqrt(config_.init_scale / static_cast<double>(config_.d_model));
        head_ = parameters_.declare({embedding_record(config_, "lm_head.weight", ParameterKind::head, deviation)});
    }
}

double Transformer::logit_scale() const { return config_.scale_outputs ? 1.0 / std::sqrt(static_cast<double>(config_.d_model)) : 1.0; }

Tensor Transformer::embed(Pass& pass, const Tensor& ids) const {
    const Tensor out = pass.context.allocate(pass.accumulate(), {ids.elements(), config_.d_model});
    auto part = pass.context.part("embedding");
    const Parameter& table = pass.record(embedding_);
    ops::embedding(pass.context, {pass.master(embedding_), ids, out, table.first, table.is_split() ? table.shape[0] : 0});
    sum_over_split(pass, out);  // one rank has a token's row, the others zeros
    return out;
}

Tensor Transformer::encode(Pass& pass, const BatchTensors& batch, TransformerSaved& saved) const {
    require(batch.encoder_length > 0, "inputs for the encoder");
    saved.encoder = {batch.rows, batch.encoder_length, batch.first_row, batch.encoder_segments, batch.encoder_routed, {}, rotary_table(pass.context, config_, pass.accumulate(), batch.encoder_length)};
    saved.encoder_ids = batch.encoder_ids;
    return stack_forward(pass, encoder_, embed(pass, saved.encoder_ids), saved.encoder, {}, nullptr, saved.encoder_stack);
}

Tensor Transformer::forward(Pass& pass, const BatchTensors& batch, TransformerSaved& saved) const {
    const Tensor memory = config_.encoder_decoder ? encode(pass, batch, saved) : Tensor();
    const int64_t times = batch.targets_per_row;
    saved.decoder = {times * batch.rows, batch.decoder_length, times * batch.first_row, batch.decoder_segments, batch.decoder_routed, batch.prefix_ends,
                     rotary_table(pass.context, config_, pass.accumulate(), batch.decoder_length)};
    saved.decoder_ids = batch.decoder_ids;
    saved.targets = batch.targets;
    return stack_forward(pass, decoder_, embed(pass, saved.decoder_ids), saved.decoder, memory, &saved.encoder, saved.decoder_stack);
}

// Sums over the targets (ops::CrossEntropySums).
Tensor Transformer::cross_entropy(Pass& pass, const Tensor& hidden, const Tensor& targets, const Tensor& d_hidden, const Tensor& token_nll) const {
    auto part = pass.context.part("output and loss");
    ops::LinearCrossEntropyArgs args;
    args.hidden = hidden;
    args.weight = pass.weight(head());
    args.targets = targets;
    args.scale = logit_scale();
    args.loss_scale = 1.0 / static_cast<double>(std::max<int64_t>(1, pass.loss.tokens));
    args.z_coefficient = pass.loss.output_z;
    args.d_hidden = d_hidden;
    if (d_hidden) args.d_weight = pass.gradient(head());
    args.token_nll = token_nll;
    args.sums = pass.context.zeros(DType::f64, {ops::output_sums});
    Communicator& tensor = pass.mesh().tensor();
    if (tensor.size() > 1) {
        const auto gather = [&](const Tensor& part, const Tensor& whole) { tensor.all_gather(pass.context, part, whole); };
        args.part = {tensor.size(), pass.record(head()).first, config_.vocab_size, gather};
    }
    ops::linear_cross_entropy(pass.context, args);
    if (d_hidden) sum_over_split(pass, d_hidden);
    return args.sums;
}

void Transformer::loss(Pass& pass, const Tensor& hidden, const TransformerSaved& saved, const Tensor& d_hidden, const Tensor& token_nll, const Tensor& report) const {
    std::vector<Tensor> sums = {cross_entropy(pass, hidden, saved.targets, d_hidden, token_nll)};
    for (const RoutedLayer& layer : routed_layers(saved)) sums.insert(sums.end(), {layer.route->statistics, layer.route->load, layer.route->demand});
    ops::add_sums(pass.context, sums, report);
}

void Transformer::train(const Pass& given, const BatchTensors& batch, const Tensor& report) const {
    Context& context = given.context;
    Arena::Scope scope(context.arena);
    Pass pass = given;
    Reused reused;
    if (pass.recompute == Recompute::cheap) pass.reused = &reused;
    TransformerSaved saved;
    const Tensor hidden = forward(pass, batch, saved);
    const Tensor d_hidden = context.allocate(pass.type(), hidden.shape);
    loss(pass, hidden, saved, d_hidden, {}, report);

    Tensor d_memory;
    if (config_.encoder_decoder) d_memory = context.zeros(pass.accumulate(), saved.encoder_stack.out.shape);
    const auto embedding_backward = [&](const Tensor& ids, const Tensor& d_embedded) {
        auto part = context.part("embedding");
        const Parameter& table = pass.record(embedding_);
        ops::embedding_backward(context, {ids, d_embedded, pass.gradient(embedding_), table.first, table.is_split() ? table.shape[0] : 0});
    };
    const Tensor memory = config_.encoder_decoder ? pass.narrow(saved.encoder_stack.out) : Tensor();
    embedding_backward(saved.decoder_ids, stack_backward(pass, decoder_, saved.decoder, memory, d_hidden, d_memory, saved.decoder_stack));
    if (config_.encoder_decoder) {
        sum_over_split(pass, d_memory);  // of the cross-attentions of all layers at once
        embedding_backward(saved.encoder_ids, stack_backward(pass, encoder_, saved.encoder, {}, pass.narrow(d_memory), {}, saved.encoder_stack));
    }
}

namespace {
std::vector<double> on_host(Context& context, const Tensor& nll) {
    const Tensor wide = context.allocate(DType::f64, nll.shape);
    ops::cast(context, nll, wide);
    return context.download<double>(wide);
}
}  // namespace

LossSums Transformer::evaluate(const Pass& given, const Batch& batch, std::vector<double>* token_nll) const {
    Context& context = given.context;
    Arena::Scope scope(context.arena);
    Pass pass = given;
    pass.recompute = Recompute::full;  // nothing is computed again: no gradient follows
    TransformerSaved saved;
    const Tensor hidden = forward(pass, batch, saved);
    Tensor nll;
    if (token_nll) nll = context.allocate(pass.accumulate(), {saved.decoder.tokens()});
    const Tensor report = context.zeros(DType::f64, {report_size()});
    loss(pass, hidden, saved, {}, nll, report);
    const LossSums sums = read_report(context.download<double>(report).data());
    if (token_nll) *token_nll = on_host(context, nll);
    return sums;
}

std::vector<double> Transformer::target_nll(Pass& pass, const Tensor& hidden, const Tensor& targets) const {
    Arena::Scope scope(pass.context.arena);
    const Tensor nll = pass.context.allocate(pass.accumulate(), {hidden.rows()});
    cross_entropy(pass, hidden, targets, {}, nll);
    return on_host(pass.context, nll);
}

Tensor Transformer::logits(Pass& pass, const Tensor& hidden) const {
    const Tensor out = pass.context.allocate(pass.accumulate(), {hidden.rows(), config_.vocab_size});
    const Parameter& record = pass.record(head());
    if (record.is_split()) pass.context.engine->zero(out.data, out.bytes());
    ops::matmul(pass.context, {.a = hidden, .b = pass.weight(head()), .out = out.columns(record.first, record.part[0]), .transpose_b = true});
    sum_over_split(pass, out);  // each rank has made its columns, the rest are zeros
    if (config_.scale_outputs) ops::scale(pass.context, out, logit_scale());
    return out;
}

int64_t Transformer::report_size() const { return ops::output_sums + sparse_layers() * (ops::route_sums + 2 * config_.experts); }

void Transformer::update_balance_biases(Context& context, const Tensor& report, const Tensor& accepted) const {
    const int64_t experts = config_.experts;
    int64_t demand = ops::output_sums + ops::route_sums + experts;  // where the layer's stands in the report
    for (const Stack* stack : {&encoder_, &decoder_}) {
        for (const SubLayer& sublayer : stack->sublayers) {
            const auto* moe = std::get_if<MoeLayer>(&sublayer.body);
            if (!moe) continue;
            update_balance_bias(context, parameters_, config_, *moe, Tensor(report.as<double>() + demand, DType::f64, {experts}), accepted);
            demand += ops::route_sums + 2 * experts;
        }
    }
}

LossSums Transformer::read_report(const double* report) const {
    LossSums sums;
    sums.output = {report[0], report[1], static_cast<int64_t>(report[2]), static_cast<int64_t>(report[3])};
    report += ops::output_sums;
    const auto take = [&](int64_t count) {
        report += count;
        return std::vector<double>(report - count, report);
    };
    for (const Stack* stack : {&encoder_, &decoder_}) {
        for (const SubLayer& sublayer : stack->sublayers) {
            if (!std::holds_alternative<MoeLayer>(sublayer.body)) continue;
            RoutingReport layer{stack->decoder, sublayer.block, take(ops::route_sums), {}, {}};
            layer.load = take(config_.experts), layer.demand = take(config_.experts);
            sums.routing.push_back(std::move(layer));
        }
    }
    return sums;
}

std::vector<RoutedLayer> Transformer::routed_layers(const TransformerSaved& saved) const {
    std::vector<RoutedLayer> layers;
    const auto collect = [&](const Stack& stack, const StackSaved& kept) {
        for (size_t s = 0; s < stack.sublayers.size(); ++s)
            if (std::holds_alternative<MoeLayer>(stack.sublayers[s].body)) layers.push_back({stack.decoder, stack.sublayers[s].block, &kept.sublayers[s].moe.route});
    };
    collect(encoder_, saved.encoder_stack);
    collect(decoder_, saved.decoder_stack);
    return layers;
}

}  // namespace flanmoe

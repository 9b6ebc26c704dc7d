// Kind model: logits, losses, routing and the gradient of every parameter of a whole model.
#include "cli/parity/case_model.hpp"

#include <cstring>

namespace flanmoe::cli {

namespace {

HostTensor copy_of(const Context& context, const Tensor& values, Shape shape) {
    HostTensor copy = to_host(*context.engine, values);
    copy.shape = shape;
    return copy;
}

// What the recorded results hold in the accumulation type is written so; double losses are narrowed for f32 runs.
HostTensor scalar(double value, DType type) {
    HostTensor t(type, {});
    if (type == DType::f64) *t.as<double>() = value;
    else *t.as<float>() = static_cast<float>(value);
    return t;
}

// Weight of every expert for every token, [groups, tokens, experts], from the sorted rows.
template <class T>
HostTensor combine_weights(const Context& context, const ops::RouteArgs& route, Shape shape) {
    HostTensor dense(dtype_of<T>, shape);
    std::memset(dense.memory.get(), 0, static_cast<size_t>(shape.elements()) * sizeof(T));
    const std::vector<int32_t> offsets = context.download<int32_t>(route.offsets), row_token = context.download<int32_t>(route.row_token);
    const std::vector<T> row_gate = context.download<T>(route.row_gate);
    const int64_t experts = route.offsets.elements() - 1;
    for (size_t e = 0; e < static_cast<size_t>(experts); ++e)
        for (auto r = static_cast<size_t>(offsets[e]); r < static_cast<size_t>(offsets[e + 1]); ++r) dense.as<T>()[row_token[r] * experts + static_cast<int64_t>(e)] = row_gate[r];
    return dense;
}

void collect_routers(const Context& context, const Stack& stack, const StackSaved& saved, DType accumulate, std::map<std::string, HostTensor>& tensors) {
    for (size_t s = 0; s < stack.sublayers.size(); ++s) {
        if (!std::holds_alternative<MoeLayer>(stack.sublayers[s].body)) continue;
        const ops::RouteArgs& route = saved.sublayers[s].moe.route;
        const std::string name = fmt::format("router.{}.{}", stack.decoder ? "decoder" : "encoder", stack.sublayers[s].block);
        const Shape shape{route.groups, route.logits.rows() / route.groups, route.logits.cols()};
        tensors[name + ".logits"] = copy_of(context, route.logits, shape);
        tensors[name + ".combine"] = accumulate == DType::f64 ? combine_weights<double>(context, route, shape) : combine_weights<float>(context, route, shape);
        const std::vector<double> sums = context.download<double>(route.statistics);
        const double groups = std::max(1.0, sums[static_cast<size_t>(ops::RouteStatistic::groups)]);
        tensors[name + ".balance"] = scalar(sums[static_cast<size_t>(ops::RouteStatistic::balance)] / groups, accumulate);
        tensors[name + ".z"] = scalar(sums[static_cast<size_t>(ops::RouteStatistic::z)] / groups, accumulate);
    }
}

}  // namespace

Computed compute_model(const ParityCase& given) {
    DeviceContext context(given.device);
    const auto model = load_case_model(given, context, true);
    const ModelConfig& config = model->config();
    const Batch batch = case_batch(given, config);
    const DType accumulate = model->parameters().master_type();
    Computed computed;
    {
        Arena::Scope scope(context.arena);
        Pass pass{.context = context, .parameters = model->parameters(), .config = config};
        TransformerSaved saved;
        const Tensor hidden = model->forward(pass, batch, saved);
        computed.tensors["logits"] = copy_of(context, model->logits(pass, hidden), {batch.rows, batch.decoder_length, config.vocab_size});
        collect_routers(context, model->encoder(), saved.encoder_stack, accumulate, computed.tensors);
        collect_routers(context, model->decoder(), saved.decoder_stack, accumulate, computed.tensors);
    }
    const StepGradients step = compute_gradients(context, *model, {batch}, loss_of(given), 0, 0, false);
    computed.tensors["loss"] = scalar(step.loss, accumulate);
    computed.tensors["cross_entropy"] = scalar(step.sums.cross_entropy(), accumulate);
    computed.tensors["output_z"] = scalar(step.sums.output_z(), accumulate);
    computed.tensors["balance"] = scalar(step.sums.balance(), accumulate);
    computed.tensors["z"] = scalar(step.sums.router_z(), accumulate);
    const HfLayout layout = case_layout(given);
    for (const Parameter& p : model->parameters().records())
        for (int64_t e = 0; e < p.tensors(); ++e) computed.tensors["gradient." + name_in_layout(p.tensor_name(e), layout)] = copy_of(context, model->parameters().gradient(p, e), p.shape);
    return computed;
}

}  // namespace flanmoe::cli

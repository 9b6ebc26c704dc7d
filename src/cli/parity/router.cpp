// Kind router: weights, losses and the gradient of the logits of one routing decision.
#include "checkpoint/hf_config.hpp"
#include "cli/parity/parity.hpp"
#include "model/moe_layer.hpp"
#include "ops/engine.hpp"
#include "ops/route.hpp"

namespace flanmoe::cli {

namespace {

ops::RouteRule rule_of(const ParityCase& given, int64_t experts) {
    RoutingConfig routing;
    parse_routing(given.json.at("routing").dump(), routing, (given.folder / "case.json").string());
    if (routing.k > experts) given.malformed(fmt::format("k is {} with {} experts", routing.k, experts));
    if (!routing.dropless && routing.capacity < 1) given.malformed("routing has no capacity");
    if (routing.dropless && routing.kind == RouterKind::expert_choice) given.malformed("expert choice without a capacity");
    return flanmoe::rule_of(routing, true);
}

/// Checks that an optional or further input has this shape.
HostTensor input_like(const ParityCase& given, const std::string& name, DType type, const Shape& shape) {
    HostTensor tensor = given.input(name, type);
    if (!(tensor.shape == shape)) fail(Exit::bad_data, "{}: {} has shape {}, expected {}", given.inputs->path().string(), name, tensor.shape.text(), shape.text());
    return tensor;
}

template <class T>
HostTensor scalar(T value) {
    HostTensor tensor(dtype_of<T>, {});
    *tensor.as<T>() = value;
    return tensor;
}

template <class T>
Computed compute(const ParityCase& given) {
    constexpr DType type = dtype_of<T>;
    const HostTensor logits = given.input("logits", type);
    if (logits.shape.rank != 3 || logits.shape.elements() == 0) fail(Exit::bad_data, "{}: logits are not [groups, tokens, experts]", given.inputs->path().string());
    const int64_t groups = logits.shape[0], group_tokens = logits.shape[1], experts = logits.shape[2], tokens = groups * group_tokens;
    const HostTensor cotangent = input_like(given, "cotangent", type, logits.shape);
    HostTensor mask, draws;
    DeviceContext context(given.device);
    const auto on_device = [&](const HostTensor& t) {
        const Tensor copy = context.allocate(t.dtype, t.shape);
        context.engine->upload(copy.data, t.memory.get(), copy.bytes());
        return copy;
    };
    ops::RouteArgs args;
    args.logits = on_device(logits), args.groups = groups, args.rule = rule_of(given, experts);
    if (given.has_input("mask")) mask = input_like(given, "mask", DType::u8, {groups, group_tokens}), args.mask = on_device(mask);
    if (args.rule.second == SecondPolicy::random && args.rule.kind == RouterKind::token_choice && args.rule.k > 1) {
        if (args.rule.k != 2) given.malformed("the random second policy is recorded for k = 2 only");
        draws = input_like(given, "draws", type, {groups, group_tokens}), args.draws = on_device(draws);
    }
    ops::allocate_route_outputs(context, args);
    ops::route(context, args);

    Computed computed;
    HostTensor combine(type, logits.shape);
    std::fill_n(combine.as<T>(), tokens * experts, T{0});
    const std::vector<int32_t> offsets = context.download<int32_t>(args.offsets), row_token = context.download<int32_t>(args.row_token);
    const std::vector<T> row_gate = context.download<T>(args.row_gate);
    std::vector<T> d_gate(row_gate.size(), T{0});
    for (size_t e = 0; e < static_cast<size_t>(experts); ++e) {
        for (auto row = static_cast<size_t>(offsets[e]); row < static_cast<size_t>(offsets[e + 1]); ++row) {
            const int64_t at = row_token[row] * experts + static_cast<int64_t>(e);
            combine.as<T>()[at] = row_gate[row];
            d_gate[row] = cotangent.as<T>()[at];
        }
    }
    ops::RouteBackwardArgs backward;
    backward.forward = args, backward.d_gate = context.upload(d_gate, args.row_gate.shape), backward.d_logits = context.allocate(type, logits.shape);
    const std::vector<double> statistics = context.download<double>(args.statistics);
    const auto statistic = [&](ops::RouteStatistic s) { return statistics[static_cast<size_t>(s)]; };
    const double counted = std::max(1.0, statistic(ops::RouteStatistic::groups));
    backward.d_balance = given.json.at("loss").value("balance", 0.0) / counted, backward.d_z = given.json.at("loss").value("z", 0.0) / counted;
    ops::route_backward(context, backward);

    computed.tensors["combine"] = std::move(combine);
    computed.tensors["gradient.logits"] = to_host(*context.engine, backward.d_logits);
    computed.tensors["balance"] = scalar(static_cast<T>(statistic(ops::RouteStatistic::balance) / counted));
    computed.tensors["z"] = scalar(static_cast<T>(statistic(ops::RouteStatistic::z) / counted));
    return computed;
}

}  // namespace

Computed compute_router(const ParityCase& given) {
    return given.dtype == DType::f64 ? compute<double>(given) : compute<float>(given);  // never below single precision
}

}  // namespace flanmoe::cli

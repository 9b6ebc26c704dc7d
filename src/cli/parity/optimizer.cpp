// Kind optimizer: a few steps with given gradients and rates, through the parameter store and optimizer of training.
#include "cli/parity/parity.hpp"
#include "ops/engine.hpp"
#include "optim/optimizer.hpp"

#include <cstring>

namespace flanmoe::cli {

namespace {

constexpr std::string_view parameter_prefix = "parameter.";

OptimizerConfig config_of(const ParityCase& given) {
    const nlohmann::json& json = given.json;
    const std::string algorithm = json.at("algorithm").get<std::string>();
    OptimizerConfig config;
    if (algorithm == "adamw") {
        config.kind = OptimizerKind::adamw;
        config.beta1 = json.at("betas").at(0).get<double>(), config.beta2 = json.at("betas").at(1).get<double>();
        config.epsilon = json.at("epsilon").get<double>();
        config.weight_decay = json.at("weight_decay").get<double>(), config.decay_vectors = true;
    } else if (algorithm == "adafactor") {
        config.kind = OptimizerKind::adafactor;
        config.decay_exponent = json.at("decay_exponent").get<double>(), config.clipping_threshold = json.at("clipping_threshold").get<double>();
        config.squared_epsilon = json.at("epsilon").get<double>(), config.minimum_scale = json.at("minimum_scale").get<double>();
        config.min_factored = json.at("minimum_factored_dimension").get<int64_t>(), config.scale_by_parameter = json.at("scale_by_parameter").get<bool>();
    } else {
        given.malformed(fmt::format("there is no algorithm \"{}\"", algorithm));
    }
    return config;
}

/// A record for each input parameter.<name>; one whose first axis counts independent tensors becomes as many experts.
void declare(const ParityCase& given, ParameterStore& store) {
    const nlohmann::json axes = given.json.value("batch_axis", nlohmann::json::object());
    for (const auto& [name, axis] : axes.items()) {
        if (!given.has_input(std::string(parameter_prefix) + name)) given.malformed(fmt::format("batch_axis names {}, which is no parameter", name));
        if (axis != 0) given.malformed(fmt::format("batch_axis of {} is not 0", name));
    }
    for (const TensorEntry& entry : given.inputs->entries()) {
        if (!entry.name.starts_with(parameter_prefix)) continue;
        Parameter p;
        p.name = entry.name.substr(parameter_prefix.size());
        const bool batched = axes.contains(p.name);
        if (entry.shape.size() < (batched ? 2 : 1) || entry.shape.size() > (batched ? 3 : 2) || entry.elements() == 0)
            fail(Exit::bad_data, "{}: {} has shape {}; vectors and matrices are optimized, or stacks of them named in batch_axis", given.inputs->path().string(), entry.name,
                 entry.shape_text());
        for (size_t d = batched ? 1 : 0; d < entry.shape.size(); ++d) p.shape.sizes[p.shape.rank++] = entry.shape[d];
        if (batched) p.experts = entry.shape[0], p.name += ".{e}";
        store.declare({p});
    }
    if (store.records().empty()) fail(Exit::bad_data, "{} holds no parameter.<name>", given.inputs->path().string());
}

/// Name of a record in the case.
std::string case_name(const Parameter& p) { return p.experts ? p.name.substr(0, p.name.size() - 4) : p.name; }

Shape stacked(const Parameter& p, const Shape& one) {
    if (!p.experts) return one;
    Shape shape{p.experts};
    for (int d = 0; d < one.rank; ++d) shape.sizes[shape.rank++] = one[d];
    return shape;
}

/// Copies an input into the store, one expert after the other. `into` gives the view of one.
template <class View>
void load(const ParityCase& given, const ParameterStore& store, const Parameter& p, const std::string& name, View&& into) {
    const HostTensor values = given.input(name, store.master_type());
    if (!(values.shape == stacked(p, p.shape)))
        fail(Exit::bad_data, "{}: {} has shape {}, the parameter {}", given.inputs->path().string(), name, values.shape.text(), stacked(p, p.shape).text());
    for (int64_t e = 0; e < p.tensors(); ++e) {
        const Tensor view = into(e);
        store.engine().upload(view.data, values.memory.get() + e * view.bytes(), view.bytes());
    }
}

/// Puts the tensors of a record's experts (or its only one) together under one name.
template <class View>
void collect(Computed& computed, Engine& engine, const std::string& name, const Parameter& p, View&& from) {
    const Tensor first = from(0);
    HostTensor whole(first.dtype, stacked(p, first.shape));
    for (int64_t e = 0; e < p.tensors(); ++e) engine.download(whole.memory.get() + e * first.bytes(), from(e).data, first.bytes());
    computed.tensors[name] = std::move(whole);
}

}  // namespace

Computed compute_optimizer(const ParityCase& given) {
    DeviceContext context(given.device);
    ParameterStore store;
    declare(given, store);
    store.allocate(given.dtype == DType::f64 ? DType::f64 : DType::f32, true, context);  // optimizers never compute below single precision
    for (const Parameter& p : store.records()) load(given, store, p, "parameter." + case_name(p), [&](int64_t e) { return store.master(p, e); });
    Optimizer optimizer(config_of(given), store);
    const auto rates = given.json.at("learning_rates").get<std::vector<double>>();
    for (size_t step = 0; step < rates.size(); ++step) {
        for (const Parameter& p : store.records())
            load(given, store, p, fmt::format("gradient.{}.{}", step, case_name(p)), [&](int64_t e) { return store.gradient(p, e); });
        optimizer.update(context, static_cast<int64_t>(step), rates[step], 1.0);
    }

    Computed computed;
    std::map<std::string, Tensor> state;
    for (const NamedTensor& slot : optimizer.state()) state[slot.name] = slot.tensor;
    for (const Parameter& p : store.records()) {
        collect(computed, *context.engine, "parameter." + case_name(p), p, [&](int64_t e) { return store.master(p, e); });
        for (const char* slot : {".v_row", ".v_col", ".v", ".m"})
            if (state.contains(p.tensor_name(0) + slot))
                collect(computed, *context.engine, "state." + case_name(p) + slot, p, [&](int64_t e) { return state.at(p.tensor_name(e) + slot); });
    }
    return computed;
}

}  // namespace flanmoe::cli

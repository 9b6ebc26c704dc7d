#include "optim/optimizer.hpp"

#include "ops/elementwise.hpp"

#include <cmath>

namespace flanmoe {

Tensor Optimizer::slot(const std::string& name, DType type, Shape shape) {
    const int64_t bytes = shape.elements() * size_of(type);
    memory_.emplace_back(*engine_, bytes);
    if (!memory_.back().data()) fail(Exit::out_of_memory, "out of memory: the optimizer's state needs {} bytes for {}; choose a smaller model", bytes, name);
    const Tensor t(memory_.back().data(), type, shape);
    state_.emplace_back(name, t);
    return t;
}

std::vector<std::pair<std::string, Shape>> optimizer_slots(const OptimizerConfig& config, const Parameter& p) {
    if (p.frozen) return {};
    if (config.kind == OptimizerKind::adamw) return {{".m", p.shape}, {".v", p.shape}};
    if (!config.factored || !ops::adafactor_factors(p.shape, config.min_factored)) return {{".v", p.shape}};
    return {{".v_row", {std::min(p.shape[0], p.shape[1])}}, {".v_col", {std::max(p.shape[0], p.shape[1])}}};
}

Optimizer::Optimizer(const OptimizerConfig& config, const ParameterStore& store) : config_(config), engine_(&store.engine()) {
    const DType type = store.master_type();
    for (const Parameter& p : store.records()) {
        if (p.frozen) continue;
        for (int64_t e = 0; e < p.tensors(); ++e) {
            std::vector<Tensor> slots;
            for (const auto& [suffix, shape] : optimizer_slots(config, p)) slots.push_back(slot(p.tensor_name(e) + suffix, type, shape));
            const Tensor parameter = store.master(p, e), gradient = store.gradient(p, e);
            if (config.kind == OptimizerKind::adamw)
                adamw_.push_back({parameter, gradient, slots[0], slots[1], config.decay_vectors || p.shape.rank > 1});
            else if (slots.size() == 2)
                adafactor_.push_back({parameter, gradient, slots[0], slots[1], {}});
            else
                adafactor_.push_back({parameter, gradient, {}, {}, slots[0]});
        }
    }
}

void Optimizer::update(Context& context, int64_t step, double rate, double gradient_scale, const Tensor& squared_norm, double clip) {
    auto part = context.part("optimizer");
    if (config_.kind == OptimizerKind::adamw) {
        ops::adamw(context, adamw_, {rate, config_.beta1, config_.beta2, config_.epsilon, config_.weight_decay, step, gradient_scale, squared_norm, clip});
        return;
    }
    ops::AdafactorSettings settings;
    settings.rate = rate;
    settings.decay = 1.0 - std::pow(static_cast<double>(step + 1), -config_.decay_exponent);
    settings.epsilon = config_.squared_epsilon;
    settings.clipping_threshold = config_.clipping_threshold;
    settings.minimum_scale = config_.minimum_scale;
    settings.scale_by_parameter = config_.scale_by_parameter;
    settings.gradient_scale = gradient_scale, settings.squared_norm = squared_norm, settings.clip = clip;
    ops::adafactor(context, adafactor_, settings);
}

void Optimizer::reset() {
    for (const auto& [name, t] : state_) engine_->zero(t.data, t.bytes());
}

void gradient_squares(Context& context, const ParameterStore& store, const Tensor& sum) {
    bool any_frozen = false;
    for (const Parameter& p : store.records()) any_frozen |= p.frozen;
    if (!any_frozen) ops::sum_of_squares(context, store.flat_gradient(), sum);  // the gaps between groups are zero
    for (const Parameter& p : store.records())
        for (int64_t e = 0; any_frozen && !p.frozen && e < p.tensors(); ++e) ops::sum_of_squares(context, store.gradient(p, e), sum);
}

double gradient_norm(Context& context, const ParameterStore& store) {
    auto part = context.part("gradient norm");
    Arena::Scope scope(context.arena);
    const Tensor sum = context.zeros(DType::f64, {1});
    gradient_squares(context, store, sum);
    return std::sqrt(context.download<double>(sum)[0]);
}

}  // namespace flanmoe

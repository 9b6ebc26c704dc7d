#include "optim/optimizer.hpp"

#include "ops/elementwise.hpp"

#include <cmath>

namespace flanmoe {

Tensor Optimizer::slot(const std::string& name, DType type, Shape shape) {
    const int64_t bytes = shape.elements() * size_of(type);
    memory_.emplace_back(*engine_, bytes);
    if (!memory_.back().data()) fail(Exit::out_of_memory, "out of memory: the optimizer's state needs {} bytes for {}; choose a smaller model", bytes, name);
    return Tensor(memory_.back().data(), type, shape);
}

std::vector<StateSlot> optimizer_slots(const OptimizerConfig& config, const Parameter& p) {
    if (p.frozen) return {};
    if (config.kind == OptimizerKind::adamw) return {{".m", p.shape, p.split}, {".v", p.shape, p.split}};
    if (!config.factored || !ops::adafactor_factors(p.shape, config.min_factored)) return {{".v", p.shape, p.split}};
    // A vector along one dimension, which tensor ranks share if that is the one of the matrix that they do.
    const int smaller = p.shape[0] <= p.shape[1] ? 0 : 1;
    const auto along = [&](const char* suffix, int dimension) {
        return StateSlot{suffix, {p.shape[dimension]}, p.split == (dimension == 0 ? Split::rows : Split::columns) ? Split::rows : Split::none};
    };
    return {along(".v_row", smaller), along(".v_col", 1 - smaller)};
}

void Optimizer::add_tensor(const ParameterStore& store, const Parameter& p, int64_t tensor, const std::vector<Tensor>& slots) {
    const Tensor parameter = store.master(p, tensor), gradient = store.gradient(p, tensor);
    if (config_.kind == OptimizerKind::adamw) {
        adamw_.push_back({parameter, gradient, slots[0], slots[1], config_.decay_vectors || p.shape.rank > 1});
        return;
    }
    ops::AdafactorTensor t{parameter, gradient, {}, {}, {}};
    (slots.size() == 2 ? t.v_row : t.v) = slots[0];
    if (slots.size() == 2) t.v_col = slots[1];
    if (p.is_split()) t.shared = p.split == Split::rows ? 0 : p.shape.rank - 1, t.whole = p.shape[t.shared];
    adafactor_.push_back(t);
}

Optimizer::Optimizer(const OptimizerConfig& config, const ParameterStore& store) : config_(config), engine_(&store.engine()), mesh_(&store.mesh()), weights_(store) {
    const DType type = store.master_type();
    for (const Parameter& p : store.records()) {
        if (p.frozen) continue;
        for (int64_t e = 0; e < p.tensors(); ++e) {
            const int64_t tensor = e - p.first_expert;
            const bool here = tensor >= 0 && tensor < p.part_tensors() && store.updates(p, tensor);
            std::vector<Tensor> slots;
            for (const StateSlot& of : optimizer_slots(config, p)) {
                const std::string name = p.tensor_name(e) + of.suffix;
                const Slice slice = slice_of(*mesh_, p, e, of.shape, of.split, p.owners);
                int64_t first = 0;
                if (here) slots.push_back(slot(name, type, part_of(of.shape, of.split, mesh_->tensor_index(), mesh_->shape().tensor, first)));
                state_.push_back({name, here ? slots.back() : Tensor(), slice});
            }
            if (here) add_tensor(store, p, tensor, slots);
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
    settings.add_parts = [&](const Tensor& sums) { mesh_->tensor().all_reduce(context, sums); };
    ops::adafactor(context, adafactor_, settings);
}

void Optimizer::reset() {
    for (const NamedTensor& t : state_)
        if (t.tensor) engine_->zero(t.tensor.data, t.tensor.bytes());
}

void gradient_squares(Context& context, const ParameterStore& store, const Tensor& sum) {
    const Mesh& mesh = store.mesh();
    bool any_frozen = false;
    for (const Parameter& p : store.records()) any_frozen |= p.frozen;
    if (mesh.shape().expert == 1 && mesh.shape().tensor == 1 && !any_frozen && !store.is_sharded())
        return ops::sum_of_squares(context, store.flat_gradient(), sum);  // the gaps between groups are zero
    // Of those that have the same elements the owner counts them, or the first rank of each axis.
    const auto counts = [&](const Parameter& p, int64_t tensor) {
        const bool first = store.is_sharded() ? store.ranks_of(p).rank() == 0 : p.experts > 0 || mesh.expert_index() == 0;
        const bool here = !p.frozen && (p.is_split() || mesh.tensor_index() == 0) && (p.owners.empty() ? first : store.updates(p, tensor));
        return here ? std::optional(0) : std::nullopt;
    };
    for (const FlatRun& run : flat_runs(store, store.flat_gradient().elements(), counts)) ops::sum_of_squares(context, store.gradients(run.first, run.elements), sum);
    mesh.tensor().all_reduce(context, sum);
    (store.is_sharded() ? mesh.replicas() : mesh.expert()).all_reduce(context, sum);
}

double gradient_norm(Context& context, const ParameterStore& store) {
    auto part = context.part("gradient norm");
    Arena::Scope scope(context.arena);
    const Tensor sum = context.zeros(DType::f64, {1});
    gradient_squares(context, store, sum);
    return std::sqrt(context.download<double>(sum)[0]);
}

}  // namespace flanmoe

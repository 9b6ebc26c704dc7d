// Kind training: several optimizer steps, each cut into micro-batches, through the step and the optimizer of training.
#include "cli/parity/case_model.hpp"
#include "optim/optimizer.hpp"

#include <cstring>
#include <memory>
#include <numeric>

namespace flanmoe::cli {

namespace {

OptimizerConfig optimizer_of(const ParityCase& given) {
    const nlohmann::json& json = given.json;
    OptimizerConfig config;
    config.learning_rate = json.at("learning_rate").get<double>();
    const std::string name = json.at("optimizer").get<std::string>();
    if (name == "adamw") {
        config.kind = OptimizerKind::adamw;
        config.beta1 = json.at("betas").at(0).get<double>(), config.beta2 = json.at("betas").at(1).get<double>();
        config.epsilon = json.at("epsilon").get<double>();
        config.weight_decay = json.at("weight_decay").get<double>(), config.decay_vectors = true;
    } else if (name != "adafactor") {
        given.malformed(fmt::format("there is no optimizer \"{}\"", name));
    }
    return config;
}

HostTensor curve(const std::vector<double>& values, DType type) {
    HostTensor t(type, {static_cast<int64_t>(values.size())});
    for (size_t i = 0; i < values.size(); ++i) {
        if (type == DType::f64) t.as<double>()[i] = values[i];
        else t.as<float>()[i] = static_cast<float>(values[i]);
    }
    return t;
}

/// This rank's micro-batches: of each, whole routing groups, divided over the ranks as evenly as they can be. May be none.
StepBatch share_of(const ParityCase& given, const StepBatch& batches, int64_t group_rows) {
    if (!given.mesh || given.mesh->replicas().size() == 1) return batches;
    const int64_t rank = given.mesh->replica_index(), ranks = given.mesh->replicas().size();
    StepBatch own;
    for (const Batch& batch : batches) {
        const int64_t groups = batch.rows / group_rows, first = groups * rank / ranks * group_rows, end = groups * (rank + 1) / ranks * group_rows;
        if (end > first) own.push_back(rows_of(batch, first, end - first)), own.back().first_row = batch.first_row + first;
    }
    return own;
}

}  // namespace

Computed compute_training(const ParityCase& given) {
    DeviceContext context(given.device);
    const auto model = load_case_model(given, context, true, given.mesh ? *given.mesh : one_rank());
    ParameterStore& store = model->parameters();
    const OptimizerConfig config = optimizer_of(given);
    Optimizer optimizer(config, store);
    const nlohmann::json clip = given.json.value("gradient_clip", nlohmann::json());
    const int64_t steps = given.json.at("steps").get<int64_t>(), rows = given.json.at("micro_batch_rows").get<int64_t>();
    if (rows < 1 || steps < 1) given.malformed("steps and micro_batch_rows must be at least 1");
    // A routing group that is the whole batch cannot be cut.
    const bool whole = model->config().encoder_routing.group_rows == 0 || model->config().decoder_routing.group_rows == 0;
    const int64_t group_rows = model->config().experts ? std::lcm(model->config().encoder_routing.group_rows, model->config().decoder_routing.group_rows) : 1;
    if (given.mesh && whole && model->config().experts) given.malformed("its routing groups are whole batches, which several ranks cannot divide; run it on one");
    GradientSync sync(store);
    std::vector<double> losses, norms;
    for (int64_t step = 0; step < steps; ++step) {
        const Batch all = case_batch(given, model->config(), fmt::format(".{}", step));
        StepBatch batches;
        const int64_t piece = whole && model->config().experts ? all.rows : rows;
        for (int64_t first = 0; first < all.rows; first += piece) batches.push_back(rows_of(all, first, std::min(piece, all.rows - first)));
        const StepGradients gradients = compute_gradients(context, *model, share_of(given, batches, group_rows), loss_of(given), 0, step, false, Recompute::none, &sync);
        apply_gradients(context, *model, optimizer, gradients, clip.is_number() ? clip.get<double>() : 0, step, config.learning_rate);
        losses.push_back(gradients.loss), norms.push_back(gradients.gradient_norm);
    }
    Computed computed;
    computed.tensors["loss"] = curve(losses, store.master_type());
    computed.tensors["gradient_norm"] = curve(norms, store.master_type());
    const HfLayout layout = case_layout(given);
    for (const Parameter& p : store.records()) {
        for (int64_t e = 0; e < p.tensors(); ++e) {
            computed.tensors["parameter." + name_in_layout(p.tensor_name(e), layout)] = to_host(store.engine(), store.master(p, e));
        }
    }
    return computed;
}

}  // namespace flanmoe::cli

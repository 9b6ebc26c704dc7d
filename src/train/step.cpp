#include "train/step.hpp"

#include <cmath>

namespace flanmoe {

bool StepGradients::finite() const {
    return std::isfinite(loss) && gradient_norm < ops::largest_gradient_norm;
}

TrainingTypes training_types(const TrainConfig& config) {
    if (config.dtype == Precision::f32) return {DType::f32, DType::f32};
    return {DType::bf16, config.forward == Precision::f32 ? DType::f32 : DType::bf16};
}

StepGradients compute_gradients(Context& context, Transformer& model, const StepBatch& batches, const LossCoefficients& coefficients, uint64_t seed, int64_t step,
                                bool dropout) {
    StepGradients result;
    result.scales.balance = coefficients.balance;
    result.scales.router_z = coefficients.router_z;
    result.scales.output_z = coefficients.output_z;
    result.scales.tokens = 0;
    for (const Batch& batch : batches) result.scales.tokens += batch.target_tokens();
    count_groups(model.config(), batches, result.scales);

    {
        auto part = context.part("zero gradients");
        model.parameters().zero_gradients();
    }
    Pass pass{.context = context, .parameters = model.parameters(), .config = model.config(), .training = dropout, .seed = seed, .step = static_cast<uint32_t>(step), .loss = result.scales};
    for (const Batch& batch : batches) result.sums.add(model.train(pass, batch));
    result.loss = result.sums.loss(result.scales);
    result.gradient_norm = gradient_norm(context, model.parameters());
    return result;
}

void apply_gradients(Context& context, Transformer& model, Optimizer& optimizer, const StepGradients& gradients, double clip, int64_t step, double rate) {
    optimizer.update(context, step, rate, ops::clipped_scale(1, gradients.gradient_norm, clip));
    model.update_balance_biases(gradients.sums.routing);
    auto part = context.part("cast weights");
    model.parameters().update_compute();
}

}  // namespace flanmoe

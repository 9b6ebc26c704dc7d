// What a training step tells of itself, kept on the device until the step is over: sums of its micro-batches, its loss, and whether it may reach the weights.
//
// A report is one vector of doubles: of the output layer LinearCrossEntropyArgs::sums [4], then of every sparse layer RouteArgs::statistics, load [E] and
// demand [E]. Micro-batches are added in order, so a step's figures do not depend on the device or on when the host looks.
//   loss = nll / tokens + output_z * z / tokens + balance * (mean over sparse layers of the mean over groups) + router_z * (the same)
//   accepted: loss is finite and at most `largest_loss`, and the gradient's norm is below largest_gradient_norm (ops/optimizer.hpp)
#pragma once

#include "core/context.hpp"
#include "ops/route.hpp"

#include <span>

namespace flanmoe::ops {

inline constexpr int64_t output_sums = 4, route_sums = static_cast<int64_t>(RouteStatistic::count);

/// total += the parts, one after the other; all f64 and compact, of as many elements together as total.
void add_sums(Context& context, std::span<const Tensor> parts, const Tensor& total);

struct StepVerdictArgs {
    Tensor report;            ///< f64 [output_sums + layers (route_sums + 2 experts)]
    int64_t layers = 0, experts = 0;
    double output_z = 0, balance = 0, router_z = 0;  ///< coefficients of the loss
    Tensor squared_norm;      ///< f64 [1] of the gradients
    Tensor largest_loss;      ///< f64 [1]
    Tensor loss;              ///< out f64 [1]
    Tensor accepted;          ///< out f64 [1]: the squared norm of a step that is accepted, else NaN: what the optimizer takes for squared_norm
};
void step_verdict(Context& context, const StepVerdictArgs& args);

/// Loss-free balancing: bias_e += rate x sign(mean demand - demand_e), unless accepted is NaN.
struct BalanceBiasArgs {
    Tensor bias;      ///< [E], f32 or f64
    Tensor demand;    ///< f64 [E], over the whole step
    double rate = 0;
    Tensor accepted;  ///< f64 [1]
};
void balance_bias(Context& context, const BalanceBiasArgs& args);

// The formulas, for both devices.

/// Mean over sparse layers of a statistic's mean over groups.
constexpr double mean_over_layers(const double* report, int64_t layers, int64_t experts, RouteStatistic statistic) {
    double sum = 0;
    for (int64_t i = 0; i < layers; ++i) {
        const double* const layer = report + output_sums + i * (route_sums + 2 * experts);
        const double groups = layer[static_cast<int64_t>(RouteStatistic::groups)];
        if (groups > 0) sum += layer[static_cast<int64_t>(statistic)] / groups;
    }
    return layers == 0 ? 0 : sum / static_cast<double>(layers);
}
constexpr double step_loss(const double* report, const StepVerdictArgs& args) {
    const double tokens = report[2], cross_entropy = tokens > 0 ? report[0] / tokens : 0, output_z = tokens > 0 ? report[1] / tokens : 0;
    return cross_entropy + args.output_z * output_z + args.balance * mean_over_layers(report, args.layers, args.experts, RouteStatistic::balance) +
           args.router_z * mean_over_layers(report, args.layers, args.experts, RouteStatistic::z);
}

}  // namespace flanmoe::ops

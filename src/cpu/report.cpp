// A step's report on the CPU: see ops/report.hpp.
#include "ops/report.hpp"

#include "ops/optimizer.hpp"

#include <cmath>
#include <limits>

namespace flanmoe::cpu {

void add_sums(Context&, std::span<const Tensor> parts, const Tensor& total) {
    double* sum = total.as<double>();
    for (const Tensor& part : parts)
        for (int64_t i = 0; i < part.elements(); ++i) *sum++ += part.as<double>()[i];
}

void step_verdict(Context&, const ops::StepVerdictArgs& args) {
    const double loss = ops::step_loss(args.report.as<double>(), args), squares = *args.squared_norm.as<double>();
    const bool accepted = std::isfinite(loss) && loss <= *args.largest_loss.as<double>() && std::sqrt(squares) < ops::largest_gradient_norm;
    *args.loss.as<double>() = loss;
    *args.accepted.as<double>() = accepted ? squares : std::numeric_limits<double>::quiet_NaN();
}

namespace {

template <class T>
void move_bias(const ops::BalanceBiasArgs& args) {
    const int64_t experts = args.demand.elements();
    const double* const demand = args.demand.as<double>();
    double mean = 0;
    for (int64_t e = 0; e < experts; ++e) mean += demand[e] / static_cast<double>(experts);
    for (int64_t e = 0; e < experts; ++e) args.bias.as<T>()[e] += static_cast<T>(args.rate * static_cast<double>((demand[e] < mean) - (demand[e] > mean)));
}

}  // namespace

void balance_bias(Context&, const ops::BalanceBiasArgs& args) {
    if (std::isnan(*args.accepted.as<double>())) return;
    args.bias.dtype == DType::f64 ? move_bias<double>(args) : move_bias<float>(args);
}

}  // namespace flanmoe::cpu

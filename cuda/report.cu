// A step's report (ops/report.hpp): three small kernels, so that the host need not look at a step before it is over.
//
// add_sums: up to 32 parts a launch, their addresses among the parameters; an element is added by one thread. step_verdict: one thread, a few hundred additions in
// double for models of dozens of sparse layers. balance_bias: one block; every thread adds up the mean in the same order as the CPU.
// Bound by their launches: 2 us each. Not yet measured on hardware.
#include "ops/report.hpp"

#include "device.cuh"
#include "launch.hpp"
#include "ops/optimizer.hpp"

namespace flanmoe::cuda {

namespace {

constexpr int threads = 128, most_parts = 32;

struct Parts {
    const double* values[most_parts];
    int64_t elements[most_parts];
    int count;
};

/// A block a part.
__global__ void __launch_bounds__(threads) add_sums_kernel(Parts parts, double* total) {
    const int part = static_cast<int>(blockIdx.x);
    for (int i = 0; i < part; ++i) total += parts.elements[i];
    for (int64_t i = threadIdx.x; i < parts.elements[part]; i += threads) total[i] += parts.values[part][i];
}

struct Verdict {
    ops::StepVerdictArgs args;  // coefficients and counts
    const double *report, *squared_norm, *largest_loss;
    double *loss, *accepted;
};

__global__ void step_verdict_kernel(Verdict verdict) {
    const double loss = ops::step_loss(verdict.report, verdict.args), squares = *verdict.squared_norm;
    const bool finite = fabs(loss) <= std::numeric_limits<double>::max();  // NaN is not
    const bool accepted = finite && loss <= *verdict.largest_loss && sqrt(squares) < ops::largest_gradient_norm;
    *verdict.loss = loss;
    *verdict.accepted = accepted ? squares : std::numeric_limits<double>::quiet_NaN();
}

__global__ void __launch_bounds__(threads) balance_bias_kernel(float* bias, const double* demand, int64_t experts, double rate, const double* accepted) {
    if (*accepted != *accepted) return;
    double mean = 0;
    for (int64_t e = 0; e < experts; ++e) mean += demand[e] / static_cast<double>(experts);
    for (int64_t e = threadIdx.x; e < experts; e += threads) bias[e] += static_cast<float>(rate * static_cast<double>((demand[e] < mean) - (demand[e] > mean)));
}

}  // namespace

void add_sums(Context& context, std::span<const Tensor> parts, const Tensor& total) {
    double* sum = total.as<double>();
    for (size_t first = 0; first < parts.size(); first += most_parts) {
        Parts some{};
        int64_t elements = 0;
        for (const Tensor& part : parts.subspan(first, std::min<size_t>(most_parts, parts.size() - first))) {
            some.values[some.count] = part.as<double>(), some.elements[some.count++] = part.elements();
            elements += part.elements();
        }
        launch(context, "add_sums", add_sums_kernel, static_cast<unsigned>(some.count), threads, 0, some, sum);
        sum += elements;
    }
}

void step_verdict(Context& context, const ops::StepVerdictArgs& args) {
    const Verdict verdict{args, args.report.as<double>(), args.squared_norm.as<double>(), args.largest_loss.as<double>(), args.loss.as<double>(), args.accepted.as<double>()};
    launch(context, "step_verdict", step_verdict_kernel, 1, 1, 0, verdict);
}

void balance_bias(Context& context, const ops::BalanceBiasArgs& args) {
    launch(context, "balance_bias", balance_bias_kernel, 1, threads, 0, args.bias.as<float>(), args.demand.as<double>(), args.demand.elements(), args.rate, args.accepted.as<double>());
}

}  // namespace flanmoe::cuda

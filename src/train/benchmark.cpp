#include "train/benchmark.hpp"

#include "core/parallel.hpp"
#include "core/random.hpp"
#include "model/flops.hpp"
#include "ops/elementwise.hpp"
#include "ops/engine.hpp"
#include "ops/matmul.hpp"
#include "optim/freezing.hpp"
#include "train/memory.hpp"
#include "train/step.hpp"

#include <sys/resource.h>

#include <algorithm>
#include <chrono>

namespace flanmoe {

namespace {

using Clock = std::chrono::steady_clock;
double since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

Batch random_tokens(const Config& config, int64_t rows, int64_t source, int64_t target, int64_t first_row) {
    RandomStream random({1, 0, 0, Purpose::shuffle});
    Batch b;
    b.rows = rows, b.encoder_length = source, b.decoder_length = target, b.first_row = first_row;
    const auto ids = [&](int64_t count) {
        std::vector<int32_t> v(static_cast<size_t>(count));
        for (int32_t& id : v) id = 2 + static_cast<int32_t>(random.below(static_cast<uint64_t>(std::max<int64_t>(1, config.model.vocab_size - 2))));
        return v;
    };
    b.encoder_ids = ids(rows * source), b.encoder_segments.assign(static_cast<size_t>(rows * source), 1);
    b.decoder_ids = ids(rows * target), b.decoder_segments.assign(static_cast<size_t>(rows * target), 1);
    b.decoder_targets = ids(rows * target);
    return b;
}

}  // namespace

double matmul_rate(Context& context, DType type, int64_t n, int repetitions) {
    Arena::Scope scope(context.arena);
    const Tensor a = context.allocate(type, {n, n}), b = context.allocate(type, {n, n}), c = context.allocate(type, {n, n});
    RandomStream random({2, 0, 0, Purpose::shuffle});
    std::vector<float> values(static_cast<size_t>(n * n));
    for (const Tensor& t : {a, b}) {
        for (float& x : values) x = static_cast<float>(random.uniform()) - 0.5f;
        ops::cast(context, context.upload(values, {n, n}), t);
    }
    double best = 0;
    for (int i = 0; i < repetitions; ++i) {
        const auto start = Clock::now();
        ops::matmul(context, {.a = a, .b = b, .out = c});
        context.engine->synchronize();
        best = std::max(best, 2.0 * static_cast<double>(n) * static_cast<double>(n) * static_cast<double>(n) / since(start));
    }
    return best;
}

double peak_resident_bytes() {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return static_cast<double>(usage.ru_maxrss) * 1024.0;
}

std::string Workload::text() const {
    return fmt::format("{}{} on {}, {} threads, {} x ({} + {}) tokens a step", dtype, forward == dtype ? "" : " with a forward in " + forward, device, threads, rows, source, target);
}

std::string Workload::json() const {
    return fmt::format("\"device\": \"{}\", \"dtype\": \"{}\", \"forward\": \"{}\", \"threads\": {}, \"rows\": {}, \"source\": {}, \"target\": {}", device, dtype, forward, threads, rows,
                       source, target);
}

StepTimes times_of(std::vector<double> seconds) {
    std::sort(seconds.begin(), seconds.end());
    return {seconds[seconds.size() / 2], seconds.front(), seconds.back()};
}

BenchmarkRig::BenchmarkRig(Context& context, const Config& config, const BenchmarkSettings& settings) : context_(context), config_(config), model_(config.model) {
    const TrainingTypes types = training_types(config.train);
    const int64_t rows = config.data.batch_rows, micro = config.data.micro_batch_rows ? std::min(config.data.micro_batch_rows, rows) : rows;
    const int64_t source = settings.source ? settings.source : config.data.encoder_length, target = settings.target ? settings.target : target_length(config.data, source);
    work_ = {name_of(context.device), name_of(types.compute), name_of(types.forward), omp_get_max_threads(), rows, source, target};
    ParameterStore& parameters = model_.parameters();
    freeze_parameters(parameters, config.train.freeze);
    need_ = memory_of_training(config, model_, {micro, source, target});
    check_memory(need_, parameters.parameter_count(), *context.engine);
    parameters.allocate(types.compute, true, types.forward, context);
    parameters.initialise(static_cast<uint64_t>(config.train.seed));
    optimizer_ = std::make_unique<Optimizer>(config.optimizer, parameters);
    training_step_ = std::make_unique<TrainingStep>(context, model_, *optimizer_, config.train.cuda_graph);
    for (int64_t row = 0; row < rows; row += micro) batches_.push_back(random_tokens(config, std::min(micro, rows - row), source, target, row));
}

double BenchmarkRig::step() {
    const auto start = Clock::now();
    loss_ = training_step_->run(batches_, {.coefficients = {config_.train.balance_loss, config_.train.router_z_loss, config_.train.output_z_loss},
                                           .seed = 1,
                                           .step = steps_,
                                           .update = steps_,
                                           .rate = 1e-4,
                                           .clip = config_.train.gradient_clip,
                                           .recompute = config_.train.recompute})
                .loss;
    ++steps_;
    return since(start);
}

BenchmarkResult run_benchmark(const Config& config, const BenchmarkSettings& settings) {
    DeviceContext context(config.train.device);
    BenchmarkRig rig(context, config, settings);
    BenchmarkResult result;
    const Workload& work = result.work = rig.work();
    result.parameters = rig.model().parameters().parameter_count();

    PartTimer timer;
    std::vector<double> seconds;
    for (int64_t step = 0; step < settings.warmup; ++step) rig.step();
    const auto measure_parts = [&](bool on) { context.timer = on ? &timer : nullptr; };
    measure_parts(!context.engine->records());  // a recorded step has no parts: they are measured in steps of their own
    for (int64_t step = 0; step < settings.steps; ++step) seconds.push_back(rig.step());
    if (!context.timer) {
        measure_parts(true);
        for (int64_t step = 0; step < settings.steps; ++step) rig.step();
    }
    timer.collect(*context.engine);
    result.loss = rig.loss();
    result.step = times_of(seconds);
    result.tokens_per_second = static_cast<double>(work.rows * (work.source + work.target)) / result.step.median;
    result.flops_per_second = 3 * forward_flops(config.model, {work.rows, work.source, work.target}) / result.step.median;
    for (const auto& entry : timer.entries()) result.parts.emplace_back(entry.name, 1e3 * entry.seconds / static_cast<double>(settings.steps));
    std::sort(result.parts.begin(), result.parts.end(), [](const auto& a, const auto& b) { return a.second > b.second; });
    result.peak_bytes = peak_resident_bytes();
    result.matmul_flops_per_second = matmul_rate(context, training_types(config.train).compute, settings.matmul_size);
    return result;
}

std::string to_json(const BenchmarkResult& r) {
    std::string parts;
    for (const auto& [name, ms] : r.parts) parts += fmt::format("{}\"{}\": {:.3f}", parts.empty() ? "" : ", ", name, ms);
    return fmt::format("{{{}, \"parameters\": {}, \"milliseconds\": {:.3f}, \"spread\": [{:.3f}, {:.3f}], \"tokens_per_second\": {:.1f}, \"flops_per_second\": {:.4e}, "
                       "\"matmul_flops_per_second\": {:.4e}, \"share_of_matmul\": {:.4f}, \"peak_megabytes\": {:.1f}, \"loss\": {:.4f}, \"parts\": {{{}}}}}",
                       r.work.json(), r.parameters, 1e3 * r.step.median, 1e3 * r.step.fastest, 1e3 * r.step.slowest, r.tokens_per_second, r.flops_per_second, r.matmul_flops_per_second,
                       r.flops_per_second / r.matmul_flops_per_second, r.peak_bytes / 1e6, r.loss, parts);
}

std::string to_table(const BenchmarkResult& r) {
    std::string text = fmt::format("{} parameters, {}\n", r.parameters, r.work.text());
    text += fmt::format("  step            {:10.2f} ms   ({:.2f} to {:.2f})\n", 1e3 * r.step.median, 1e3 * r.step.fastest, 1e3 * r.step.slowest);
    text += fmt::format("  throughput      {:10.0f} tokens/s\n", r.tokens_per_second);
    text += fmt::format("  model rate      {:10.1f} GFLOP/s, {:.1f} % of the matrix-product rate of this run ({:.1f} GFLOP/s)\n", r.flops_per_second / 1e9,
                        100 * r.flops_per_second / r.matmul_flops_per_second, r.matmul_flops_per_second / 1e9);
    text += fmt::format("  peak memory     {:10.0f} MB{}\n", r.peak_bytes / 1e6, r.work.device == "cuda" ? " of the host" : "");
    double known = 0;
    for (const auto& [name, ms] : r.parts) {
        text += fmt::format("    {:<24} {:9.2f} ms  {:5.1f} %\n", name, ms, ms / (10 * r.step.median));
        known += ms;
    }
    return text + fmt::format("    {:<24} {:9.2f} ms  {:5.1f} %\n", "everything else", std::max(0.0, 1e3 * r.step.median - known), std::max(0.0, 100 - known / (10 * r.step.median)));
}

}  // namespace flanmoe

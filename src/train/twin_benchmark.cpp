#include "train/twin_benchmark.hpp"

#include "config/dense_twin.hpp"
#include "core/parallel.hpp"
#include "ops/engine.hpp"
#include "train/step.hpp"

#include <algorithm>
#include <chrono>

namespace flanmoe {

namespace {

double bytes_of(BenchmarkRig& rig) {
    const ParameterStore& store = rig.model().parameters();
    const int64_t copy = store.compute_type() == store.master_type() ? 0 : size_of(store.compute_type());
    double bytes = static_cast<double>(store.parameter_count() * (2 * size_of(store.master_type()) + copy));
    for (const auto& [name, slot] : rig.optimizer().state()) bytes += static_cast<double>(slot.bytes());
    return bytes;
}

double median_of(std::vector<double> seconds, double (&spread)[2]) {
    std::sort(seconds.begin(), seconds.end());
    spread[0] = seconds.front(), spread[1] = seconds.back();
    return seconds[seconds.size() / 2];
}

}  // namespace

double copy_bandwidth(Context& context, int64_t bytes) {
    Arena::Scope scope(context.arena);
    const Tensor from = context.zeros(DType::u8, {bytes}), to = context.zeros(DType::u8, {bytes});
    constexpr int64_t piece = 1 << 20;  // many pieces, so that all threads copy
    double best = 0;
    for (int i = 0; i < 8; ++i) {
        const auto start = std::chrono::steady_clock::now();
        context.engine->copy_rows(to.data, piece, from.data, piece, piece, bytes / piece);
        context.engine->synchronize();
        best = std::max(best, static_cast<double>(bytes) / std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    }
    return best;
}

TwinResult run_twin_benchmark(const Config& config, const BenchmarkSettings& settings) {
    if (config.model.experts > 0 && !config.train.freeze.empty()) fail(Exit::usage, "a sparse model and its dense twin have not the same parts to freeze; leave out train.freeze");
    if (config.model.experts == 0) fail(Exit::usage, "the config's model is dense and its own twin; name a sparse one (moe.experts, without moe.dense_twin)");
    const std::unique_ptr<Engine> engine = open_engine(config.train.device);
    Context context(config.train.device, *engine);
    Config dense = config;
    dense.model = dense_twin(config.model).model;
    BenchmarkRig sparse_rig(context, config, settings), dense_rig(context, dense, settings);
    TwinResult result;
    result.experts = config.model.experts;
    result.device = config.train.device == Device::cuda ? "cuda" : "cpu";
    const TrainingTypes types = training_types(config.train);
    result.dtype = name_of(types.compute), result.forward = name_of(types.forward);
    result.threads = omp_get_max_threads(), result.rows = config.data.batch_rows, result.steps = settings.steps;
    result.source = sparse_rig.source(), result.target = sparse_rig.target();
    std::vector<double> sparse_seconds, dense_seconds;
    for (int64_t step = 0; step < settings.warmup + settings.steps; ++step) {
        const double of_sparse = sparse_rig.step(), of_dense = dense_rig.step();
        if (step >= settings.warmup) sparse_seconds.push_back(of_sparse), dense_seconds.push_back(of_dense);
    }
    result.sparse_seconds = median_of(sparse_seconds, result.sparse_spread), result.dense_seconds = median_of(dense_seconds, result.dense_spread);
    result.extra_bytes = bytes_of(sparse_rig) - bytes_of(dense_rig);
    result.copy_bandwidth = copy_bandwidth(context);
    return result;
}

std::string to_json(const TwinResult& r) {
    return fmt::format("{{\"device\": \"{}\", \"dtype\": \"{}\", \"forward\": \"{}\", \"threads\": {}, \"experts\": {}, \"rows\": {}, \"source\": {}, \"target\": {}, \"steps\": {}, \"sparse_milliseconds\": {:.3f}, \"sparse_spread\": [{:.3f}, {:.3f}], \"dense_milliseconds\": {:.3f}, \"dense_spread\": [{:.3f}, {:.3f}], "
                       "\"extra_bytes\": {:.0f}, \"copy_bytes_per_second\": {:.4e}, \"bound_milliseconds\": {:.3f}, \"ratio\": {:.4f}}}",
                       r.device, r.dtype, r.forward, r.threads, r.experts, r.rows, r.source, r.target, r.steps, 1e3 * r.sparse_seconds, 1e3 * r.sparse_spread[0], 1e3 * r.sparse_spread[1], 1e3 * r.dense_seconds, 1e3 * r.dense_spread[0], 1e3 * r.dense_spread[1], r.extra_bytes,
                       r.copy_bandwidth, 1e3 * r.bound(), r.ratio());
}

std::string to_table(const TwinResult& r) {
    std::string text = fmt::format("{}{} on {}, {} threads, {} experts and their dense twin, {} x ({} + {}) tokens a step, {} steps of each in turn\n", r.dtype, r.forward == r.dtype ? "" : " with a forward in " + r.forward,
                                   r.device, r.threads, r.experts, r.rows, r.source, r.target, r.steps);
    text += fmt::format("  sparse step     {:10.2f} ms   ({:.2f} to {:.2f})\n", 1e3 * r.sparse_seconds, 1e3 * r.sparse_spread[0], 1e3 * r.sparse_spread[1]);
    text += fmt::format("  dense step      {:10.2f} ms   ({:.2f} to {:.2f})\n", 1e3 * r.dense_seconds, 1e3 * r.dense_spread[0], 1e3 * r.dense_spread[1]);
    text += fmt::format("  extra bytes     {:10.1f} MB at {:.2f} GB/s copied: {:.2f} ms\n", r.extra_bytes / 1e6, r.copy_bandwidth / 1e9, 1e3 * r.extra_bytes / r.copy_bandwidth);
    return text + fmt::format("  sparse over dense and extra bytes: {:.3f}\n", r.ratio());
}

}  // namespace flanmoe

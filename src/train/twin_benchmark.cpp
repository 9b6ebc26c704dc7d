#include "train/twin_benchmark.hpp"

#include "config/dense_twin.hpp"
#include "ops/engine.hpp"

#include <algorithm>
#include <chrono>

namespace flanmoe {

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
    if (config.model.experts == 0) fail(Exit::usage, "the config's model is dense and its own twin; name a sparse one (moe.experts, without moe.dense_twin)");
    if (!config.train.freeze.empty()) fail(Exit::usage, "a sparse model and its dense twin have not the same parts to freeze; leave out train.freeze");
    DeviceContext context(config.train.device);
    Config dense = config;
    dense.model = dense_twin(config.model).model;
    BenchmarkRig sparse_rig(context, config, settings), dense_rig(context, dense, settings);
    std::vector<double> sparse_seconds, dense_seconds;
    for (int64_t step = 0; step < settings.warmup + settings.steps; ++step) {
        const double of_sparse = sparse_rig.step(), of_dense = dense_rig.step();
        if (step >= settings.warmup) sparse_seconds.push_back(of_sparse), dense_seconds.push_back(of_dense);
    }
    const auto state_bytes = [](const MemoryNeed& need) { return static_cast<double>(need.total() - need.activations); };
    TwinResult result{sparse_rig.work(), config.model.experts, settings.steps, times_of(sparse_seconds), times_of(dense_seconds)};
    result.extra_bytes = state_bytes(sparse_rig.need()) - state_bytes(dense_rig.need());
    result.copy_bandwidth = copy_bandwidth(context);
    return result;
}

std::string to_json(const TwinResult& r) {
    return fmt::format("{{{}, \"experts\": {}, \"steps\": {}, \"sparse_milliseconds\": {:.3f}, \"sparse_spread\": [{:.3f}, {:.3f}], \"dense_milliseconds\": {:.3f}, \"dense_spread\": [{:.3f}, {:.3f}], "
                       "\"extra_bytes\": {:.0f}, \"copy_bytes_per_second\": {:.4e}, \"bound_milliseconds\": {:.3f}, \"ratio\": {:.4f}}}",
                       r.work.json(), r.experts, r.steps, 1e3 * r.sparse.median, 1e3 * r.sparse.fastest, 1e3 * r.sparse.slowest, 1e3 * r.dense.median, 1e3 * r.dense.fastest, 1e3 * r.dense.slowest,
                       r.extra_bytes, r.copy_bandwidth, 1e3 * r.bound(), r.ratio());
}

std::string to_table(const TwinResult& r) {
    std::string text = fmt::format("{} experts and their dense twin, {} steps of each in turn, {}\n", r.experts, r.steps, r.work.text());
    text += fmt::format("  sparse step     {:10.2f} ms   ({:.2f} to {:.2f})\n", 1e3 * r.sparse.median, 1e3 * r.sparse.fastest, 1e3 * r.sparse.slowest);
    text += fmt::format("  dense step      {:10.2f} ms   ({:.2f} to {:.2f})\n", 1e3 * r.dense.median, 1e3 * r.dense.fastest, 1e3 * r.dense.slowest);
    text += fmt::format("  extra bytes     {:10.1f} MB at {:.2f} GB/s copied: {:.2f} ms\n", r.extra_bytes / 1e6, r.copy_bandwidth / 1e9, 1e3 * r.extra_bytes / r.copy_bandwidth);
    return text + fmt::format("  sparse over dense and extra bytes: {:.3f}\n", r.ratio());
}

}  // namespace flanmoe

#include "train/benchmark.hpp"

#include "comm/agreement.hpp"
#include "core/parallel.hpp"
#include "core/random.hpp"
#include "data/rows.hpp"
#include "model/flops.hpp"
#include "ops/elementwise.hpp"
#include "ops/engine.hpp"
#include "ops/matmul.hpp"
#include "optim/freezing.hpp"
#include "train/memory.hpp"
#include "train/plan.hpp"
#include "train/replicas.hpp"
#include "train/step.hpp"

#include <sys/resource.h>

#include <algorithm>
#include <chrono>

namespace flanmoe {

namespace {

using Clock = std::chrono::steady_clock;
double since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// Random tokens that depend on the row's place in the step alone, whoever computes it.
Row random_row(const DataConfig& data, int64_t vocabulary, int64_t place) {
    RandomStream random({1, static_cast<uint32_t>(place), 0, Purpose::shuffle});
    const auto ids = [&](int64_t count) {
        std::vector<int32_t> v(static_cast<size_t>(count));
        for (int32_t& id : v) id = 2 + static_cast<int32_t>(random.below(static_cast<uint64_t>(std::max<int64_t>(1, vocabulary - 2))));
        return v;
    };
    Row row;
    row.encoder_ids = ids(data.encoder_length), row.encoder_segments.assign(row.encoder_ids.size(), 1);
    row.decoder_ids = ids(data.decoder_length), row.decoder_segments.assign(row.decoder_ids.size(), 1);
    row.decoder_targets = ids(data.decoder_length);
    return row;
}

// This rank's rows of a step, cut and padded as the loader does it.
StepBatch random_batches(const Config& config, const Mesh& mesh) {
    const DataConfig& data = config.data;
    const Share share = share_of(config, mesh);
    StepBatch batches;
    for (const Share::Piece& piece : share.pieces(data.batch_rows, data.micro_batch_rows)) {
        std::vector<Row> rows;
        for (int64_t r = 0; r < piece.rows; ++r) rows.push_back(random_row(data, config.model.vocab_size, piece.first + r));
        rows.resize(static_cast<size_t>(share.batch_rows(data.batch_rows, data.micro_batch_rows, batches.size())));
        batches.push_back(make_batch(rows, 0, rows.size(), data.encoder_length, data.decoder_length, data));
        batches.back().first_row = piece.first;
    }
    return batches;
}

// The config with every length and number of rows that a step of the benchmark has.
Config timed(Config config, const BenchmarkSettings& settings) {
    DataConfig& data = config.data;
    if (settings.source) data.encoder_length = settings.source;
    data.decoder_length = settings.target ? settings.target : target_length(data, data.encoder_length);
    data.micro_batch_rows = data.micro_batch_rows ? std::min(data.micro_batch_rows, data.batch_rows) : data.batch_rows;
    return config;
}

struct NamedGroup {
    const char* name;
    Communicator& ranks;
};
std::vector<NamedGroup> groups_of(const Mesh& mesh) { return {{"replicas", mesh.replicas()}, {"data", mesh.data()}, {"expert", mesh.expert()}, {"tensor", mesh.tensor()}}; }

std::vector<double> over_ranks(const Mesh& mesh, const std::vector<double>& values, Reduction reduction) {
    Context host;
    const Tensor all = host.upload(values, {static_cast<int64_t>(values.size())});
    mesh.world().all_reduce(host, all, reduction);
    return host.download<double>(all);
}

// What was sent since the counts were reset, in so many steps.
std::vector<CollectiveTraffic> traffic_of(const Config& config, const Mesh& mesh, int64_t steps) {
    if (mesh.world().size() == 1) return {};
    const RankPlan plan = plan_rank(config, cluster_of("h100", "infiniband-400", mesh.world().size(), mesh.world().size()), mesh.shape(), config.data.micro_batch_rows);
    std::vector<CollectiveTraffic> rows;
    std::vector<double> sent;
    for (const NamedGroup& group : groups_of(mesh)) {
        for (int k = 0; k < collectives; ++k) {
            CollectiveTraffic row{.group = group.name, .ranks = group.ranks.size(), .kind = static_cast<Collective>(k)};
            for (const CollectivePlan& c : plan.collectives)
                if (c.group == row.group && c.kind == row.kind) row.planned += c.bytes;
            sent.push_back(static_cast<double>(group.ranks.traffic(row.kind).bytes));
            rows.push_back(row);
        }
    }
    sent = over_ranks(mesh, sent, Reduction::sum);
    const double each = static_cast<double>(steps) * mesh.world().size();
    for (size_t i = 0; i < rows.size(); ++i) rows[i].bytes = sent[i] / each;
    std::erase_if(rows, [](const CollectiveTraffic& row) { return row.bytes == 0 && row.planned == 0; });
    return rows;
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

BenchmarkRig::BenchmarkRig(Context& context, const Config& config, const BenchmarkSettings& settings, const Mesh& mesh)
    : context_(context), config_(timed(config, settings)), model_(config.model, mesh) {
    const TrainingTypes types = training_types(config.train);
    const DataConfig& data = config_.data;
    if (const std::string objection = objection_to(config_, mesh.shape()); !objection.empty()) fail(Exit::usage, "{}", objection);
    work_ = {name_of(context.device), name_of(types.compute), name_of(types.forward), omp_get_max_threads(), data.batch_rows, data.encoder_length, data.decoder_length};
    ParameterStore& parameters = model_.parameters();
    freeze_parameters(parameters, config.train.freeze);
    if (config.parallel.shard_optimizer) parameters.shard();
    need_ = memory_of_rank(config_, mesh.shape());
    check_memory(need_, parameters.parameter_count(), *context.engine);
    parameters.allocate(types.compute, true, types.forward, context);
    parameters.initialise(static_cast<uint64_t>(config.train.seed));
    optimizer_ = std::make_unique<Optimizer>(config.optimizer, parameters);
    sync_ = std::make_unique<GradientSync>(parameters);
    training_step_ = std::make_unique<TrainingStep>(context, model_, *optimizer_, config.train.cuda_graph, sync_.get());
    batches_ = random_batches(config_, mesh);
}

double BenchmarkRig::step() {
    const auto start = Clock::now();
    StepSettings settings = step_settings(config_);
    settings.step = settings.update = steps_, settings.rate = 1e-4;
    loss_ = training_step_->run(batches_, settings).loss;
    ++steps_;
    return since(start);
}

BenchmarkResult run_benchmark(Context& context, const Config& config, const BenchmarkSettings& settings, const Mesh& mesh) {
    std::unique_ptr<BenchmarkRig> made;
    together(mesh.world(), [&] { made = std::make_unique<BenchmarkRig>(context, config, settings, mesh); });
    BenchmarkRig& rig = *made;
    BenchmarkResult result;
    const Workload& work = result.work = rig.work();
    result.mesh = mesh.shape();
    result.parameters = rig.model().parameters().parameter_count();

    PartTimer timer;
    std::vector<double> seconds;
    for (int64_t step = 0; step < settings.warmup; ++step) rig.step();
    const auto measure_parts = [&](bool on) { context.timer = on ? &timer : nullptr; };
    measure_parts(!context.engine->records());  // a recorded step has no parts: they are measured in steps of their own
    for (const NamedGroup& group : groups_of(mesh)) group.ranks.reset_traffic();
    for (int64_t step = 0; step < settings.steps; ++step) seconds.push_back(rig.step());
    result.collectives = traffic_of(rig.config(), mesh, settings.steps);
    if (!context.timer) {
        measure_parts(true);
        for (int64_t step = 0; step < settings.steps; ++step) rig.step();
    }
    timer.collect(*context.engine);
    measure_parts(false);
    result.loss = rig.loss();
    result.step = times_of(over_ranks(mesh, seconds, Reduction::max));
    result.tokens_per_second = static_cast<double>(work.rows * (work.source + work.target)) / result.step.median;
    result.flops_per_second = 3 * forward_flops(config.model, {work.rows, work.source, work.target}) / result.step.median;
    for (const auto& entry : timer.entries()) result.parts.emplace_back(entry.name, 1e3 * entry.seconds / static_cast<double>(settings.steps));
    std::sort(result.parts.begin(), result.parts.end(), [](const auto& a, const auto& b) { return a.second > b.second; });
    result.peak_bytes = over_ranks(mesh, {peak_resident_bytes()}, Reduction::max)[0];
    result.matmul_flops_per_second = over_ranks(mesh, {matmul_rate(context, training_types(config.train).compute, settings.matmul_size)}, Reduction::sum)[0];
    return result;
}

std::string to_json(const BenchmarkResult& r) {
    std::string parts;
    for (const auto& [name, ms] : r.parts) parts += fmt::format("{}\"{}\": {:.3f}", parts.empty() ? "" : ", ", name, ms);
    std::string ranks;
    if (r.mesh.ranks() > 1) {
        for (const CollectiveTraffic& c : r.collectives)
            ranks += fmt::format("{}{{\"group\": \"{}\", \"ranks\": {}, \"kind\": \"{}\", \"bytes\": {:.1f}, \"planned_bytes\": {:.1f}, \"ratio\": {}}}", ranks.empty() ? "" : ", ", c.group,
                                 c.ranks, name_of(c.kind), c.bytes, c.planned, c.planned > 0 ? fmt::format("{:.5f}", c.bytes / c.planned) : "null");
        ranks = fmt::format(", \"mesh\": {{\"data\": {}, \"expert\": {}, \"tensor\": {}}}, \"collectives\": [{}]", r.mesh.data, r.mesh.expert, r.mesh.tensor, ranks);
    }
    return fmt::format("{{{}, \"ranks\": {}, \"parameters\": {}, \"milliseconds\": {:.3f}, \"spread\": [{:.3f}, {:.3f}], \"tokens_per_second\": {:.1f}, \"flops_per_second\": {:.4e}, "
                       "\"matmul_flops_per_second\": {:.4e}, \"share_of_matmul\": {:.4f}, \"peak_megabytes\": {:.1f}, \"loss\": {:.4f}, \"parts\": {{{}}}{}}}",
                       r.work.json(), r.mesh.ranks(), r.parameters, 1e3 * r.step.median, 1e3 * r.step.fastest, 1e3 * r.step.slowest, r.tokens_per_second, r.flops_per_second, r.matmul_flops_per_second,
                       r.flops_per_second / r.matmul_flops_per_second, r.peak_bytes / 1e6, r.loss, parts, ranks);
}

std::string to_table(const BenchmarkResult& r) {
    std::string text = fmt::format("{} parameters, {}\n", r.parameters, r.work.text());
    if (r.mesh.ranks() > 1) text += fmt::format("  ranks           {:10}      {}\n", r.mesh.ranks(), r.mesh.text());
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
    text += fmt::format("    {:<24} {:9.2f} ms  {:5.1f} %\n", "everything else", std::max(0.0, 1e3 * r.step.median - known), std::max(0.0, 100 - known / (10 * r.step.median)));
    if (r.collectives.empty()) return text;
    text += fmt::format("  {:<26} {:>8} {:>14} {:>14} {:>8}\n", "a rank sends in a step", "of ranks", "bytes", "planned", "ratio");
    for (const CollectiveTraffic& c : r.collectives)
        text += fmt::format("    {:<24} {:>8} {:>14.0f} {:>14} {:>8}\n", fmt::format("{}: {}", c.group, name_of(c.kind)), c.ranks, c.bytes,
                            c.planned > 0 ? fmt::format("{:.0f}", c.planned) : "-", c.planned > 0 ? fmt::format("{:.4f}", c.bytes / c.planned) : "-");
    return text;
}

}  // namespace flanmoe

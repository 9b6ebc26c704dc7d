#include "train/step.hpp"

#include "comm/mesh.hpp"
#include "ops/report.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace flanmoe {

namespace {

StepReport report_in(const Tensor& all) {
    const auto number = [&](int64_t from_end) { return Tensor(all.as<double>() + all.elements() - from_end, DType::f64, {1}); };
    return {all, Tensor(all.data, DType::f64, {all.elements() - 3}), number(3), number(2), number(1)};
}

StepGradients read(const Transformer& model, const StepReport& report, const double* values) {
    const double* const behind = values + report.sums.elements();
    StepGradients step;
    step.sums = model.read_report(values);
    step.gradient_norm = std::sqrt(behind[0]), step.loss = behind[1];
    step.report = report;
    return step;
}

// Target tokens and routing groups are those of the whole step.
LossScales scales_of(const Transformer& model, const StepBatch& batches, const LossCoefficients& coefficients, GradientSync* sync) {
    LossScales scales{.balance = coefficients.balance, .router_z = coefficients.router_z, .output_z = coefficients.output_z, .tokens = 0};
    for (const Batch& batch : batches) scales.tokens += batch.target_tokens();
    count_groups(model.config(), batches, scales);
    if (sync && sync->mesh().replicas().size() > 1) {
        Context host;
        const Tensor sums = host.upload(std::vector<int64_t>{scales.tokens, scales.encoder_groups, scales.decoder_groups}, {3});
        sync->mesh().replicas().all_reduce(host, sums);
        const auto counts = host.download<int64_t>(sums);
        scales.tokens = counts[0], scales.encoder_groups = counts[1], scales.decoder_groups = counts[2];
    }
    scales.encoder_groups = std::max<int64_t>(1, scales.encoder_groups);
    scales.decoder_groups = std::max<int64_t>(1, scales.decoder_groups);
    return scales;
}

void queue_gradients(Pass& pass, const Transformer& model, const std::vector<BatchTensors>& batches, const Tensor& largest_loss, const StepReport& report,
                     GradientSync* sync) {
    Context& context = pass.context;
    {
        auto part = context.part("zero gradients");
        context.engine->zero(report.all.data, report.all.bytes());
        model.parameters().zero_gradients();
    }
    for (const BatchTensors& batch : batches) {
        if (&batch == &batches.back()) pass.sync = sync;
        model.train(pass, batch, report.sums);
    }
    if (sync) {
        auto part = context.part("sum over ranks");
        sync->finish();
        sync->mesh().replicas().all_reduce(context, report.sums);
    }
    auto part = context.part("gradient norm");
    gradient_squares(context, model.parameters(), report.squared_norm);
    ops::step_verdict(context, {.report = report.sums,
                                .layers = model.sparse_layers(),
                                .experts = model.config().experts,
                                .output_z = pass.loss.output_z,
                                .balance = pass.loss.balance,
                                .router_z = pass.loss.router_z,
                                .squared_norm = report.squared_norm,
                                .largest_loss = largest_loss,
                                .loss = report.loss,
                                .accepted = report.accepted});
}

void queue_update(Context& context, const Transformer& model, Optimizer& optimizer, const StepReport& report, double clip, int64_t step, double rate) {
    optimizer.update(context, step, rate, 1, report.accepted, clip);
    model.update_balance_biases(context, report.sums, report.accepted);
    auto part = context.part("cast weights");
    optimizer.refresh_weights(context);
}

// What decides which memory a step uses and which kernels it starts.
std::vector<int64_t> shapes_of(const StepBatch& batches) {
    std::vector<int64_t> shapes;
    for (const Batch& b : batches) shapes.insert(shapes.end(), {b.rows, b.encoder_length, b.decoder_length, !b.prefix_ends.empty()});
    return shapes;
}

constexpr int64_t before_batches = 64;  // bytes of the input: the largest loss, and room up to a border of cache lines

}  // namespace

StepSettings step_settings(const Config& config) {
    const TrainConfig& train = config.train;
    return {.coefficients = {train.balance_loss, train.router_z_loss, train.output_z_loss},
            .seed = static_cast<uint64_t>(train.seed),
            .clip = train.gradient_clip,
            .recompute = train.recompute,
            .sequence_parallel = config.parallel.sequence,
            .exchange_chunks = config.parallel.exchange_chunks};
}

std::string recording_problem(const ModelConfig& config, const Mesh& mesh) {
    if (mesh.world().size() == 1) return "";
    if (!mesh.world().recordable()) return "ranks that share a GPU exchange tensors through the host";
    if (mesh.shape().expert > 1 && config.experts > 0 && (config.encoder_routing.dropless || config.decoder_routing.dropless))
        return "in every sparse layer the host waits for the counts of rows that dropless routing sends to experts of other ranks, which a capacity would spare";
    return "";
}

bool StepGradients::finite() const {
    return std::isfinite(loss) && gradient_norm < ops::largest_gradient_norm;
}

TrainingTypes training_types(const TrainConfig& config) {
    if (config.dtype == Precision::f32) return {DType::f32, DType::f32};
    return {DType::bf16, config.forward == Precision::f32 ? DType::f32 : DType::bf16};
}

int64_t size_of_report(const Transformer& model) { return model.report_size() + 3; }

TrainingStep::TrainingStep(Context& context, const Transformer& model, Optimizer& optimizer, bool graph, GradientSync* sync)
    : context_(context), model_(model), optimizer_(optimizer), sync_(sync && sync->mesh().world().size() > 1 ? sync : nullptr),
      graph_(graph && context.engine->records() && (!sync_ || recording_problem(model.config(), sync_->mesh()).empty())),
      input_(*context.engine, 1), report_(*context.engine, size_of_report(model) * size_of(DType::f64)), packed_(*context.engine, 1),
      read_(*context.engine, size_of_report(model) * size_of(DType::f64)) {
    if (sync_ && sync_->mesh().expert().size() > 1) exchange_lane_ = context.engine->make_lane();
    if (graph_) context.engine->set_separate_allocations(false);
    if (!report_.data() || !read_.data()) fail(Exit::out_of_memory, "out of memory: there is no room for a step's report; choose a smaller model or batch");
}

StepGradients TrainingStep::run(const StepBatch& batches, const StepSettings& settings) {
    Engine& engine = *context_.engine;
    engine.begin_step(settings.step);
    std::vector<int64_t> shapes = shapes_of(batches);
    const bool known = shapes == shapes_;
    int64_t bytes = before_batches;
    for (const Batch& batch : batches) bytes += packed_bytes(batch);
    if (!known) {
        input_ = Buffer(engine, bytes), packed_ = PinnedBuffer(engine, bytes);
        if (!input_.data() || !packed_.data()) fail(Exit::out_of_memory, "out of memory: there is no room for a step's batches of {} bytes; use smaller ones", bytes);
    }

    std::memcpy(packed_.data(), &settings.largest_loss, sizeof settings.largest_loss);
    std::vector<BatchTensors> tensors;
    int64_t at = before_batches;
    for (const Batch& batch : batches) {
        tensors.push_back(pack(model_.config(), batch, static_cast<char*>(packed_.data()) + at, static_cast<char*>(input_.data()) + at));
        at += packed_bytes(batch);
    }
    const StepReport report = report_in(Tensor(report_.data(), DType::f64, {size_of_report(model_)}));
    Pass pass{.context = context_, .parameters = model_.parameters(), .config = model_.config(), .training = true, .recompute = settings.recompute, .sequence_parallel = settings.sequence_parallel, .exchange_lane = exchange_lane_.get(), .exchange_chunks = settings.exchange_chunks, .seed = settings.seed,
              .step = static_cast<uint32_t>(settings.step), .loss = scales_of(model_, batches, settings.coefficients, sync_)};
    const auto queue = [&] {
        engine.upload_later(input_.data(), packed_.data(), bytes);
        queue_gradients(pass, model_, tensors, Tensor(input_.data(), DType::f64, {1}), report, sync_);
        queue_update(context_, model_, optimizer_, report, settings.clip, settings.update, settings.rate);
        engine.download_later(read_.data(), report.all.data, report.all.bytes());
    };
    // A timer's marks lie between launches; what new shapes need cannot be had while a graph is recorded.
    graph_ && known && !context_.timer ? engine.run_recorded(recording_, queue) : queue();
    engine.synchronize();
    if (!known) context_.arena.settle();
    shapes_ = std::move(shapes);
    return read(model_, report, static_cast<const double*>(read_.data()));
}

StepGradients compute_gradients(Context& context, const Transformer& model, const StepBatch& batches, const LossCoefficients& coefficients, uint64_t seed, int64_t step,
                                bool dropout, Recompute recompute, GradientSync* sync) {
    const StepReport report = report_in(context.allocate(DType::f64, {size_of_report(model)}));
    const Tensor largest_loss = context.upload(std::vector<double>{std::numeric_limits<double>::infinity()}, {1});
    Pass pass{.context = context, .parameters = model.parameters(), .config = model.config(), .training = dropout, .recompute = recompute, .seed = seed,
              .step = static_cast<uint32_t>(step), .loss = scales_of(model, batches, coefficients, sync)};
    Arena::Scope scope(context.arena);
    std::vector<BatchTensors> tensors;
    for (const Batch& batch : batches) tensors.push_back(upload(context, model.config(), batch));
    queue_gradients(pass, model, tensors, largest_loss, report, sync);
    return read(model, report, context.download<double>(report.all).data());
}

void apply_gradients(Context& context, const Transformer& model, Optimizer& optimizer, const StepGradients& gradients, double clip, int64_t step, double rate) {
    queue_update(context, model, optimizer, gradients.report, clip, step, rate);
}

}  // namespace flanmoe

#include "train/step_work.hpp"

#include "core/error.hpp"
#include "model/sharding.hpp"
#include "optim/optimizer.hpp"
#include "train/memory.hpp"
#include "train/step.hpp"

#include <algorithm>
#include <map>

namespace flanmoe {

namespace {

double real(int64_t n) { return static_cast<double>(n); }

// Collects kernels; products are named by what they make: [rows, inner] x [inner, cols].
class Counter {
public:
    Counter(const Config& config) : c(config.model) {
        const TrainingTypes types = training_types(config.train);
        forward = real(size_of(types.forward)), compute = real(size_of(types.compute));
        forward_unit = types.forward == DType::bf16 ? Unit::library : Unit::single;
        backward_unit = types.compute == DType::bf16 ? Unit::library : Unit::single;
    }

    void memory(const char* part, const char* kernel, double bytes, double launches = 1) { work.push_back({part, kernel, Unit::none, 0, 0, bytes, launches}); }
    void product(const char* part, const char* kernel, bool backward, double rows, double cols, double inner, double out_size) {
        const double in_size = backward ? compute : forward;
        work.push_back({part, kernel, backward ? backward_unit : forward_unit, 2 * rows * cols * inner, 0, in_size * inner * (rows + cols) + out_size * rows * cols, 1});
    }
    // Both gradients of [rows, inner] x [inner, cols]; a weight's is added to, in float.
    void product_backward(const char* part, const char* kernel, double rows, double cols, double inner) {
        product(part, kernel, true, rows, inner, cols, compute);
        product(part, kernel, true, cols, inner, rows, 8);
    }
    // The copy in the compute type that the backward pass makes of what the forward saved in another.
    void narrow(const char* part, double elements) {
        if (forward != compute) memory(part, "copies in bf16", elements * (forward + compute));
    }

    void attention(double queries, double memory_tokens, double keys_a_query, bool cross);
    void feed_forward(const char* forward_part, const char* backward_part, double n, double width, bool gated);
    void experts(double n, const RoutingConfig& routing);
    void norms(double n, double count);
    void stack(bool decoder, const SequenceShape& shape);
    void output(double n);

    const ModelConfig& c;
    double forward = 0, compute = 0;  // bytes of an element
    Unit forward_unit = Unit::library, backward_unit = Unit::library;  // of dense products
    static Unit ours(Unit library) { return library == Unit::library ? Unit::own : library; }
    std::vector<KernelWork> work;

private:
    void attention_kernels(double queries, double keys, double pairs);
    void activation(const char* part, double rows, double width, double halves, bool backward);
    void grouped(const char* part, const char* kernel, bool backward, double rows, double cols, double inner);
};

// A score costs an exponential, which counts as eight instructions, and about ten others; dropout twenty. Backward has two sweeps and seven products, where the
// forward has two (cuda/attention_backward.cu).
void Counter::attention_kernels(double queries, double keys, double pairs) {
    const double inner = real(c.heads * c.d_kv), width = real(c.key_heads() * c.d_kv), scores = pairs * real(c.heads);
    const double drop = c.attention_dropout_rate() > 0 ? 20 : 0, bytes = forward * (2 * queries * inner + 2 * keys * width);
    work.push_back({"attention forward", "attention", ours(forward_unit), 4 * pairs * inner, scores * (18 + drop), bytes, 1});
    work.push_back({"attention backward", "attention backward", ours(backward_unit), 14 * pairs * inner, 2 * scores * (18 + drop), 3 * bytes, 3});
}

void Counter::attention(double queries, double memory_tokens, double pairs, bool cross) {
    const double d = real(c.d_model), inner = real(c.heads * c.d_kv), width = real(c.key_heads() * c.d_kv), keys = cross ? memory_tokens : queries;
    const char *before = "attention forward", *after = "attention backward";
    const double own_columns = cross ? inner : inner + 2 * width;  // of queries, with keys and values beside them in self-attention
    product(before, "projections", false, queries, own_columns, d, forward);
    if (cross) product(before, "projections", false, keys, 2 * width, d, forward);
    attention_kernels(queries, keys, pairs);
    product(before, "output projection", false, queries, d, inner, 4);
    product_backward(after, "output projection", queries, d, inner);
    narrow(after, queries * (2 * inner + d + own_columns) + (cross ? keys * 2 * width : 0));
    product_backward(after, "projections", queries, own_columns, d);
    if (cross) product_backward(after, "projections", keys, 2 * width, d);
}

void Counter::activation(const char* part, double rows, double width, double halves, bool backward) {
    memory(part, "activation", rows * width * (backward ? compute * (1 + 2 * halves) : forward * (halves + 1)));
}

void Counter::feed_forward(const char* before, const char* after, double n, double width, bool gated) {
    const double d = real(c.d_model), halves = gated ? 2 : 1;
    product(before, "input", false, n, halves * width, d, forward);
    activation(before, n, width, halves, false);
    product(before, "output", false, n, d, width, 4);
    narrow(after, n * (width + halves * width + d));
    product_backward(after, "output", n, d, width);
    activation(after, n, width, halves, true);
    product_backward(after, "input", n, halves * width, d);
}

void Counter::grouped(const char* part, const char* kernel, bool backward, double rows, double cols, double inner) {
    const double size = backward ? compute : forward, matrices = real(c.experts) * inner * cols;
    const Unit unit = ours(backward ? backward_unit : forward_unit);
    work.push_back({part, kernel, unit, 2 * rows * cols * inner, 0, size * (rows * (inner + cols) + matrices), 1});
    if (backward) work.push_back({part, kernel, unit, 2 * rows * cols * inner, 0, size * rows * (inner + cols) + 8 * matrices, 1});
}

void Counter::experts(double n, const RoutingConfig& routing) {
    const char *before = "experts forward", *after = "experts backward";
    const double d = real(c.d_model), e = real(c.experts), f = real(c.expert_width()), halves = c.expert_gated ? 2 : 1;
    const double rows = n * (routing.kind == RouterKind::expert_choice ? routing.capacity_factor : real(routing.k));
    memory(before, "router's input", n * d * (forward + 4));
    work.push_back({before, "router", Unit::single, 2 * n * d * e, 0, 4 * n * (d + e), 1});
    memory(before, "route", 20 * n * e, 4);
    memory(before, "gather", forward * (n + rows) * d);
    grouped(before, "expert products", false, rows, halves * f, d);
    activation(before, rows, f, halves, false);
    grouped(before, "expert products", false, rows, d, f);
    memory(before, "combine", forward * (rows + n) * d);

    narrow(after, rows * (2 * d + (1 + halves) * f));
    memory(after, "combine backward", compute * (2 * rows + n) * d);
    grouped(after, "expert products", true, rows, d, f);
    activation(after, rows, f, halves, true);
    grouped(after, "expert products", true, rows, halves * f, d);
    memory(after, "gather backward", compute * (rows + n) * d);
    memory(after, "route backward", 24 * n * e, 2);
    for (int i = 0; i < 2; ++i) work.push_back({after, "router", Unit::single, 2 * n * d * e, 0, 4 * n * (d + e), 1});
    memory(after, "router's input", n * d * (8 + 4 + 2 * compute), 2);
    if (c.shared_d_ff > 0) feed_forward(before, after, n, real(c.shared_d_ff), c.expert_gated);
}

// cuda/norm.cu: residual, sum, normed row and stream forward; backward the same, and the gradient's path.
void Counter::norms(double n, double count) {
    const double elements = n * real(c.d_model) * count;
    memory("norm forward", "residual and norm", elements * (12 + forward), count);
    memory("norm backward", "residual and norm", elements * (12 + 2 * compute), 2 * count);
}

void Counter::stack(bool decoder, const SequenceShape& shape) {
    const int64_t blocks = decoder ? c.decoder_layers : c.encoder_layers;
    const std::vector<int64_t>& sparse = decoder ? c.decoder_sparse : c.encoder_sparse;
    const double length = real(decoder ? shape.target : shape.source), n = real(shape.rows) * length, memory_tokens = real(shape.rows * shape.source);
    double sublayers = 0;
    for (int64_t i = 0; i < blocks; ++i) {
        attention(n, n, n * length / (decoder ? 2 : 1), false);
        if (decoder && c.encoder_decoder) attention(n, memory_tokens, n * real(shape.source), true), ++sublayers;
        const bool is_sparse = c.experts > 0 && std::find(sparse.begin(), sparse.end(), i) != sparse.end();
        if (is_sparse) experts(n, decoder ? c.decoder_routing : c.encoder_routing);
        if (!is_sparse || c.extra_ffn) feed_forward("feed-forward forward", "feed-forward backward", n, real(dense_width(c, decoder, i)), c.gated);
        sublayers += 2 + (is_sparse && c.extra_ffn);
    }
    norms(n, sublayers + 1);
    memory("embedding", "lookup", 8 * n * real(c.d_model));
    memory("embedding", "gradient", 4.8 * n * real(c.d_model), 16);
}

// cuda/cross_entropy.cu: three products in chunks of 256 MB of logits, each of which passes over the weight twice and over its gradient twice.
void Counter::output(double n) {
    const double d = real(c.d_model), v = real(c.vocab_size), chunks = std::max(1.0, n * v * 4 / (256 << 20));
    for (const char* product : {"logits", "gradient of the states", "gradient of the weight"}) {
        const double bytes = std::string(product) == "gradient of the weight" ? chunks * 8 * v * d : chunks * compute * v * d;
        work.push_back({"output and loss", product, ours(backward_unit), 2 * n * d * v, 0, bytes + n * (4 * v + compute * d), chunks});
    }
    memory("output and loss", "loss", 8 * n * v, chunks);
}

// All parameters once a step (cuda/optimizer.cu), of those that ranks share the updates of this rank's.
void count_optimizer(Counter& counter, const Config& config, const ParameterStore& parameters) {
    double bytes = 0, trained = 0;
    for (const Parameter& p : parameters.records()) {
        const auto slots = optimizer_slots(config.optimizer, p);
        if (slots.empty()) continue;
        const bool factored = slots.size() == 2 && config.optimizer.kind == OptimizerKind::adafactor;
        const ParallelConfig& ranks = config.parallel;
        const int64_t alike = p.experts > 0 && ranks.expert > 1 ? ranks.data : ranks.data * ranks.expert;  // ranks that have it
        const double updated = real(p.elements()) / (ranks.shard_optimizer && is_owned(p) ? real(std::max<int64_t>(1, alike)) : 1);
        trained += updated;
        bytes += updated * (config.optimizer.kind == OptimizerKind::adamw ? 28 : factored ? 24 : 32);
    }
    const double all = real(parameters.parameter_count());
    counter.memory("optimizer", "update", bytes, 9);
    counter.memory("gradient norm", "squares", 4 * trained, 2);
    counter.memory("zero gradients", "clear", 4 * all);
    if (counter.compute < 4) counter.memory("cast weights", "copy in bf16", 6 * all);
}

}  // namespace

std::vector<KernelWork> work_of_step(const Config& config, const Transformer& model, const SequenceShape& micro_batch, int64_t passes) {
    Counter counter(config);
    if (config.model.encoder_decoder) counter.stack(false, micro_batch);
    counter.stack(true, micro_batch);
    counter.output(real(micro_batch.rows * micro_batch.target));
    for (KernelWork& work : counter.work)
        for (double* value : {&work.flops, &work.instructions, &work.bytes, &work.launches}) *value *= real(passes);
    count_optimizer(counter, config, model.parameters());
    return counter.work;
}

// Sustained: cuBLASLt about 70 % of the bf16 peak (power limits it on random data), mma.sync 62 % of it on Hopper and 85 % on A100, float products 75 % of theirs,
// memory 81 % of its data sheet; a multiprocessor's 128 lanes at 1.7 (1.4) GHz; 2 us from kernel to kernel. Guesses until a device has been measured.
DeviceRates rates_of(const std::string& device) {
    if (device == "a100") return {"a100", 240e12, 240e12, 14e12, 19.4e12, 1.65e12, 2e-6};
    if (device == "h100") return {"h100", 700e12, 610e12, 50e12, 28.7e12, 2.7e12, 2e-6};
    if (device == "h200") return {"h200", 700e12, 610e12, 50e12, 28.7e12, 3.9e12, 2e-6};
    fail(Exit::usage, "rates are known of a100, h100 and h200, not of {}", device);
}

double predicted_seconds(const KernelWork& work, const DeviceRates& rates) {
    const double arithmetic = (work.flops > 0 ? work.flops / rates.of(work.unit) : 0) + work.instructions / rates.instructions;
    return std::max(arithmetic, work.bytes / rates.bandwidth) + work.launches * rates.launch;
}

StepPrediction predict_step(const Config& config, const DeviceRates& rates, int64_t source, int64_t target) {
    StepPrediction result{rates, training_types(config.train).compute == DType::bf16 ? rates.library : rates.single};
    const Transformer model(config.model);
    const int64_t micro = config.data.micro_batch_rows ? std::min(config.data.micro_batch_rows, config.data.batch_rows) : config.data.batch_rows;
    result.rows = config.data.batch_rows, result.passes = (config.data.batch_rows + micro - 1) / micro;
    result.source = source ? source : config.data.encoder_length, result.target = target ? target : target_length(config.data, result.source);
    result.model_flops = 3 * forward_flops(config.model, {result.rows, result.source, result.target});
    std::map<std::string, PartPrediction> parts;
    for (const KernelWork& work : work_of_step(config, model, {micro, result.source, result.target}, result.passes)) {
        PartPrediction& part = parts[work.part];
        const double milliseconds = 1e3 * predicted_seconds(work, rates);
        part.part = work.part, part.milliseconds += milliseconds, part.flops += work.flops, part.bytes += work.bytes, part.launches += work.launches;
        result.milliseconds += milliseconds;
    }
    for (const auto& [name, part] : parts) result.parts.push_back(part);
    std::sort(result.parts.begin(), result.parts.end(), [](const auto& a, const auto& b) { return a.milliseconds > b.milliseconds; });
    return result;
}

std::string to_table(const StepPrediction& p) {
    std::string text = fmt::format("predicted for one {}: {} x ({} + {}) tokens a step in {} micro-batch{}\n", p.rates.name, p.rows, p.source, p.target, p.passes, p.passes == 1 ? "" : "es");
    text += fmt::format("  {:<24} {:>10} {:>7} {:>10} {:>9} {:>9}\n", "part", "ms", "share", "TFLOP", "GB", "launches");
    double flops = 0, bytes = 0, launches = 0;
    for (const PartPrediction& part : p.parts) {
        text += fmt::format("  {:<24} {:>10.3f} {:>5.1f} % {:>10.2f} {:>9.2f} {:>9.0f}\n", part.part, part.milliseconds, 100 * part.milliseconds / p.milliseconds, part.flops * 1e-12,
                            part.bytes * 1e-9, part.launches);
        flops += part.flops, bytes += part.bytes, launches += part.launches;
    }
    text += fmt::format("  {:<24} {:>10.3f} {:>7} {:>10.2f} {:>9.2f} {:>9.0f}\n", "step", p.milliseconds, "", flops * 1e-12, bytes * 1e-9, launches);
    return text + fmt::format("  {:.0f} tokens/s; the model's {:.2f} TFLOP are {:.1f} % of {:.0f} TFLOP/s\n", static_cast<double>(p.rows * (p.source + p.target)) / (1e-3 * p.milliseconds),
                              p.model_flops * 1e-12, 100 * p.share_of_products(), p.products * 1e-12);
}

std::string to_json(const StepPrediction& p) {
    std::string parts;
    for (const PartPrediction& part : p.parts) parts += fmt::format("{}\"{}\": {:.4f}", parts.empty() ? "" : ", ", part.part, part.milliseconds);
    return fmt::format("{{\"predicted_for\": \"{}\", \"rows\": {}, \"source\": {}, \"target\": {}, \"passes\": {}, \"milliseconds\": {:.4f}, \"model_flops\": {:.4e}, \"share_of_matmul\": {:.4f}, "
                       "\"parts\": {{{}}}}}",
                       p.rates.name, p.rows, p.source, p.target, p.passes, p.milliseconds, p.model_flops, p.share_of_products(), parts);
}

}  // namespace flanmoe

#include "bench/device_bench.hpp"

#include "core/random.hpp"
#include "model/transformer.hpp"
#include "ops/attention.hpp"
#include "ops/elementwise.hpp"
#include "ops/engine.hpp"
#include "ops/matmul.hpp"
#include "optim/optimizer.hpp"
#include "train/benchmark.hpp"
#include "train/step_work.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <functional>

namespace flanmoe::bench {

namespace {

using Clock = std::chrono::steady_clock;

class DeviceBench {
public:
    DeviceBench(Device device, const std::string& predict, bool small) : context_(device), rates_(rates_of(predict)), small_(small) {}
    void run();

private:
    // Seconds a call of each, measured in turn: A B A B ...; a measurement is as many calls as take about 20 ms.
    std::vector<StepTimes> in_turn(const std::vector<std::function<void()>>& calls);
    double timed(const std::function<void()>& call, int64_t count);
    Tensor random(DType type, Shape shape);
    void print(const std::string& name, const StepTimes& times, double share, const char* of, double goal, const KernelWork& work);
    void print(const std::string& name, const StepTimes& times, double share, const char* of, double goal, double predicted);

    void limits();
    void attention();
    void grouped(int64_t rows_an_expert);
    void adafactor();

    DeviceContext context_;
    DeviceRates rates_;
    bool small_;
    double products_ = 0, bandwidth_ = 0;  // P and B: FLOP/s, and bytes read and written a second
};

double DeviceBench::timed(const std::function<void()>& call, int64_t count) {
    const auto start = Clock::now();
    for (int64_t i = 0; i < count; ++i) call();
    context_.engine->synchronize();
    return std::chrono::duration<double>(Clock::now() - start).count() / static_cast<double>(count);
}

std::vector<StepTimes> DeviceBench::in_turn(const std::vector<std::function<void()>>& calls) {
    std::vector<int64_t> counts;
    for (const auto& call : calls) {
        timed(call, 1);
        counts.push_back(small_ ? 1 : std::clamp<int64_t>(static_cast<int64_t>(0.02 / timed(call, 1)), 1, 1000));
    }
    std::vector<std::vector<double>> seconds(calls.size());
    for (int round = 0; round < (small_ ? 3 : 11); ++round)
        for (size_t i = 0; i < calls.size(); ++i) seconds[i].push_back(timed(calls[i], counts[i]));
    std::vector<StepTimes> times;
    for (const auto& s : seconds) times.push_back(times_of(s));
    return times;
}

// Uniform in [-1/2, 1/2): power, and so the rate, depends on the values.
Tensor DeviceBench::random(DType type, Shape shape) {
    const Tensor t = context_.allocate(type, shape);
    Arena::Scope scope(context_.arena);
    std::vector<float> values(static_cast<size_t>(shape.elements()));
    RandomStream stream({3, 0, 0, Purpose::sampling});
    for (float& x : values) x = static_cast<float>(stream.bits() >> 8) * 0x1p-24f - 0.5f;
    ops::cast(context_, context_.upload(values, shape), t);
    return t;
}

void DeviceBench::print(const std::string& name, const StepTimes& times, double share, const char* of, double goal, double predicted) {
    fmt::print("{{\"name\": \"{}\", \"milliseconds\": {:.5f}, \"spread\": [{:.5f}, {:.5f}], \"share\": {:.4f}, \"of\": \"{}\", \"goal\": {}, \"predicted_milliseconds\": {:.5f}}}\n", name,
               1e3 * times.median, 1e3 * times.fastest, 1e3 * times.slowest, share, of, goal, 1e3 * predicted);
    std::fflush(stdout);
}
void DeviceBench::print(const std::string& name, const StepTimes& times, double share, const char* of, double goal, const KernelWork& work) {
    print(name, times, share, of, goal, predicted_seconds(work, rates_));
}

void DeviceBench::limits() {
    Arena::Scope scope(context_.arena);
    const int64_t n = small_ ? 128 : 8192, bytes = small_ ? 1 << 20 : int64_t{2} << 30;
    const Tensor a = random(DType::bf16, {n, n}), b = random(DType::bf16, {n, n}), c = context_.allocate(DType::bf16, {n, n});
    const Tensor from = context_.zeros(DType::u8, {bytes}), to = context_.zeros(DType::u8, {bytes});
    const auto times = in_turn({[&] { ops::matmul(context_, {.a = a, .b = b, .out = c, .transpose_b = true}); }, [&] { context_.engine->copy(to.data, from.data, bytes); }});
    const double flops = 2.0 * static_cast<double>(n) * static_cast<double>(n) * static_cast<double>(n);
    products_ = flops / times[0].median, bandwidth_ = 2.0 * static_cast<double>(bytes) / times[1].median;
    print(fmt::format("P: matrix product, bf16, {0} x {0} x {0}", n), times[0], products_ * 1e-12, "TFLOP/s", 0, KernelWork{"", "", Unit::library, flops});
    print("B: copy, bytes read and written", times[1], bandwidth_ * 1e-12, "TB/s", 0, KernelWork{"", "", Unit::none, 0, 0, 2.0 * static_cast<double>(bytes)});
}

// A layer of T5-base over rows of 512, with the bias of relative positions and without.
void DeviceBench::attention() {
    Arena::Scope scope(context_.arena);
    const int64_t rows = small_ ? 1 : 102, length = small_ ? 65 : 512, heads = small_ ? 2 : 12, width = heads * 64;
    const Tensor qkv = random(DType::bf16, {rows, length, 3 * width}), d_out = random(DType::bf16, {rows, length, width}), d_qkv = context_.allocate(DType::bf16, qkv.shape);
    ops::AttentionArgs plain{.q = qkv.columns(0, width), .k = qkv.columns(width, width), .v = qkv.columns(2 * width, width), .heads = heads, .kv_heads = heads};
    plain.out = context_.allocate(DType::bf16, {rows, length, width}), plain.log_sum = context_.allocate(DType::f32, {rows, heads, length});
    ops::AttentionArgs biased = plain;
    biased.bias_table = random(DType::f32, {32, heads});
    ops::AttentionBackwardArgs plain_back{.forward = plain, .d_out = d_out, .d_q = d_qkv.columns(0, width), .d_k = d_qkv.columns(width, width), .d_v = d_qkv.columns(2 * width, width)};
    ops::AttentionBackwardArgs biased_back = plain_back;
    biased_back.forward = biased, biased_back.d_bias_table = context_.zeros(DType::f32, {32, heads});
    const double pairs = static_cast<double>(rows * length * length), scores = pairs * static_cast<double>(heads), bytes = 4.0 * static_cast<double>(rows * length * width) * 2;
    const KernelWork work{"", "", Unit::own, 4 * pairs * static_cast<double>(width), 18 * scores, bytes}, work_back{"", "", Unit::own, 14 * pairs * static_cast<double>(width), 36 * scores, 3 * bytes, 3};
    const auto forward = in_turn({[&] { ops::attention(context_, plain); }, [&] { ops::attention(context_, biased); }});
    print("attention forward without bias", forward[0], work.flops / forward[0].median / products_, "P", 0, work);
    print("attention forward with bias", forward[1], forward[0].median / forward[1].median, "without bias", 0.85, work);
    const auto backward = in_turn({[&] { ops::attention_backward(context_, plain_back); }, [&] { ops::attention_backward(context_, biased_back); }});
    print("attention backward without bias", backward[0], work_back.flops / 1.4 / backward[0].median / products_, "P", 0, work_back);  // five products are needed, seven made
    print("attention backward with bias", backward[1], backward[0].median / backward[1].median, "without bias", 0.75, work_back);
}

// The first product of 16 experts of Switch-base, and its weights' gradient, beside the dense ones of as many rows.
void DeviceBench::grouped(int64_t rows_an_expert) {
    Arena::Scope scope(context_.arena);
    const int64_t experts = small_ ? 2 : 16, rows = experts * rows_an_expert, inner = small_ ? 64 : 768, hidden = small_ ? 128 : 3072;
    std::vector<int32_t> ends;
    for (int64_t e = 0; e <= experts; ++e) ends.push_back(static_cast<int32_t>(e * rows_an_expert));
    const Tensor offsets = context_.upload(ends, {experts + 1});
    const Tensor in = random(DType::bf16, {rows, inner}), out = random(DType::bf16, {rows, hidden}), weights = random(DType::bf16, {experts * hidden, inner});
    const Tensor gradient = context_.zeros(DType::f32, {experts * hidden, inner}), one = weights.slice_rows(0, hidden);
    const auto products = in_turn({[&] { ops::matmul(context_, {.a = in, .b = one, .out = out, .transpose_b = true}); },
                                   [&] { ops::grouped_matmul(context_, {.a = in, .b = one, .b_stride = hidden * inner, .offsets = offsets, .out = out, .transpose_b = true}); }});
    const double flops = 2.0 * static_cast<double>(rows * inner) * static_cast<double>(hidden), matrices = static_cast<double>(experts * hidden * inner);
    const double bytes = 2.0 * static_cast<double>(rows * (inner + hidden));
    print(fmt::format("grouped product, {} rows an expert", rows_an_expert), products[1], products[0].median / products[1].median, "dense", 0.85,
          KernelWork{"", "", Unit::own, flops, 0, bytes + 2 * matrices});
    const auto gradients = in_turn({[&] { ops::matmul(context_, {.a = out, .b = in, .out = gradient.slice_rows(0, hidden), .transpose_a = true, .accumulate = true}); },
                                    [&] { ops::grouped_matmul_weight(context_, {.a = out, .b = in, .offsets = offsets, .out = gradient.slice_rows(0, hidden), .out_stride = hidden * inner}); }});
    print(fmt::format("grouped gradient of weights, {} rows an expert", rows_an_expert), gradients[1], gradients[0].median / gradients[1].median, "dense", 0.85,
          KernelWork{"", "", Unit::own, flops, 0, bytes + 8 * matrices});
}

// All of T5-base, as its optimizer updates it.
void DeviceBench::adafactor() {
    Arena::Scope scope(context_.arena);
    Config config = load_config({small_ ? "configs/model/toy.toml" : "configs/model/t5-base.toml"}, {"train.dtype=bf16", "train.forward=bf16"});
    Transformer model(config.model);
    model.parameters().allocate(DType::bf16, true, DType::bf16, context_);
    model.parameters().initialise(1);
    ops::cast(context_, random(DType::f32, model.parameters().flat_gradient().shape), model.parameters().flat_gradient());
    Optimizer optimizer(config.optimizer, model.parameters());
    int64_t step = 0;
    const auto times = in_turn({[&] { optimizer.update(context_, step++, 1e-6, 1); }});
    for (const KernelWork& work : work_of_step(config, model, {1, 8, 8}))
        if (work.part == "optimizer") print("Adafactor, all of " + std::string(small_ ? "toy" : "T5-base"), times[0], work.bytes / times[0].median / bandwidth_, "B", 0.75, work);
}

void DeviceBench::run() {
    limits();
    attention();
    for (const int64_t rows : small_ ? std::vector<int64_t>{32} : std::vector<int64_t>{64, 512, 1024, 4096}) grouped(rows);
    adafactor();
}

}  // namespace

void bench_device(Device device, const std::string& predict, bool small) { DeviceBench(device, predict, small).run(); }

}  // namespace flanmoe::bench

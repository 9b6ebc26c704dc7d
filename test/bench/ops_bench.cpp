// Times operations at the shapes of the toy model and of T5-small: `make build/ops-bench && build/ops-bench [pattern]`.
//
// Each line: operation, shape, type, microseconds of the best of several repetitions, and its share of the rate of a 2048^3 product of that type
// measured in the same run. With one thread (OMP_NUM_THREADS=1) the thread's processor time is taken, which other programs on the machine do not
// lengthen; with more threads the wall time.
#include "bench/device_bench.hpp"
#include "core/error.hpp"
#include "core/random.hpp"
#include "ops/activation.hpp"
#include "ops/attention.hpp"
#include "ops/cross_entropy.hpp"
#include "ops/matmul.hpp"
#include "ops/norm.hpp"
#include "ops/route.hpp"

#include <fmt/core.h>
#include <omp.h>

#include <cmath>
#include <cstring>
#include <ctime>
#include <functional>
#include <string>
#include <vector>

using namespace flanmoe;

namespace {

const char* pattern = "";
double reference_rate = 0;  // of the type being measured

double seconds() {
    timespec t;
    clock_gettime(omp_get_max_threads() == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

// Best time of one call, measured over batches of about 5 ms, for about 0.2 s.
double best_time(const std::function<void()>& call) {
    call();
    double start = seconds();
    call();
    const int batch = std::max(1, static_cast<int>(0.005 / std::max(seconds() - start, 1e-7)));
    double best = 1e30;
    for (double total = 0; total < 0.2;) {
        start = seconds();
        for (int i = 0; i < batch; ++i) call();
        const double time = seconds() - start;
        best = std::min(best, time / batch);
        total += time;
    }
    return best;
}

void report(const std::string& name, DType type, double flops, const std::function<void()>& call) {
    if (name.find(pattern) == std::string::npos) return;
    const double time = best_time(call);
    fmt::print("{:<52} {:<4} {:>10.1f} us", name, name_of(type), time * 1e6);
    if (flops > 0) fmt::print(" {:>6.0f} GFLOP/s {:>4.0f} %", flops / time * 1e-9, 100 * flops / time / reference_rate);
    fmt::print("\n");
}

Tensor filled(Context& context, DType type, Shape shape) {
    Tensor t = context.allocate(type, shape);
    RandomStream stream({1, 0, 0, Purpose::sampling});
    for (int64_t i = 0; i < t.elements(); ++i) {
        const float value = static_cast<float>(stream.bits() >> 8) * 0x1p-23f - 1.0f;
        if (type == DType::bf16) t.as<bf16>()[i] = bf16(value);
        if (type == DType::f32) t.as<float>()[i] = value;
    }
    return t;
}

void bench_matmul(Context& context, DType type, int64_t m, int64_t n, int64_t k, const char* form) {
    Arena::Scope scope(context.arena);
    const bool weight = std::strcmp(form, "TN+") == 0, tb = std::strcmp(form, "NT") == 0;
    const ops::MatmulArgs args{.a = filled(context, type, weight ? Shape{k, m} : Shape{m, k}),
                               .b = filled(context, type, tb ? Shape{n, k} : Shape{k, n}),
                               .out = context.zeros(weight ? DType::f32 : type, {m, n}),
                               .transpose_a = weight,
                               .transpose_b = tb,
                               .accumulate = weight};
    report(fmt::format("matmul {} {} x {} x {}", form, m, n, k), type, 2.0 * static_cast<double>(m * n * k), [&] { ops::matmul(context, args); });
}

// Rows over 8 experts, uneven (the first has the most), with products as of an expert's first layer.
void bench_grouped(Context& context, DType type, int64_t rows, int64_t width, int64_t hidden, const char* balance) {
    Arena::Scope scope(context.arena);
    constexpr int64_t experts = 8;
    Tensor offsets = context.allocate(DType::i32, {experts + 1});
    for (int64_t e = 0; e <= experts; ++e) {
        const double x = static_cast<double>(e) / experts;
        offsets.as<int32_t>()[e] = static_cast<int32_t>(std::lround(static_cast<double>(rows) * (std::strcmp(balance, "even") ? std::sqrt(x) : x)));
    }
    const Tensor in = filled(context, type, {rows, width}), weights = filled(context, type, {experts * hidden, width}), out = filled(context, type, {rows, hidden});
    const Tensor gradient = context.zeros(DType::f32, {experts * hidden, width});
    const double flops = 2.0 * static_cast<double>(rows * width * hidden);
    const std::string shape = fmt::format("{} {} x {} x {}", balance, rows, hidden, width);
    report("grouped_matmul " + shape, type, flops, [&] {
        ops::grouped_matmul(context, {.a = in, .b = weights.slice_rows(0, hidden), .b_stride = hidden * width, .offsets = offsets, .out = out, .transpose_b = true});
    });
    report("grouped_matmul_weight " + shape, type, flops, [&] {
        ops::grouped_matmul_weight(context, {.a = out, .b = in, .offsets = offsets, .out = gradient.slice_rows(0, hidden), .out_stride = hidden * width});
    });
}

void bench_cross_entropy(Context& context, DType type, int64_t rows, int64_t width, int64_t vocabulary, int64_t chunk) {
    Arena::Scope scope(context.arena);
    ops::LinearCrossEntropyArgs args{.hidden = filled(context, type, {rows, width}),
                                     .weight = filled(context, type, {vocabulary, width}),
                                     .targets = context.zeros(DType::i32, {rows}),
                                     .loss_scale = 1.0 / static_cast<double>(rows),
                                     .d_hidden = context.allocate(type, {rows, width}),
                                     .d_weight = context.zeros(DType::f32, {vocabulary, width}),
                                     .sums = context.zeros(DType::f64, {4}),
                                     .chunk_rows = chunk};
    report(fmt::format("cross_entropy {} x {} x {} chunk {}", rows, vocabulary, width, chunk), type, 6.0 * static_cast<double>(rows * width * vocabulary),
           [&] { ops::linear_cross_entropy(context, args); });
}

void bench_others(Context& context, DType type, int64_t batch, int64_t length, int64_t width, int64_t heads, int64_t hidden) {
    Arena::Scope scope(context.arena);
    const int64_t rows = batch * length;
    const Dropout dropout = Dropout::with(0.1f, {1, 1, 1, Purpose::ffn_dropout}, 0);
    const Tensor x = filled(context, DType::f32, {rows, width}), y = filled(context, type, {rows, width}), h = filled(context, DType::f32, {rows, width});
    const Tensor wide = filled(context, type, {rows, hidden}), wide_out = filled(context, type, {rows, hidden}), gain = filled(context, DType::f32, {width});
    const Tensor rstd = context.allocate(DType::f32, {rows});
    report(fmt::format("residual_norm with dropout {} x {}", rows, width), type, 0, [&] {
        ops::residual_norm(context, {.residual = x, .delta = h, .delta_dropout = dropout, .gain = gain, .h = h, .y = y, .rstd = rstd});
    });
    report(fmt::format("relu with dropout {} x {}", rows, hidden), type, 0,
           [&] { ops::activation(context, {.in = wide, .dropout = dropout, .out = wide_out}); });
    const Tensor qkv = filled(context, type, {batch, length, 3 * width}), out = context.allocate(type, {batch, length, width});
    const Tensor d_qkv = context.allocate(type, {batch, length, 3 * width}), d_out = filled(context, type, {batch, length, width});
    ops::AttentionArgs args{.q = qkv.columns(0, width), .k = qkv.columns(width, width), .v = qkv.columns(2 * width, width), .heads = heads, .kv_heads = heads};
    args.bias_table = filled(context, type, {32, heads});
    args.dropout = dropout;
    args.out = out;
    args.log_sum = context.allocate(DType::f32, {batch, heads, length});
    const double flops = 4.0 * static_cast<double>(batch * length * length * width);
    const std::string shape = fmt::format("{} x {} x {} heads of {}", batch, length, heads, width / heads);
    report("attention " + shape, type, flops, [&] { ops::attention(context, args); });
    const ops::AttentionBackwardArgs backward{.forward = args,
                                              .d_out = d_out,
                                              .d_q = d_qkv.columns(0, width),
                                              .d_k = d_qkv.columns(width, width),
                                              .d_v = d_qkv.columns(2 * width, width),
                                              .d_bias_table = context.zeros(DType::f32, {32, heads})};
    report("attention_backward " + shape, type, 2.5 * flops, [&] { ops::attention_backward(context, backward); });
}

// All that a Switch router decides and counts, from its logits; ranks, statistics and tables in one.
void bench_route(Context& context, int64_t tokens, int64_t groups, int64_t experts) {
    Arena::Scope scope(context.arena);
    ops::RouteArgs args;
    args.logits = filled(context, DType::f32, {tokens, experts}), args.groups = groups;
    ops::allocate_route_outputs(context, args);
    report(fmt::format("route {} tokens in {} groups, {} experts", tokens, groups, experts), DType::f32, 0, [&] { ops::route(context, args); });
}

void bench_type(Context& context, DType type) {
    {
        Arena::Scope scope(context.arena);
        const Tensor a = filled(context, type, {2048, 2048}), b = filled(context, type, {2048, 2048}), c = filled(context, type, {2048, 2048});
        const double time = best_time([&] { ops::matmul(context, {.a = a, .b = b, .out = c, .transpose_b = true}); });
        reference_rate = 2.0 * 2048 * 2048 * 2048 / time;
        fmt::print("2048^3 {}: {:.0f} GFLOP/s, {} threads\n", name_of(type), reference_rate * 1e-9, omp_get_max_threads());
    }
    const struct {
        int64_t m, n, k;
    } layers[] = {{4096, 1536, 512}, {4096, 512, 512}, {4096, 2048, 512}, {4096, 512, 2048}, {912, 512, 512}, {912, 2048, 512}, {1024, 384, 128}, {1024, 256, 128}, {1024, 128, 256}};
    for (const auto& l : layers) {
        bench_matmul(context, type, l.m, l.n, l.k, "NT");   // forward
        bench_matmul(context, type, l.m, l.k, l.n, "NN");   // gradient of the input
        bench_matmul(context, type, l.n, l.k, l.m, "TN+");  // gradient of the weight
    }
    bench_matmul(context, type, 1, 16, 16, "NT");  // what a call costs
    for (const char* balance : {"even", "uneven"}) {
        bench_grouped(context, type, 1024, 128, 256, balance);
        bench_grouped(context, type, 4096, 512, 2048, balance);
    }
    for (int64_t chunk : {128, 228, 456, 912}) bench_cross_entropy(context, type, 912, 512, 32128, chunk);
    bench_cross_entropy(context, type, 512, 128, 2000, 0);
    bench_others(context, type, 8, 512, 512, 8, 2048);
    bench_others(context, type, 64, 16, 128, 4, 256);
}

}  // namespace

// `ops-bench --device cuda [h100] [small]`: bench_device() instead of the tables of the CPU.
int main(int argc, char** argv) {
    if (argc > 2 && std::strcmp(argv[1], "--device") == 0) {
        try {
            bench::bench_device(std::strcmp(argv[2], "cuda") == 0 ? Device::cuda : Device::cpu, argc > 3 ? argv[3] : "h100", argc > 4);
        } catch (const Error& error) {
            fmt::print(stderr, "ops-bench: {}\n", error.what());
            return static_cast<int>(error.code);
        }
        return 0;
    }
    if (argc > 1) pattern = argv[1];
    Context context;
    for (DType type : {DType::bf16, DType::f32}) bench_type(context, type);
    for (int64_t experts : {16, 64}) bench_route(context, 4096, 8, experts);
}

// flanmoe bench: speed of a training step on random tokens, by part, beside the matrix-product rate of the same run; under a launcher of all ranks, with what
// they send.
#include "cli/commands.hpp"
#include "cli/config_arguments.hpp"
#include "cli/ranks.hpp"
#include "config/dense_twin.hpp"
#include "core/error.hpp"
#include "train/step_work.hpp"
#include "train/twin_benchmark.hpp"

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <omp.h>

#include <memory>

namespace flanmoe::cli {

namespace {

struct Options {
    ConfigArguments config;
    BenchmarkSettings bench;
    bool json = false, twin = false;
    std::string predict;
};

// The step's predicted times, with `twin` those of the dense twin beside them.
void print_prediction(const Config& config, const BenchmarkSettings& bench, const std::string& device, bool twin, bool json) {
    if (twin && config.model.experts == 0) fail(Exit::usage, "the config's model is dense and its own twin; name a sparse one, or leave out --twin");
    const auto print = [&](const Config& c) {
        const StepPrediction prediction = predict_step(c, rates_of(device), bench.source, bench.target);
        fmt::print("{}{}", json ? to_json(prediction) : to_table(prediction), json ? "\n" : "");
        return prediction.milliseconds;
    };
    const double sparse = print(config);
    if (!twin) return;
    Config dense = config;
    dense.model = dense_twin(config.model).model;
    const double ratio = sparse / print(dense);
    if (!json) fmt::print("  sparse over dense step: {:.3f}\n", ratio);
}

Config load(const Options& options) {
    const Config config = options.config.load();
    if (config.train.threads > 0) omp_set_num_threads(static_cast<int>(config.train.threads));
    return config;
}

void run_bench(const Options& options) {
    const auto print = [&](const auto& result) { fmt::print("{}{}", options.json ? to_json(result) : to_table(result), options.json ? "\n" : ""); };
    if (!options.predict.empty()) {
        refuse_ranks("bench --predict");
        return print_prediction(load(options), options.bench, options.predict, options.twin, options.json);
    }
    if (options.twin) {
        refuse_ranks("bench --twin");
        return print(run_twin_benchmark(load(options), options.bench));
    }
    Config config;
    const auto settings = [&] {
        config = load(options);
        return RankSettings{config.parallel, config.train.device, to_toml(config), command_line()};
    };
    on_ranks("benchmark", settings, [&](const RankMesh& ranks) {
        const BenchmarkResult result = run_benchmark(ranks.context(), config, options.bench, ranks.mesh());
        if (ranks.leader()) print(result);
    });
}

}  // namespace

void add_bench(CLI::App& program) {
    auto options = std::make_shared<Options>();
    CLI::App* command = program.add_subcommand("bench", "Time a training step of a config on random tokens");
    options->config.add_to(command);
    options->config.add_device_to(command);
    command->get_option("files")->required();
    command->add_option("--steps", options->bench.steps, "measured steps")->check(CLI::Range(1, 1000000));
    command->add_option("--warmup", options->bench.warmup, "steps before them")->check(CLI::Range(0, 1000000));
    command->add_option("--source", options->bench.source, "encoder tokens a row (default: data.encoder_length)")->check(CLI::Range(1, 1000000));
    command->add_option("--target", options->bench.target, "decoder tokens a row (default: data.decoder_length)")->check(CLI::Range(1, 1000000));
    CLI::Option* matmul = command->add_option("--matmul-size", options->bench.matmul_size, "cube of the matrix-product measurement")->check(CLI::Range(1, 65536));
    command->add_flag("--twin", options->twin, "a sparse model's step beside that of its dense twin, in turn")->excludes(matmul);
    command->add_option("--predict", options->predict, "run nothing: what a step should take on a100, h100 or h200, part by part, from counted operations and bytes")->type_name("DEVICE");
    command->add_flag("--json", options->json, "one JSON line instead of a table");
    command->footer("Example:\n  flanmoe bench configs/model/t5-small.toml --set train.dtype=bf16 --set data.batch_rows=8 --source 512 --target 114\n  flanmoe bench configs/model/switch-small.toml --twin --set moe.experts=16 --source 400 --target 112\n"
                    "  mpirun -n 2 flanmoe bench configs/model/toy.toml configs/model/toy-switch.toml --set parallel.expert=2 --set parallel.data=0      # and the bytes sent, beside those of flanmoe plan");
    command->callback([options] { run_bench(*options); });
}

}  // namespace flanmoe::cli

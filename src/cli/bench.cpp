// flanmoe bench: speed of a training step on random tokens, by part, beside the matrix-product rate of the same run.
#include "cli/commands.hpp"
#include "cli/config_arguments.hpp"
#include "train/twin_benchmark.hpp"

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <omp.h>

#include <memory>

namespace flanmoe::cli {

void add_bench(CLI::App& program) {
    struct Options {
        ConfigArguments config;
        BenchmarkSettings bench;
        bool json = false, twin = false;
    };
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
    command->add_flag("--json", options->json, "one JSON line instead of a table");
    command->footer("Example:\n  flanmoe bench configs/model/t5-small.toml --set train.dtype=bf16 --set data.batch_rows=8 --source 512 --target 114\n  flanmoe bench configs/model/switch-small.toml --twin --set moe.experts=16 --source 400 --target 112");
    command->callback([options] {
        const Config config = options->config.load();
        if (config.train.threads > 0) omp_set_num_threads(static_cast<int>(config.train.threads));
        if (options->twin) {
            const TwinResult result = run_twin_benchmark(config, options->bench);
            fmt::print("{}{}", options->json ? to_json(result) : to_table(result), options->json ? "\n" : "");
            return;
        }
        const BenchmarkResult result = run_benchmark(config, options->bench);
        fmt::print("{}{}", options->json ? to_json(result) : to_table(result), options->json ? "\n" : "");
    });
}

}  // namespace flanmoe::cli

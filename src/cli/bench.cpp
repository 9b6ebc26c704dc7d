// flanmoe bench: speed of a training step on random tokens, by part, beside the matrix-product rate of the same run.
#include "cli/commands.hpp"
#include "config/config.hpp"
#include "train/benchmark.hpp"

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <memory>
#include <omp.h>

namespace flanmoe::cli {

void add_bench(CLI::App& program) {
    struct Options {
        std::vector<std::string> files, settings;
        BenchmarkSettings bench;
        bool json = false;
    };
    auto options = std::make_shared<Options>();
    CLI::App* command = program.add_subcommand("bench", "Time a training step of a config on random tokens");
    command->add_option("CONFIG", options->files, "TOML files, merged left to right")->required();
    command->add_option("--set", options->settings, "section.key=value, over the files");
    command->add_option("--steps", options->bench.steps, "measured steps")->check(CLI::PositiveNumber);
    command->add_option("--warmup", options->bench.warmup, "steps before them")->check(CLI::NonNegativeNumber);
    command->add_option("--source", options->bench.source, "encoder tokens a row (default: data.encoder_length)");
    command->add_option("--target", options->bench.target, "decoder tokens a row (default: data.decoder_length)");
    command->add_option("--matmul-size", options->bench.matmul_size, "cube of the matrix-product measurement")->check(CLI::PositiveNumber);
    command->add_flag("--json", options->json, "one JSON line instead of a table");
    command->footer("Example:\n  flanmoe bench configs/model/t5-small.toml --set train.dtype=bf16 --set data.batch_rows=8 --source 512 --target 114");
    command->callback([options] {
        const Config config = load_config({options->files.begin(), options->files.end()}, options->settings);
        if (config.train.threads > 0) omp_set_num_threads(static_cast<int>(config.train.threads));
        const BenchmarkResult result = run_benchmark(config, options->bench);
        fmt::print("{}{}", options->json ? to_json(result) : to_table(result), options->json ? "\n" : "");
    });
}

}  // namespace flanmoe::cli

// flanmoe: Mixture-of-Experts T5 models from raw text to an instruction-tuned, evaluated model. This file only lists the subcommands.
#include "cli/commands.hpp"

#include <CLI/CLI.hpp>

int main(int argc, char** argv) {
    CLI::App program("Trains, instruction-tunes, finetunes and evaluates T5-style Mixture-of-Experts language models.", "flanmoe");
    program.set_version_flag("--version", "flanmoe 0.1.0");
    program.footer("Example:\n  flanmoe COMMAND --help\n\nErrors are one sentence; exit codes: 64 usage or config, 65 bad data, 66 missing input, 75 stopped and resumable, "
                   "80 bad checkpoint.");
    flanmoe::cli::add_config(program);
    flanmoe::cli::add_tokenizer(program);
    flanmoe::cli::add_data(program);
    flanmoe::cli::add_train(program);
    flanmoe::cli::add_sweep(program);
    flanmoe::cli::add_eval(program);
    flanmoe::cli::add_generate(program);
    flanmoe::cli::add_inspect(program);
    flanmoe::cli::add_convert(program);
    flanmoe::cli::add_bench(program);
    flanmoe::cli::add_plan(program);
    flanmoe::cli::add_parity(program);
    return flanmoe::cli::run(program, argc, argv);
}

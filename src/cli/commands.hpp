// The subcommands of flanmoe, one file each. A function here adds its subcommand, options and callback to the program; main() lists them.
//
// A callback reports failure by throwing: flanmoe::Error (one sentence and its exit code), or CLI::RuntimeError(code) when what went wrong is
// already on the screen (`parity`, `inspect --verify`). Every subcommand has a footer "Example:\n  flanmoe ...".
#pragma once

namespace CLI {
class App;
}

namespace flanmoe::cli {

void add_config(CLI::App& program);
void add_tokenizer(CLI::App& program);
void add_data(CLI::App& program);
void add_data_toyworld(CLI::App& data_command);  ///< below `data`
void add_data_records(CLI::App& data_command);   ///< below `data`
void add_data_tasks(CLI::App& data_command);     ///< below `data`
void add_data_mixture(CLI::App& data_command);   ///< below `data`
void add_train(CLI::App& program);
void add_sweep(CLI::App& program);
void add_eval(CLI::App& program);
void add_generate(CLI::App& program);
void add_inspect(CLI::App& program);
void add_convert(CLI::App& program);
void add_bench(CLI::App& program);
void add_plan(CLI::App& program);
void add_parity(CLI::App& program);

/// Parses the command line, runs the chosen subcommand and returns the exit code; errors become one line on standard error.
int run(CLI::App& program, int argc, char** argv);

}  // namespace flanmoe::cli

// flanmoe train: one stage of training in a run directory, resumed by itself when the same command is given again.
#include "cli/commands.hpp"
#include "cli/config_arguments.hpp"
#include "core/log.hpp"
#include "eval/evaluate.hpp"
#include "ops/engine.hpp"
#include "train/run_directory.hpp"
#include "train/trainer.hpp"

#include <CLI/CLI.hpp>
#include <omp.h>

#include <memory>

namespace flanmoe::cli {

namespace {

struct Options {
    ConfigArguments config;
    std::string run;
    int64_t max_steps = -1;
    double max_minutes = -1;
};

// Answers to evenly spaced validation examples, generated and scored; nothing if eval.samples is 0.
AnswerMetrics answers_to_validation(const Config& config) {
    if (config.eval.samples == 0) return {};
    const auto tokenizer = Tokenizer::load(config.data.tokenizer, config.data.sentinels);
    std::vector<TaskExample> all = read_examples(config.data.validation, example_keys(config.data), config.data.malformed), examples;
    const size_t wanted = std::min(all.size(), static_cast<size_t>(config.eval.samples));
    for (size_t i = 0; i < wanted; ++i) examples.push_back(std::move(all[i * all.size() / wanted]));
    EvalSettings settings;
    settings.max_inputs = config.model.encoder_decoder ? config.data.encoder_length : config.data.decoder_length, settings.max_targets = config.data.decoder_length;
    settings.generation.max_new_tokens = config.data.decoder_length;
    return [=](Context& context, const Transformer& model) { return answer_metrics(context, model, *tokenizer, examples, settings); };
}

void train(const Options& options) {
    Config config = options.config.load();
    if (options.max_steps >= 0) config.train.max_steps = options.max_steps;
    if (options.max_minutes >= 0) config.train.max_minutes = options.max_minutes;
    if (config.train.threads > 0) omp_set_num_threads(static_cast<int>(config.train.threads));

    DeviceContext context(config.train.device);  // before anything is written: it may not be there
    RunDirectory run(options.run, config);
    Stop stop(config.train.max_minutes);
    try {
        if (Trainer(context, config, run, stop, answers_to_validation(config)).run() != Ending::interrupted) return;
    } catch (const Error& error) {
        run.write_status({.state = "failed", .message = error.what(), .steps = config.train.steps});
        throw;
    }
    info("stopped by {}; saved; the same command goes on from here", stop.reason());
    throw CLI::RuntimeError(static_cast<int>(Exit::preempted));
}

}  // namespace

void add_train(CLI::App& program) {
    auto options = std::make_shared<Options>();
    CLI::App* command = program.add_subcommand("train", "Train one stage (pretrain, instruct, finetune); goes on by itself where it stopped");
    options->config.add_to(command);
    options->config.add_device_to(command);
    command->add_option("--run", options->run, "run directory: checkpoints, metrics, logs")->required()->type_name("DIR");
    command->add_option("--max-steps", options->max_steps, "stop after so many steps of this invocation, saved (exit code 75)")->check(CLI::Range(int64_t{0}, int64_t{1000000000000}));
    command->add_option("--max-minutes", options->max_minutes, "stop after so many minutes, saved (exit code 75)")->check(CLI::Range(0.0, 1e9));
    command->footer("Example:\n  flanmoe train configs/model/toy-switch.toml configs/recipe/toy-instruct.toml --run runs/instruct --set train.steps=2000\n\n"
                    "USR1, USR2, TERM and Ctrl-C save and exit with code 75; the same command then goes on.");
    command->callback([options] { train(*options); });
}

}  // namespace flanmoe::cli

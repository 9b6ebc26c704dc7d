// flanmoe train: one stage of training in a run directory, resumed by itself when the same command is given again.
#include "cli/commands.hpp"
#include "cli/config_arguments.hpp"
#include "cli/ranks.hpp"
#include "comm/agreement.hpp"
#include "comm/world.hpp"
#include "core/log.hpp"
#include "data/mixture_source.hpp"
#include "eval/evaluate.hpp"
#include "train/rank_log.hpp"
#include "train/run_directory.hpp"
#include "train/trainer.hpp"

#include <CLI/CLI.hpp>
#include <omp.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <memory>
#include <optional>

namespace flanmoe::cli {

namespace {

struct Options {
    ConfigArguments config;
    std::string run;
    int64_t max_steps = -1;
    double max_minutes = -1;
};

AnswerMetrics answers_to(const Config& config, const std::vector<TaskExample>& examples) {
    check_metric(config.eval.metric, examples);
    const auto tokenizer = Tokenizer::load(config.data.tokenizer, config.data.sentinels);
    EvalSettings settings;
    settings.options = config.eval.metric == "accuracy", settings.generate = !settings.options;
    settings.max_inputs = config.model.encoder_decoder ? config.data.encoder_length : config.data.decoder_length, settings.max_targets = config.data.decoder_length;
    settings.generation.max_new_tokens = config.data.decoder_length;
    return [=](Context& context, const Transformer& model) { return answer_metrics(context, model, *tokenizer, examples, settings); };
}

// Answers to evenly spaced validation examples, scored; nothing if eval.samples is 0.
AnswerMetrics answers_to_validation(const Config& config) {
    if (config.eval.samples == 0) return {};
    const MixtureChoice mixture = validation_choice(config.data);
    std::vector<TaskExample> all = mixture.path.empty() ? read_examples(config.data.validation, example_keys(config.data), config.data.malformed) : mixture_examples(mixture);
    const size_t wanted = std::min(all.size(), static_cast<size_t>(config.eval.samples));
    if ((config.eval.metric == "consistency" || config.eval.metric == "f1a") && wanted < all.size())
        fail(Exit::usage, "eval.metric = \"{}\" is of whole groups, so all {} validation examples must be answered, not {}; set eval.samples to {}", config.eval.metric, all.size(), wanted, all.size());
    std::vector<TaskExample> examples;
    for (size_t i = 0; i < wanted; ++i) {
        examples.push_back(std::move(all[i * all.size() / wanted]));
        if (wanted < all.size()) examples.back().group.clear();  // parts of groups say nothing
    }
    return answers_to(config, examples);
}

// Answers to the test split; nothing if none is named.
AnswerMetrics answers_to_test(const Config& config) {
    if (config.eval.test_split.empty()) return {};
    MixtureChoice test = training_choice(config.data);
    test.split = config.eval.test_split, test.count = 0;
    std::vector<TaskReading> read;
    const std::vector<TaskExample> examples = mixture_examples(test, &read);
    report_losses("eval.test_split", read);
    for (const TaskReading& task : read)
        if (task.unasked) warn("eval.test_split: task {}: {} records have nothing to ask or to answer and are left out", task.task, task.unasked);
    return answers_to(config, examples);
}

/// What the process keeps from before the config is read to its end.
struct Life {
    Stop stop;  // first: a signal at the start saves too
    RankLog log{launch() ? launch()->rank : 0};
    std::unique_ptr<RunDirectory> run;
    std::atomic<RunDirectory*> opened = nullptr;  // the same, for the threads that watch

    void failed(const std::string& sentence, int64_t step) const {
        if (RunDirectory* directory = opened) directory->write_failure(sentence, std::max<int64_t>(0, step));
    }
};

Config load(const Options& options) {
    Config config = options.config.load();
    if (options.max_steps >= 0) config.train.max_steps = options.max_steps;
    if (options.max_minutes >= 0) config.train.max_minutes = options.max_minutes;
    if (config.train.threads > 0) omp_set_num_threads(static_cast<int>(config.train.threads));
    return config;
}

// The run directory: rank 0 makes and owns it; then the others find it, and begin their logs there.
std::unique_ptr<RunDirectory> open_run(Communicator& ranks, const std::filesystem::path& path, const Config& config, RankLog& log) {
    std::unique_ptr<RunDirectory> run;
    together(ranks, [&] {
        if (ranks.rank() == 0) run = std::make_unique<RunDirectory>(path, config);
    });
    together(ranks, [&] {
        if (ranks.rank() != 0) run = std::make_unique<RunDirectory>(path, ranks.rank());
        log.open(path);
    });
    return run;
}

Ending train_rank(World& world, const Options& options, Life& life) {
    Communicator& ranks = world.ranks();
    Config config;
    const RankMesh place(world, [&] {  // before anything is written: the device may not be there
        config = load(options);
        life.stop.limit(config.train.max_minutes);
        return RankSettings{config.parallel, config.train.device, to_toml(config), ""};
    });
    life.run = open_run(ranks, options.run, config, life.log);
    life.opened = life.run.get();
    AnswerMetrics answers, test;
    together(ranks, [&] { answers = answers_to_validation(config), test = answers_to_test(config); });
    Trainer trainer(place.context(), config, *life.run, life.stop, answers, place.mesh(), world.activity());
    const Ending ending = trainer.run();
    if (test && ending != Ending::interrupted) trainer.test(test);
    return ending;
}

void train(const Options& options) {
    Life life;
    World world([&](const World::Trouble& trouble) {
        life.log.say(trouble.sentence);
        life.failed(trouble.sentence, trouble.step);
    });
    Ending ending = Ending::done;
    world.run([&] {
        try {
            ending = train_rank(world, options, life);
            if (ending == Ending::interrupted) info("stopped by {}; saved; the same command goes on from here", life.stop.reason());
        } catch (...) {  // of several ranks the world says it
            life.stop.ignore();
            if (world.size() == 1) life.failed(error_of(std::current_exception()).what(), world.activity().step);
            throw;
        }
    });
    if (ending == Ending::interrupted) throw CLI::RuntimeError(static_cast<int>(Exit::preempted));
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

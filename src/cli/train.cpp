// flanmoe train: one stage of training in a run directory, resumed by itself when the same command is given again.
#include "cli/commands.hpp"
#include "checkpoint/hashed_file.hpp"
#include "cli/config_arguments.hpp"
#include "comm/agreement.hpp"
#include "comm/device_ranks.hpp"
#include "comm/world.hpp"
#include "core/log.hpp"
#include "eval/evaluate.hpp"
#include "ops/engine.hpp"
#include "train/rank_log.hpp"
#include "train/replicas.hpp"
#include "train/run_directory.hpp"
#include "train/trainer.hpp"

#include <CLI/CLI.hpp>
#include <omp.h>

#include <algorithm>
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

Ending train_rank(World& world, const Options& options, Stop& stop, RankLog& log, std::unique_ptr<RunDirectory>& run) {
    Communicator& ranks = world.ranks();
    Config config;
    MeshShape shape;
    together(ranks, [&] {
        config = load(options);
        const ParallelConfig& p = config.parallel;
        shape = mesh_for({static_cast<int>(p.data), static_cast<int>(p.expert), static_cast<int>(p.tensor)}, ranks.size());
    });
    require_same(ranks, "config", hash_bytes(to_toml(config)), "start all ranks with the same files and settings");
    require_same(ranks, "flanmoe program", program_hash(), "install the same build on all machines");
    world.set_limits(config.parallel.patience, config.parallel.timeout);
    stop.limit(config.train.max_minutes);
    std::unique_ptr<DeviceContext> context;
    const int place = place_on_host(ranks);
    together(ranks, [&] { context = std::make_unique<DeviceContext>(config.train.device, place); });  // before anything is written: it may not be there
    const auto over_nccl = device_ranks(*context, ranks, [&](const std::string& sentence) { world.give_up(Exit::rank_failed, sentence); });
    if (config.train.device == Device::cuda && ranks.size() > 1)
        info("ranks exchange tensors {}", over_nccl ? "over NCCL" : "over MPI, staged through host memory, since some share a GPU");
    const Mesh mesh(over_nccl ? *over_nccl : ranks, shape);
    run = open_run(ranks, options.run, config, log);
    const auto failed = [&](const Error& error) {
        run->write_status({.state = "failed", .message = error.what(), .step = std::max<int64_t>(0, world.activity().step), .steps = config.train.steps});
    };
    try {
        AnswerMetrics answers;
        together(ranks, [&] { answers = answers_to_validation(config); });
        return Trainer(*context, config, *run, stop, answers, mesh, world.activity()).run();
    } catch (const SharedError& error) {
        if (ranks.rank() == 0) failed(error);
        throw;
    } catch (const Error& error) {
        failed(error);
        throw;
    }
}

void train(const Options& options) {
    Stop stop;  // before anything is read: a signal at the start saves too
    const std::optional<Launch> started = launch();
    RankLog log(started ? started->rank : 0);
    std::unique_ptr<RunDirectory> run;
    World world([&](const World::Trouble& trouble) {
        log.say(trouble.sentence);
        if (run) run->write_status({.state = "failed", .message = trouble.sentence, .step = trouble.step});
    });
    Ending ending = Ending::done;
    world.run([&] {
        try {
            ending = train_rank(world, options, stop, log, run);
        } catch (const SharedError&) {
            stop.ignore();
            throw;
        }
    });
    if (ending != Ending::interrupted) return;
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

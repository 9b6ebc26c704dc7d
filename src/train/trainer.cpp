#include "train/trainer.hpp"

#include "checkpoint/checkpoint.hpp"
#include "checkpoint/hashed_file.hpp"
#include "checkpoint/resolve.hpp"
#include "comm/agreement.hpp"
#include "comm/device_ranks.hpp"
#include "core/file.hpp"
#include "core/log.hpp"
#include "data/mixture_source.hpp"
#include "data/text_files.hpp"
#include "model/flops.hpp"
#include "optim/freezing.hpp"
#include "optim/schedule.hpp"
#include "train/benchmark.hpp"
#include "train/memory.hpp"
#include "train/replicas.hpp"
#include "train/run_output.hpp"
#include "train/signals.hpp"
#include "train/summary.hpp"
#include "train/training_state.hpp"
#include "train/watch.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>

namespace flanmoe {

namespace {

using Clock = std::chrono::steady_clock;
double since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

std::shared_ptr<const Tokenizer> load_tokenizer(const Config& config) {
    if (config.data.tokenizer.empty()) fail(Exit::usage, "no vocabulary is named; set data.tokenizer to a spiece.model or a folder that holds one");
    auto tokenizer = Tokenizer::load(config.data.tokenizer, config.data.sentinels);
    tokenizer->check_fits(config.model.vocab_size, config.model.pad_id, config.model.eos_id);
    return tokenizer;
}

// What the data holds, and what of it is cut, dropped or skipped: none of that is silent.
void report_data(const char* key, const DataStatistics& data, const DataConfig& config) {
    const auto& [given, found, epoch, slots, tasks, read] = data;
    info("{}: {} tokens, {} an epoch", key, found.tokens, fmt::format("{} {}", slots, found.examples > 0 ? "examples" : "windows"));
    const char* lost = config.truncation == Truncation::keep_end ? "start" : "end";
    const char* room = config.encoder_decoder ? "data.encoder_length" : "what data.decoder_length leaves beside their targets";
    if (found.truncated_inputs) warn("{}: {} of {} inputs are longer than {} and lose their {}", key, found.truncated_inputs, found.examples, room, lost);
    if (found.truncated_targets) warn("{}: {} of {} targets are longer than data.decoder_length and lose their end", key, found.truncated_targets, found.examples);
    if (found.dropped) warn("{}: {} of {} examples are too long and dropped (data.truncation)", key, found.dropped, found.examples);
    if (found.narrowed) warn("{}: {} of {} examples are too long in some ways of asking and are asked in the others (data.truncation)", key, found.narrowed, found.examples);
    if (found.unasked) warn("{}: {} records have nothing to ask or to answer and are left out", key, found.unasked);
    if (found.held_out) warn("{}: {} records hold items that are held out and are left out", key, found.held_out);
    if (found.malformed && read.empty()) warn("{}: {} malformed lines are skipped (data.malformed)", key, found.malformed);
    report_losses(key, read);
}

// Refuses what cannot be trained or does not fit into memory, before anything is read.
Config affordable(const Context& context, Config config, const MeshShape& mesh, int sharers) {
    check_division(config.model, mesh);
    check_memory(memory_of_rank(config, mesh), Transformer(config.model).parameters().parameter_count(), *context.engine, sharers);
    return config;
}

// Rows that are not padding.
int64_t rows_used(const Batch& batch) {
    int64_t rows = 0;
    for (int64_t r = 0; r < batch.rows; ++r) {
        const auto first = batch.decoder_segments.begin() + r * batch.decoder_length;
        rows += std::any_of(first, first + batch.decoder_length, [](int32_t s) { return s != 0; });
    }
    return rows;
}

// What shapes do not tell: weights of a model that computes something else must not be taken for this one's.
void check_same_model(const std::filesystem::path& source, const ModelConfig& model) {
    Config theirs, ours;
    theirs.model = read_model_config(source), ours.model = model;
    for (const Difference& d : differences(theirs, ours)) {
        for (const char* key : {"heads", "d_kv", "kv_heads", "activation", "tied", "scale_outputs", "buckets", "max_distance", "bias_per_layer", "rotary", "scale_attention",
                                "attention_window", "norm_epsilon", "pad_id", "eos_id", "decoder_start_id"})
            if (d.key == std::string("model.") + key)
                fail(Exit::bad_checkpoint, "{} was trained with {} = {}, but this run has {}; use its value, or start from another checkpoint", source.string(), d.key, d.old_value, d.new_value);
    }
}

}  // namespace

bool improves(const EvalConfig& config, double value, double best) {
    return config.metric == "loss" ? value < best - config.min_delta : value > best + config.min_delta;
}

struct Trainer::State {
    Context& context;
    Config config;
    const Mesh& mesh;
    Activity& activity;
    RunDirectory& directory;
    const std::filesystem::path& run;
    AnswerMetrics answer_metrics;
    std::shared_ptr<const Tokenizer> tokenizer;
    Transformer model;
    std::unique_ptr<Optimizer> optimizer;
    std::unique_ptr<GradientSync> sync;
    std::unique_ptr<TrainingStep> training_step;
    std::unique_ptr<Loader> loader;
    std::vector<Batch> validation;
    ExtraFiles tokenizer_files;
    std::unique_ptr<RunOutput> output;  // rank 0's

    RunState at;               // step, counters, best value: what a checkpoint's state.json holds
    int64_t saved_step = -1;   // newest checkpoint
    Clock::time_point last_save = Clock::now();
    Stop& stop;
    bool save_is_due = false;  // by time
    int64_t steps_here = 0;    // made by this invocation
    double matmul_rate = 0;    // of this machine, for the share of the peak

    State(Context& on, Config c, RunDirectory& r, Stop& s, AnswerMetrics m, const Mesh& ranks, Activity& doing, int sharers)
        : context(on), config(affordable(on, std::move(c), ranks.shape(), sharers)), mesh(ranks), activity(doing), directory(r), run(r.path()), answer_metrics(std::move(m)), tokenizer(load_tokenizer(config)),
          model(config.model, mesh), stop(s) {
        context.activity = &activity;
    }
    ~State() { context.activity = nullptr; }

    Communicator& world() const { return mesh.world(); }
    bool leader() const { return world().rank() == 0; }
    double leader_value(double value);
    std::vector<int32_t> decide(std::vector<int32_t> votes);
    bool stopping();
    void open_data();
    Verdict judge(const StepGradients& step);
    StepFigures work_of(const StepBatch& batches);
    std::string latest_checkpoint();
    void open();
    void start_weights();
    void resume(const std::filesystem::path& checkpoint);
    void save(const char* why);
    void mark();
    void rollback();
    bool train_one();
    void validate_now();
    bool enough() const { return config.eval.patience > 0 && at.validations_without_improvement >= config.eval.patience; }
    Ending loop();
};

// The largest vote of any rank on each question.
std::vector<int32_t> Trainer::State::decide(std::vector<int32_t> votes) {
    if (world().size() == 1) return votes;
    Context host;
    const Tensor all = host.upload(votes, {static_cast<int64_t>(votes.size())});
    world().all_reduce(host, all, Reduction::max);
    return host.download<int32_t>(all);
}

double Trainer::State::leader_value(double value) {
    if (world().size() == 1) return value;
    Context host;
    const Tensor said = host.upload(std::vector<double>{value}, {1});
    world().broadcast(host, said, 0);
    return host.download<double>(said)[0];
}

// Whether any rank was asked to stop; then all know it. Also whether a save is due by rank 0's clock.
bool Trainer::State::stopping() {
    if (config.train.max_steps > 0 && steps_here >= config.train.max_steps) stop.request(fmt::format("the limit of {} steps (train.max_steps)", config.train.max_steps));
    const bool by_time = leader() && config.train.save_minutes > 0 && since(last_save) >= 60 * config.train.save_minutes;
    const std::vector<int32_t> votes = decide({stop.requested() ? 1 + world().rank() : 0, by_time});
    const int asked = votes[0];
    save_is_due = votes[1] != 0;
    if (asked > 0 && !stop.requested()) stop.request(fmt::format("a request to rank {}", asked - 1));
    return asked > 0;
}

void Trainer::State::open_data() {
    freeze_parameters(model.parameters(), config.train.freeze);
    if (leader()) remove_leftovers(run);
    for (const std::string& warning : routing_warnings(config.model)) warn("{}", warning);
    if ((config.model.encoder_routing.balance_bias || config.model.decoder_routing.balance_bias) && config.train.balance_loss > 0)
        warn("moe.balance_bias balances without a loss, but train.balance_loss is {}; set it to 0 unless both are meant", config.train.balance_loss);
    const Share share = share_of(config, mesh);
    DataConfig opened = config.data;
    if (leader()) opened.held_out_report = run / "held-out.json";
    loader = std::make_unique<Loader>(opened, tokenizer, share);
    Config with_lengths = config;  // what the objective leads to, where the config leaves it open
    with_lengths.data = loader->config();
    validate(with_lengths);
    DataStatistics data = loader->statistics();
    report_data("data.train", data, loader->config());
    if (config.data.tasks > 0) info("data.train: {} tasks (data.tasks_seed = {}): {}", data.tasks.size(), config.data.tasks_seed, joined(data.tasks, ", "));
    if (leader() && !data.tasks.empty()) write_file_atomically(run / "tasks.txt", joined(data.tasks, "\n") + "\n");
    if (config.data.validates()) {
        validation = validation_batches(config.data, *tokenizer, &data, share);
        report_data("data.validation", data, loader->config());
    }
    tokenizer_files = files_of(*tokenizer);
}

// The newest checkpoint that verifies, as rank 0 sees it; empty if there is none.
std::string Trainer::State::latest_checkpoint() {
    std::string path;
    together(world(), [&] {
        if (leader()) path = find_latest_valid(run).value_or("").string();
    });
    return broadcast_text(world(), path);
}

void Trainer::State::open() {
    together(world(), [&] { open_data(); });
    std::string vocabulary;
    for (const auto& [name, content] : tokenizer_files) vocabulary += name + '\n' + content;
    require_same(world(), "vocabulary", hash_bytes(vocabulary), "give all machines the same files");
    require_same(world(), "view of the data", fmt::format("{:016x}", loader->state().data_hash), "give all machines the same files");
    const TrainingTypes types = training_types(config.train);
    together(world(), [&] {
        if (config.parallel.shard_optimizer) model.parameters().shard();
        model.parameters().allocate(types.compute, true, types.forward, context);
        optimizer = std::make_unique<Optimizer>(config.optimizer, model.parameters());
        sync = std::make_unique<GradientSync>(model.parameters());
        training_step = std::make_unique<TrainingStep>(context, model, *optimizer, config.train.cuda_graph, sync.get());
    });
    if (const std::string problem = recording_problem(config.model, mesh); config.train.cuda_graph && context.engine->records() && !problem.empty()) info("steps are not recorded as CUDA graphs: {}", problem);
    at.best = config.eval.metric == "loss" ? std::numeric_limits<double>::infinity() : -std::numeric_limits<double>::infinity();
    const std::string checkpoint = latest_checkpoint();
    activity.part = "loading";
    together(world(), [&] { checkpoint.empty() ? start_weights() : resume(checkpoint); });
    matmul_rate = flanmoe::matmul_rate(context, types.compute, 768, 4) * world().size();
    if (leader()) output = std::make_unique<RunOutput>(directory, config, at.step);
    activity.step = at.step;
}

void Trainer::State::start_weights() {
    if (config.train.start_from.empty()) {
        model.parameters().initialise(static_cast<uint64_t>(config.train.seed));
        return;
    }
    const std::filesystem::path source = resolve_checkpoint(config.train.start_from);
    if (config.model.experts > 0 && read_model_config(source).experts == 0)
        fail(Exit::bad_checkpoint, "{} is a dense model, this run has {} experts; make a sparse one of it first: flanmoe convert {} OUT --experts {}", source.string(), config.model.experts,
             config.train.start_from, config.model.experts);
    check_same_model(source, config.model);
    tokenizer->check_same(source, "set data.tokenizer to that folder");
    load_model(source, model.parameters());
    info("starting from the weights of {}", source.string());
    if (config.train.reset_optimizer) return;
    const TakenSlots slots = take_over_optimizer(source, optimizer->state(), *context.engine);
    at.earlier_updates = RunState::from_json(read_training_state(source).state_json, source.string()).updates();
    info("going on with its optimizer state after {} updates: {} slots taken over, {} begin anew, {} are of what is not trained here", at.earlier_updates, slots.taken, slots.fresh,
         slots.unused);
}

void Trainer::State::resume(const std::filesystem::path& checkpoint) {
    load_model(checkpoint, model.parameters());
    load_optimizer(checkpoint, optimizer->state(), *context.engine);
    at = RunState::from_json(read_training_state(checkpoint).state_json, checkpoint.string());
    loader->restore(LoaderState::from_json(at.loader));
    saved_step = at.step;
    info("resuming at step {} from {}", at.step, checkpoint.string());
}

void Trainer::State::save(const char* why) {
    activity.part = "saving";
    const Unhurried rank_0_writes(activity);
    at.loader = loader->state().to_json();
    TrainingState state{at.to_json(), to_toml(config), optimizer->state(), context.engine};
    CheckpointOptions options;
    options.keep_last = config.train.keep_last;
    options.keep_every = config.train.keep_every;
    options.model.shard_bytes = static_cast<int64_t>(config.train.shard_gigabytes * 1e9);
    options.model.row_tokens = config.data.encoder_length;
    const SaveResult result = save_checkpoint(run, at.step, config.model, model.parameters(), state, tokenizer_files, options);
    last_save = Clock::now();
    if (result) saved_step = at.step;
    if (!leader()) return;
    if (!result) {
        warn("step {}: the checkpoint was not saved ({}); training goes on, the previous checkpoint is untouched", at.step, result.problem);
        return;
    }
    output->saved(at.step, result.path, result.seconds, why);
    if (!result.problem.empty()) warn("{}", result.problem);
}

// Names the newest checkpoint as the best one; a full disk must not end the run.
void Trainer::State::mark() {
    const Unhurried rank_0_writes(activity);
    try {
        if (leader()) mark_best(run, {at.step, config.eval.metric, at.best});
    } catch (const Error& error) {
        warn("step {}: the best checkpoint was not marked ({}); training goes on", at.step, error.what());
    }
    world().barrier();
}

// Weights and optimizer of the last checkpoint, but the data that follows now: the batches that led here are not repeated.
void Trainer::State::rollback() {
    activity.part = "going back";
    const Unhurried each_reads(activity);
    const std::string checkpoint = latest_checkpoint();
    if (checkpoint.empty()) throw SharedError(Exit::diverged, fmt::format("step {}: there is no checkpoint to go back to yet; save more often (train.save_every) or choose another policy", at.step));
    together(world(), [&] {
        load_model(checkpoint, model.parameters());
        load_optimizer(checkpoint, optimizer->state(), *context.engine);
        at.step = RunState::from_json(read_training_state(checkpoint).state_json, checkpoint).step;
    });
    if (output) output->rewind(at.step);
}

// Every rank comes to the same verdict, so an error is everyone's.
Verdict Trainer::State::judge(const StepGradients& step) {
    try {
        return at.watch.judge(config.train, step, at.step);
    } catch (const Error& error) {
        throw SharedError(error);
    }
}

// Tokens and operations of all ranks' rows.
StepFigures Trainer::State::work_of(const StepBatch& batches) {
    std::vector<double> work(2);
    for (const Batch& b : batches) {
        work[0] += static_cast<double>(b.real_tokens());
        work[1] += 3 * forward_flops(config.model, {rows_used(b), b.encoder_length, b.decoder_length});
    }
    if (mesh.replicas().size() > 1) {
        Context host;
        const Tensor sums = host.upload(work, {2});
        mesh.replicas().all_reduce(host, sums);
        work = host.download<double>(sums);
    }
    StepFigures figures;
    figures.tokens = static_cast<int64_t>(work[0]), figures.flops = work[1];
    return figures;
}

// One step; false if it was rolled back.
bool Trainer::State::train_one() {
    const auto start = Clock::now();
    activity.step = at.step, activity.part = "data";
    const StepBatch batches = loader->next();
    const double waited = since(start);
    activity.part = "forward and backward";
    const double rate = learning_rate(config.optimizer, at.step, config.train.steps);
    StepSettings settings = step_settings(config);
    settings.step = at.step, settings.update = at.updates(), settings.rate = rate, settings.largest_loss = at.watch.largest_loss(config.train);
    const StepGradients step = training_step->run(batches, settings);
    const Verdict verdict = judge(step);
    if (verdict == Verdict::rollback) {
        rollback();
        return false;
    }
    ++at.step, ++steps_here;
    StepFigures figures = work_of(batches);
    at.tokens += figures.tokens;
    figures.seconds = since(start), figures.waited = waited, figures.rate = rate;
    figures.matmul_rate = matmul_rate, figures.tokens_seen = at.tokens;
    if (output) output->step(at.step, summarise(step, figures, at.watch));
    return true;
}

void Trainer::State::validate_now() {
    if (validation.empty()) return;
    activity.part = "validation";
    Pass pass{.context = context, .parameters = model.parameters(), .config = config.model, .route_rows_alone = true};
    LossSums sums;
    for (const Batch& batch : validation) sums.add(model.evaluate(pass, batch));
    context.arena.reset();
    Metrics metrics = summarise_validation(sum_over_replicas(mesh, sums));
    if (answer_metrics && config.eval.samples > 0) {
        for (const auto& [name, value] : answer_metrics(context, model)) metrics.emplace_back(name, value);
        context.arena.reset();
    }
    if (output) output->validation(at.step, metrics);
    const double value = leader_value(metric(metrics, config.eval.metric, std::numeric_limits<double>::quiet_NaN()));
    at.validations_without_improvement += 1;
    if (improves(config.eval, value, at.best)) {
        at.best = value, at.best_step = at.step, at.validations_without_improvement = 0;
        if (config.eval.keep_best) {
            if (saved_step != at.step) save("best so far");
            if (saved_step == at.step) mark();
        }
    }
}

Ending Trainer::State::loop() {
    const EvalConfig& eval = config.eval;
    if (enough()) return Ending::early;
    while (at.step < config.train.steps) {
        if (stopping()) {
            if (saved_step != at.step) save("stopped");
            return Ending::interrupted;
        }
        if (!train_one()) continue;
        const bool last = at.step == config.train.steps;
        if (last || (eval.every > 0 && at.step % eval.every == 0)) validate_now();
        if (enough()) {
            info("step {}: {} has not improved for {} validations; stopping early", at.step, eval.metric, eval.patience);
            if (saved_step != at.step) save("early stop");
            return Ending::early;
        }
        if (config.parallel.check_every > 0 && at.step % config.parallel.check_every == 0) check_equal_weights(model.parameters(), mesh, at.step);
        const bool due = save_is_due || (config.train.save_every > 0 && at.step % config.train.save_every == 0);
        if ((due || last) && saved_step != at.step) save(last ? "end" : "schedule");
    }
    return Ending::done;
}

Trainer::Trainer(Context& context, Config config, RunDirectory& run, Stop& stop, AnswerMetrics answer_metrics, const Mesh& mesh, Activity& activity) {
    const Unhurried each_reads(activity);
    // Ranks of one host take from the same memory; each rank of GPUs is taken to have one of its own.
    const int sharers = context.device == Device::cpu ? place_on_host(mesh.world()).ranks : 1;
    if (config.data.batch_rows < mesh.shape().replicas())
        warn("{} of {} replicas get no row of a step and only wait for the others, since data.batch_rows is {}; give a step more rows, or start fewer ranks",
             mesh.shape().replicas() - config.data.batch_rows, mesh.shape().replicas(), config.data.batch_rows);
    together(mesh.world(), [&] { state_ = std::make_unique<State>(context, std::move(config), run, stop, std::move(answer_metrics), mesh, activity, sharers); });
    state_->open();
}
Trainer::~Trainer() = default;

Ending Trainer::run() {
    const Ending ending = state_->loop();
    const DataStatistics data = state_->loader->statistics();
    info("data given so far: {:.2f} epochs, {} rows of {} examples, {} input and {} target tokens; {} tokens at ends of shards left out", data.epoch, data.given.rows, data.given.examples,
         data.given.input_tokens, data.given.target_tokens, data.given.left_out);
    // A save that failed at the very end must not pass for success.
    if (state_->saved_step != state_->at.step)
        throw SharedError(Exit::io, fmt::format("the last checkpoint (step {}) could not be saved; free some space in {} and run the same command again", state_->at.step, state_->run.string()));
    if (!state_->output) return ending;
    if (ending == Ending::interrupted) {
        state_->output->finish("stopped", state_->stop.reason());
    } else {
        state_->output->finish("done", ending == Ending::early ? stopped_early : "all steps made");
    }
    return ending;
}

void Trainer::test(const AnswerMetrics& measure) {
    State& s = *state_;
    s.activity.part = "test";
    const Unhurried each_reads(s.activity);
    double best = static_cast<double>(s.at.step);
    together(s.world(), [&] {
        if (const auto mark = s.leader() ? read_best(s.run) : std::nullopt) best = static_cast<double>(mark->step);
    });
    const auto step = static_cast<int64_t>(s.leader_value(best));
    together(s.world(), [&] {
        if (step != s.at.step) load_model(checkpoint_path(s.run, step), s.model.parameters());
    });
    const auto values = measure(s.context, s.model);
    std::string text = fmt::format("test ({}) of step {}:", s.config.eval.test_split, step);
    nlohmann::ordered_json json = {{"split", s.config.eval.test_split}, {"step", step}};
    for (const auto& [name, value] : values) json[name] = value, text += fmt::format(" {} {:.4f}", name, value);
    info("{}", text);
    together(s.world(), [&] {
        if (s.leader()) write_file_atomically(s.run / "test.json", json.dump(1) + "\n");
    });
}

}  // namespace flanmoe

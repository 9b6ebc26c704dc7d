// The whole typed configuration of a run: one plain aggregate a section. What the fields are called in a file, their ranges and their help stand in
// one table (options.cpp); reading is load_config(), checking is validate(), writing is to_toml().
#pragma once

#include "config/model_config.hpp"
#include "data/data_config.hpp"

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace flanmoe {

/// A label for the run and the choice of defaults in reports; what is trained on is data.objective.
enum class Stage : uint8_t { pretrain, instruct, finetune };
enum class Precision : uint8_t { f32, bf16 };
/// What a step with a non-finite loss or gradient, or a loss spike, leads to. The weights never see it under any of them.
enum class TroublePolicy : uint8_t { skip, rollback, stop };
enum class OptimizerKind : uint8_t { adafactor, adamw };
/// Learning rate after warm-up: as given; T5's 1/sqrt(step); straight line or half cosine down to learning_rate x final_fraction at train.steps.
enum class Schedule : uint8_t { constant, inverse_sqrt, linear, cosine };

struct OptimizerConfig {
    OptimizerKind kind = OptimizerKind::adafactor;
    double learning_rate = 1e-3;       ///< inverse_sqrt: the factor before 1/sqrt(max(step, warmup_steps)), 1.0 in T5
    Schedule schedule = Schedule::constant;
    int64_t warmup_steps = 0;          ///< linear ramp from 0; inverse_sqrt: steps at the constant rate before the decay (no ramp, as in T5)
    double final_fraction = 0.0;       ///< linear, cosine: rate at the last step as a share of learning_rate
    double beta1 = 0.9, beta2 = 0.999; ///< AdamW
    double epsilon = 1e-8;             ///< AdamW: added outside the root
    double weight_decay = 0.0;         ///< AdamW: decoupled; weight matrices only, unless decay_vectors
    bool decay_vectors = false;        ///< AdamW: weight decay also for vectors (norm gains)
    double clipping_threshold = 1.0;   ///< Adafactor: largest RMS of an update; 0 = no limit
    bool scale_by_parameter = true;    ///< Adafactor: the step is relative to the RMS of the parameter
    bool factored = true;              ///< Adafactor: second moment as row and column means where both dimensions reach min_factored
    int64_t min_factored = 128;
    double decay_exponent = 0.8;       ///< Adafactor: beta2 at step t is 1 - (t+1)^-decay_exponent
    double squared_epsilon = 1e-30;    ///< Adafactor: added to squared gradients
    double minimum_scale = 1e-3;       ///< Adafactor: least RMS of a parameter in the relative step
};

struct TrainConfig {
    Stage stage = Stage::pretrain;
    int64_t steps = 1000;              ///< optimizer steps of the stage; schedules end there
    int64_t max_steps = 0;             ///< stop this invocation (exit 75, resumable) after so many steps; 0 = no limit
    double max_minutes = 0;            ///< the same by time
    int64_t seed = 0;                  ///< initial weights, dropout, jitter
    Precision dtype = Precision::f32;  ///< of activations and matrix products; master weights are always f32
    Device device = Device::cpu;
    Precision forward = Precision::f32;  ///< with dtype bf16: of the layers' forward (the output layer is bf16)
    bool cuda_graph = true;            ///< on cuda: a step is one CUDA graph
    Recompute recompute = Recompute::none;  ///< what the backward pass computes again instead of keeping it
    int64_t threads = 0;               ///< 0 = all cores
    std::string start_from;            ///< checkpoint whose weights a fresh run starts from; empty = random weights
    bool reset_optimizer = true;       ///< start_from: false also takes over optimizer state and the count of its updates
    std::vector<std::string> freeze;   ///< parts that are not trained: gate, experts, moe (both), non_moe, or embedding, attention, norm, ffn, head

    double gradient_clip = 0;          ///< global norm; 0 = none
    double balance_loss = 0.01;        ///< coefficients of the terms beside the cross-entropy
    double router_z_loss = 0;
    double output_z_loss = 0;

    TroublePolicy non_finite = TroublePolicy::skip;
    TroublePolicy spike = TroublePolicy::skip;
    double spike_factor = 0;           ///< a spike is a loss above spike_factor x its running mean; 0 = not watched
    int64_t max_skips = 10;            ///< skipped steps in a row before the run stops (exit 78)
    int64_t max_rollbacks = 3;         ///< rollbacks before the run stops (exit 78)

    int64_t log_every = 10;            ///< steps
    int64_t save_every = 1000;         ///< steps; 0 = only at the end
    double save_minutes = 30;          ///< minutes since the last save; 0 = by steps only
    int64_t keep_last = 2;             ///< newest checkpoints kept
    int64_t keep_every = 0;            ///< checkpoints at multiples of so many steps are kept for ever; 0 = none
    double shard_gigabytes = 5;        ///< largest safetensors file of a checkpoint
    bool tensorboard = true;           ///< event files beside metrics.jsonl
};

struct EvalConfig {
    int64_t every = 500;               ///< steps between validations; 0 = only at the end
    std::string metric = "loss";       ///< loss, or of answers (eval/task_metrics.hpp) accuracy, exact_match, f1, ...: what "best" and early stopping mean
    int64_t samples = 0;               ///< validation examples that are answered; 0 = none (then metric must be loss)
    int64_t patience = 0;              ///< validations without improvement before the run ends; 0 = no early stopping
    double min_delta = 0;              ///< least improvement that counts
    bool keep_best = true;             ///< the best checkpoint is kept
    std::string test_split;            ///< at the end the best checkpoint is measured on this split of data.mixture; empty = not
};

/// The ranks of a run as a grid (comm/mesh.hpp), and what is watched between them. Nothing here changes what is learned.
struct ParallelConfig {
    int64_t data = 1;            ///< ranks that have the same weights and other rows; 0 = what is left of the ranks
    int64_t expert = 1;          ///< ranks that share a layer's experts among them; each has its own rows
    int64_t tensor = 1;          ///< ranks that share every matrix among them; all have the same rows
    bool sequence = false;       ///< tensor ranks share the tokens between sub-layers: residual stream, norms, dropout
    int64_t exchange_chunks = 2; ///< parts in which rows travel between expert ranks, each beside the products with the one before
    bool shard_optimizer = false; ///< each tensor is updated, and its optimizer state held, by one of the ranks that have it (model/sharding.hpp)
    int64_t check_every = 100;   ///< steps between comparisons of the weights that must be equal on several ranks; 0 = never
    double patience = 5;         ///< seconds without a sign of life after which a rank counts as stopped; 0 = not watched
    double timeout = 600;        ///< seconds after which a rank that lives but does not come to a collective counts as hung; 0 = never
};

struct Config {
    ModelConfig model;
    DataConfig data;
    TrainConfig train;
    OptimizerConfig optimizer;
    EvalConfig eval;
    ParallelConfig parallel;
};

/// Reads TOML files, left to right, later values over earlier ones, then `section.key=value` settings; then follows up (token ids of the data section
/// from the model) and validates. Exit::usage with file, line, key and remedy for an unknown key, a wrong type, an out-of-range value.
Config load_config(const std::vector<std::filesystem::path>& files, const std::vector<std::string>& settings = {});
/// The same from TOML text; `name` stands for the file in messages. Without validation if `check` is false.
Config parse_config(const std::string& text, const std::string& name, bool check = true);
/// Exit::usage with one sentence if sections contradict themselves or each other.
void validate(const Config& config);
/// What of a model's routing its user must know although it is allowed: one sentence each.
std::vector<std::string> routing_warnings(const ModelConfig& model);
/// `base` with `section.key=value` settings over it, followed up as load_config() does, not validated.
Config override_config(const Config& base, const std::vector<std::string>& settings);
/// Every value, shorthands spelled out, as TOML that loads to the same config.
std::string to_toml(const Config& config);
/// Every option with type, range, default and help, for `flanmoe config --options` and the documentation.
std::string option_reference();
/// A key whose value differs; may_change: a run directory may go on with it.
struct Difference {
    std::string key, old_value, new_value;  ///< values as TOML
    bool may_change = false;
};
/// All of them, in the order of the table.
std::vector<Difference> differences(const Config& before, const Config& after);

}  // namespace flanmoe

// The table itself. A row: key, place, range, names, help.
#include "config/limits.hpp"
#include "config/options.hpp"
#include "config/routers/routers.hpp"

#include <fmt/format.h>

#include <type_traits>

namespace flanmoe {

namespace {

/// Finds a member through a chain of pointers to members, e.g. at<&Config::train, &TrainConfig::steps>.
template <auto... Members>
Field at(Config& config) {
    auto& member = (config.*....*Members);
    if constexpr (std::is_enum_v<std::remove_reference_t<decltype(member)>>)
        return reinterpret_cast<uint8_t*>(&member);
    else
        return &member;
}

template <auto Member>
constexpr auto model = at<&Config::model, Member>;
template <auto Member>
constexpr auto data = at<&Config::data, Member>;
template <auto Member>
constexpr auto train = at<&Config::train, Member>;
template <auto Member>
constexpr auto optimizer = at<&Config::optimizer, Member>;
template <auto Member>
constexpr auto eval = at<&Config::eval, Member>;
template <auto Member>
constexpr auto parallel = at<&Config::parallel, Member>;

using M = ModelConfig;
using D = DataConfig;
using T = TrainConfig;
using O = OptimizerConfig;
using E = EvalConfig;
using P = ParallelConfig;
using R = RoutingConfig;

Range at_least(double low) { return {.low = low}; }
Range above(double low) { return {.low = low, .open_low = true}; }
Range within(double low, double high) { return {.low = low, .high = high}; }
Range below(double low, double high) { return {.low = low, .high = high, .open_high = true}; }
const Range any{};
const Range probability{.low = 0, .high = 1, .open_high = true};
const std::vector<std::string> no_names;
const std::vector<std::string> activations = {"relu", "gelu_tanh", "gelu", "silu", "gated_relu", "gated_gelu", "gated_gelu_erf", "gated_silu"};
const std::vector<std::string> frozen_parts = {"gate", "experts", "moe", "non_moe", "embedding", "attention", "norm", "ffn", "head"};

void add_model(std::vector<Option>& rows) {
    rows.insert(rows.end(), {
        {"model.encoder_decoder", model<&M::encoder_decoder>, any, no_names, "encoder and decoder; false: a decoder-only stack"},
        {"model.vocab_size", model<&M::vocab_size>, within(1, largest_size), no_names, "rows of the embedding table, sentinels included"},
        {"model.d_model", model<&M::d_model>, within(1, largest_size), no_names, "width of the hidden states"},
        {"model.d_kv", model<&M::d_kv>, within(1, largest_size), no_names, "width of an attention head"},
        {"model.heads", model<&M::heads>, within(1, largest_size), no_names, "attention heads"},
        {"model.kv_heads", model<&M::kv_heads>, within(0, largest_size), no_names, "heads of keys and values, each for heads / kv_heads query heads; 0: model.heads"},
        {"model.d_ff", model<&M::d_ff>, within(1, largest_size), no_names, "inner width of dense feed-forwards"},
        {"model.encoder_d_ff", model<&M::encoder_d_ff>, within(1, largest_size), no_names, "the same for each encoder layer; empty: model.d_ff in all"},
        {"model.decoder_d_ff", model<&M::decoder_d_ff>, within(1, largest_size), no_names, "the same for each decoder layer; empty: model.d_ff in all"},
        {"model.encoder_layers", model<&M::encoder_layers>, within(0, most_layers), no_names, "layers of the encoder; 0 for a decoder-only model"},
        {"model.decoder_layers", model<&M::decoder_layers>, within(1, most_layers), no_names, "layers of the decoder"},
        {"model.activation", [](Config& c) -> Field { return ActivationField{&c.model.activation, &c.model.gated}; }, any, activations,
         "of dense feed-forwards; relu in T5 v1.0, gated_gelu (tanh form) in v1.1; gelu is the erf form"},
        {"model.tied", model<&M::tied>, any, no_names, "the output matrix is the embedding table (T5 v1.0)"},
        {"model.scale_outputs", model<&M::scale_outputs>, any, no_names, "hidden states x d_model^-0.5 before the output matrix (T5 v1.0, Switch)"},
        {"model.buckets", model<&M::buckets>, within(2, most_buckets), no_names, "relative position buckets"},
        {"model.max_distance", model<&M::max_distance>, within(1, largest_size), no_names, "distances from here on share the last bucket"},
        {"model.bias_per_layer", model<&M::bias_per_layer>, any, no_names, "a relative position table in every layer instead of one a stack"},
        {"model.rotary", model<&M::rotary>, within(0, 1e12), no_names, "base theta of rotary positions in self-attention, in place of the relative position tables; 0: tables"},
        {"model.scale_attention", model<&M::scale_attention>, any, no_names, "attention scores x d_kv^-0.5, which T5 leaves out"},
        {"model.qkv_bias", model<&M::qkv_bias>, any, no_names, "queries, keys and values have bias vectors (Qwen2-MoE)"},
        {"model.attention_window", model<&M::attention_window>, at_least(0), no_names, "causal self-attention sees the last so many tokens; 0: all"},
        {"model.bidirectional_prefix", model<&M::bidirectional_prefix>, any, no_names,
         "decoder-only: inputs see one another in both directions (prefix-LM); false: causal throughout"},
        {"model.norm_epsilon", model<&M::norm_epsilon>, {.low = 0, .high = 1, .open_low = true}, no_names, "added to the mean square in RMS norms"},
        {"model.dropout", model<&M::dropout>, probability, no_names, "dropout rate at T5's places"},
        {"model.attention_dropout", model<&M::attention_dropout>, below(-1, 1), no_names, "on attention probabilities; -1: model.dropout"},
        {"model.dropout_broadcast", model<&M::dropout_broadcast>, any, no_names,
         "T5X: dropout masks broadcast along the length axis (attention: along queries), but not after the encoder's final norm"},
        {"model.pad_id", model<&M::pad_id>, at_least(0), no_names, "token id of padding"},
        {"model.eos_id", model<&M::eos_id>, at_least(0), no_names, "token id of the end mark"},
        {"model.decoder_start_id", model<&M::decoder_start_id>, at_least(0), no_names, "token id that the decoder starts from"},
        {"model.init_scale", model<&M::init_scale>, {.low = 0, .high = 1e6, .open_low = true}, no_names, "variance scale of initial weights (0.1 in Switch and ST-MoE)"},
    });
}

template <auto Member>
constexpr auto in_encoder = at<&Config::model, &M::encoder_routing, Member>;
template <auto Member>
constexpr auto in_decoder = at<&Config::model, &M::decoder_routing, Member>;

// One routing option: a row for both stacks under [moe], and one for each stack.
template <auto Member>
void add_routing(std::vector<Option>& both, std::vector<Option>& encoder, std::vector<Option>& decoder, const std::string& name, Range range,
                 const std::vector<std::string>& names, const std::string& help) {
    both.push_back({"moe." + name, in_encoder<Member>, range, names, help, in_decoder<Member>, true});
    encoder.push_back({"moe.encoder." + name, in_encoder<Member>, range, names, "moe." + name + " of the encoder alone"});
    decoder.push_back({"moe.decoder." + name, in_decoder<Member>, range, names, "moe." + name + " of the decoder alone"});
}

void add_moe(std::vector<Option>& rows) {
    rows.insert(rows.end(), {
        {"moe.experts", model<&M::experts>, within(0, most_experts), no_names, "experts of a sparse layer; 0: a dense model, whatever else [moe] says"},
        {"moe.dense_twin", model<&M::dense_twin>, any, no_names,
         "make the model dense, with feed-forwards as wide as the experts that a token uses: FLOPs per token stay the same", nullptr, true},
        {"moe.expert_d_ff", model<&M::expert_d_ff>, within(0, largest_size), no_names, "inner width of an expert; 0: model.d_ff"},
        {"moe.activation", [](Config& c) -> Field { return ActivationField{&c.model.expert_activation, &c.model.expert_gated}; }, any, activations, "of experts"},
        {"moe.expert_dropout", model<&M::expert_dropout>, below(-1, 1), no_names, "inside experts; -1: model.dropout"},
        {"moe.shared_d_ff", model<&M::shared_d_ff>, within(0, largest_size), no_names, "inner width of a shared expert beside the routed ones, which every token visits; 0: none"},
        {"moe.shared_gate", model<&M::shared_gate>, any, no_names, "the shared expert's answer x sigmoid(x w) (Qwen2-MoE)"},
        {"moe.multiplicative_bias", model<&M::multiplicative_bias>, any, no_names, "gated experts: hidden units x a learned vector of each expert, 1 at first (ST-MoE)"},
        {"moe.extra_ffn", model<&M::extra_ffn>, any, no_names, "a dense feed-forward after each sparse one (ST-MoE)"},
        {"moe.router", [](Config& c) -> Field { return PresetField{&c.model.encoder_routing, false}; }, any, router_names(),
         "a named set of the routing options below, which still override it: " + router_summaries(),
         [](Config& c) -> Field { return PresetField{&c.model.decoder_routing, true}; }, true},
        {"moe.encoder.router", [](Config& c) -> Field { return PresetField{&c.model.encoder_routing, false}; }, any, router_names(), "moe.router of the encoder alone", nullptr,
         true},
        {"moe.decoder.router", [](Config& c) -> Field { return PresetField{&c.model.decoder_routing, false}; }, any, router_names(), "moe.router of the decoder alone", nullptr,
         true},
        {"moe.every", [](Config& c) -> Field { return EveryField{&c.model.encoder_sparse, c.model.encoder_layers}; }, at_least(0), no_names,
         "every n-th layer is sparse: layer i if i mod n = n - 1; 0: none", [](Config& c) -> Field { return EveryField{&c.model.decoder_sparse, c.model.decoder_layers}; },
         true},
    });
    std::vector<Option> both, encoder, decoder;
    encoder.push_back({"moe.encoder.layers", model<&M::encoder_sparse>, at_least(0), no_names, "sparse layers of the encoder, counted from 0; overrides moe.every"});
    decoder.push_back({"moe.decoder.layers", model<&M::decoder_sparse>, at_least(0), no_names, "sparse layers of the decoder, counted from 0; overrides moe.every"});
    const auto add = [&]<auto Member>(const std::string& name, Range range, const std::vector<std::string>& names, const std::string& help) {
        add_routing<Member>(both, encoder, decoder, name, range, names, help);
    };
    const std::vector<std::string> policies = {"all", "none", "threshold", "random"};
    add.operator()<&R::kind>("kind", any, {"token_choice", "expert_choice", "balanced"},
                                "who chooses: tokens their experts, experts their tokens, or nobody (for measurements)");
    add.operator()<&R::k>("k", within(1, 64), no_names, "experts a token");
    add.operator()<&R::normalize>("normalize", any, no_names, "gates divided by the sum of the token's k gates, before drops");
    add.operator()<&R::prioritized>("prioritized", any, no_names, "tokens claim slots in order of their largest probability");
    add.operator()<&R::density>("density", any, {"first", "any"}, "load in the balance loss: first choices, or any of the k");
    add.operator()<&R::second_train>("second_train", any, policies, "choices after the first in training: always, never, gate > threshold, or draw < gate / threshold");
    add.operator()<&R::second_eval>("second_eval", any, policies, "the same in evaluation");
    add.operator()<&R::second_threshold>("second_threshold", within(0, 1), no_names, "threshold of the two options above");
    add.operator()<&R::capacity>("capacity", at_least(0), no_names, "fixed slots of an expert in a group; 0: from the factors");
    add.operator()<&R::capacity_factor>("capacity_factor", above(0), no_names, "training: slots = max(min_capacity, round(factor x real tokens / experts))");
    add.operator()<&R::eval_capacity_factor>("eval_capacity_factor", above(0), no_names, "the same in evaluation");
    add.operator()<&R::min_capacity>("min_capacity", at_least(0), no_names, "least slots of an expert in a group");
    add.operator()<&R::dropless>("dropless", any, no_names, "no capacity at all, in training and evaluation");
    add.operator()<&R::eval_dropless>("eval_dropless", any, no_names, "no capacity in evaluation");
    add.operator()<&R::balance_bias>("balance_bias", any, no_names, "loss-free balancing: a bias of each expert on the scores that choose, not on the gates");
    add.operator()<&R::balance_bias_rate>("balance_bias_rate", at_least(0), no_names, "after each step: bias += rate x sign(mean load - load); 0: it stays");
    add.operator()<&R::force_causal>("force_causal", any, no_names, "allow expert choice in a causal decoder, where it sees later tokens (for study)");
    add.operator()<&R::group_rows>("group_rows", at_least(0), no_names, "rows of the batch that are routed together; 0: the whole batch");
    add.operator()<&R::route_padding>("route_padding", any, no_names, "padding is routed and takes slots (imported models)");
    add.operator()<&R::jitter>("jitter", probability, no_names, "exploration in training: router input x uniform(1 - jitter, 1 + jitter)");
    add.operator()<&R::input_dropout>("input_dropout", probability, no_names, "exploration in training, in place of jitter: dropout of the router's input");
    add.operator()<&R::sample_temperature>("sample_temperature", at_least(0), no_names,
                                           "exploration in training, in place of jitter: experts drawn from softmax(logits / temperature); 0: the most probable");
    for (std::vector<Option>* part : {&both, &encoder, &decoder}) rows.insert(rows.end(), part->begin(), part->end());
}

void add_data(std::vector<Option>& rows) {
    rows.insert(rows.end(), {
        {"data.objective", data<&D::objective>, any, {"span_corruption", "prefix_lm", "instruct", "causal_lm"}, "what is trained on the data; instruct reads JSONL, the others token shards; causal_lm is for decoder-only models"},
        {"data.train", data<&D::train>, any, no_names, "token shard folders, or JSONL files and folders of them"},
        {"data.validation", data<&D::validation>, any, no_names, "the same for validation; empty: none"},
        {"data.mixture", data<&D::mixture>, any, no_names, "instruct: a mixture of tasks (.toml, as in configs/mixture), or a task file (configs/task), in place of data.train"},
        {"data.validation_mixture", data<&D::validation_mixture>, any, no_names, "the same in place of data.validation"},
        {"data.validation_split", data<&D::validation_split>, any, no_names, "validation on this split of data.mixture, in place of both"},
        {"data.only", data<&D::only>, any, no_names, "of the tasks of mixtures only these, by name, with * and ?; empty: all"},
        {"data.folder", data<&D::folder>, any, no_names, "what the paths of task files are relative to"},
        {"data.cache", data<&D::cache>, any, no_names, "folder that keeps the tasks of mixtures as tokens, checked by hash; empty: tokenised at every start", nullptr, false, true},
        {"data.weights", data<&D::weights>, above(0), no_names, "share of each entry of data.train; empty: in proportion to size"},
        {"data.tasks", data<&D::tasks>, at_least(0), no_names, "instruct: train on so many of the task files of data.train, chosen by tasks_seed; 0: all"},
        {"data.tasks_seed", data<&D::tasks_seed>, at_least(0), no_names, "which tasks: with one seed, those of a smaller number are among those of a larger"},
        {"data.cap", data<&D::cap>, at_least(0), no_names, "instruct: examples of a source in an epoch; 0: all"},
        {"data.tokenizer", data<&D::tokenizer>, any, no_names, "spiece.model, or a folder that holds it"},
        {"data.sentinels", data<&D::sentinels>, at_least(0), no_names, "<extra_id_k> pieces after the vocabulary"},
        {"data.inputs_keys", data<&D::inputs_keys>, any, no_names, "JSONL field of the input; the first that a line has"},
        {"data.targets_keys", data<&D::targets_keys>, any, no_names, "JSONL field of the target; the first that a line has"},
        {"data.options_key", data<&D::options_key>, any, no_names, "JSONL field of the answers to choose from"},
        {"data.task_key", data<&D::task_key>, any, no_names, "JSONL field of the task's name"},
        {"data.remove_suffix", data<&D::remove_suffix>, any, no_names, "cut from the end of every target that ends so"},
        {"data.malformed", data<&D::malformed>, any, {"fail", "skip"}, "malformed line: stop with file and line, or skip and count it"},
        {"data.truncation", data<&D::truncation>, any, {"keep_start", "keep_end", "drop"}, "inputs that are too long"},
        {"data.encoder_length", data<&D::encoder_length>, within(0, longest_row), no_names, "tokens of an encoder row, end mark included; 0 for decoder-only models"},
        {"data.decoder_length", data<&D::decoder_length>, within(0, longest_row), no_names, "tokens of a decoder row; 0: from encoder_length (not for instruct)"},
        {"data.noise_density", data<&D::noise_density>, {.low = 0, .high = 1, .open_low = true, .open_high = true}, no_names, "span corruption: share of masked tokens"},
        {"data.mean_span", data<&D::mean_span>, at_least(1), no_names, "span corruption: mean length of a masked span"},
        {"data.packing", data<&D::packing>, any, no_names, "instruct: several examples a row"},
        {"data.pad_multiple", data<&D::pad_multiple>, at_least(1), no_names, "without packing, rows are padded to a multiple of this"},
        {"data.batch_rows", data<&D::batch_rows>, within(1, most_rows), no_names, "rows of an optimizer step"},
        {"data.micro_batch_rows", data<&D::micro_batch_rows>, within(0, most_rows), no_names, "rows of a micro-batch; divides batch_rows; 0: batch_rows", nullptr, false, true},
        {"data.validation_rows", data<&D::validation_rows>, within(0, most_rows), no_names, "rows of a validation batch; 0: rows of a micro-batch", nullptr, false, true},
        {"data.validation_batches", data<&D::validation_batches>, at_least(1), no_names, "validation batches at most", nullptr, false, true},
        {"data.shuffle", data<&D::shuffle>, any, no_names, "shuffle the examples of an epoch"},
        {"data.seed", data<&D::seed>, at_least(0), no_names, "of shuffling, masking and mixing"},
        {"data.prefetch", data<&D::prefetch>, at_least(0), no_names, "steps prepared ahead in the background", nullptr, false, true},
    });
}

// A row whose value may change when a run goes on.
Option changeable(Option row) {
    row.may_change = true;
    return row;
}

void add_train(std::vector<Option>& rows) {
    const std::vector<std::string> policies = {"skip", "rollback", "stop"};
    rows.insert(rows.end(), {
        {"train.stage", train<&T::stage>, any, {"pretrain", "instruct", "finetune"}, "name of the stage, kept in checkpoints and reports"},
        changeable({"train.steps", train<&T::steps>, at_least(1), no_names, "optimizer steps of the stage; schedules end there"}),
        changeable({"train.max_steps", train<&T::max_steps>, at_least(0), no_names, "save and stop this invocation (exit 75) after so many steps; 0: no limit"}),
        changeable({"train.max_minutes", train<&T::max_minutes>, at_least(0), no_names, "save and stop this invocation (exit 75) after so many minutes; 0: no limit"}),
        {"train.seed", train<&T::seed>, at_least(0), no_names, "of initial weights, dropout and jitter"},
        changeable({"train.device", train<&T::device>, any, {"cpu", "cuda"}, "what computes; also --device"}),
        {"train.dtype", train<&T::dtype>, any, {"f32", "bf16"}, "of activations and matrix products; master weights are f32"},
        {"train.forward", train<&T::forward>, any, {"f32", "bf16"}, "with dtype bf16: precision of the layers' forward; bf16 takes about a quarter less time, its gradients are 10 times less exact"},
        changeable({"train.cuda_graph", train<&T::cuda_graph>, any, no_names, "on cuda: queue a step as one CUDA graph; the results are the same bits"}),
        changeable({"train.recompute", train<&T::recompute>, any, {"none", "cheap", "full"},
                    "what the backward pass computes again to save memory: nothing, norms and activations, or whole sub-layers; the results are the same bits"}),
        changeable({"train.threads", train<&T::threads>, within(0, most_threads), no_names, "threads; 0: one a core"}),
        {"train.start_from", train<&T::start_from>, any, no_names, "checkpoint whose weights a fresh run starts from"},
        {"train.reset_optimizer", train<&T::reset_optimizer>, any, no_names, "with start_from: start with fresh optimizer state; false: go on with its state"},
        {"train.freeze", train<&T::freeze>, any, frozen_parts,
         "parts that keep their weights, bit by bit, and have no optimizer state: gate (routers), experts, moe (both), non_moe (all else), or its embedding, attention, norm, "
         "ffn, head"},
        {"train.gradient_clip", train<&T::gradient_clip>, at_least(0), no_names, "largest global gradient norm; 0: no limit"},
        {"train.balance_loss", train<&T::balance_loss>, at_least(0), no_names, "coefficient of the balance loss"},
        {"train.router_z_loss", train<&T::router_z_loss>, at_least(0), no_names, "coefficient of the router's z-loss"},
        {"train.output_z_loss", train<&T::output_z_loss>, at_least(0), no_names, "coefficient of the output's z-loss"},
        changeable({"train.non_finite", train<&T::non_finite>, any, policies, "a loss or gradient that is not finite: skip the step, go back to the last checkpoint, or stop"}),
        changeable({"train.spike", train<&T::spike>, any, policies, "the same for a spike of the loss"}),
        changeable({"train.spike_factor", train<&T::spike_factor>, at_least(0), no_names, "a spike is a loss above this x its running mean; 0: not watched"}),
        changeable({"train.max_skips", train<&T::max_skips>, at_least(1), no_names, "skipped steps in a row that stop the run (exit 78)"}),
        changeable({"train.max_rollbacks", train<&T::max_rollbacks>, at_least(1), no_names, "rollbacks that stop the run (exit 78)"}),
        changeable({"train.log_every", train<&T::log_every>, at_least(1), no_names, "steps between two lines of metrics"}),
        changeable({"train.save_every", train<&T::save_every>, at_least(0), no_names, "steps between two checkpoints; 0: only at the end"}),
        changeable({"train.save_minutes", train<&T::save_minutes>, at_least(0), no_names, "minutes after which a checkpoint is due too; 0: never"}),
        changeable({"train.keep_last", train<&T::keep_last>, at_least(1), no_names, "newest checkpoints that are kept"}),
        changeable({"train.keep_every", train<&T::keep_every>, at_least(0), no_names, "checkpoints at multiples of so many steps are kept; 0: none"}),
        changeable({"train.shard_gigabytes", train<&T::shard_gigabytes>, above(0), no_names, "largest safetensors file of a checkpoint"}),
        changeable({"train.tensorboard", train<&T::tensorboard>, any, no_names, "write TensorBoard event files"}),
    });
}

void add_optimizer(std::vector<Option>& rows) {
    rows.insert(rows.end(), {
        {"optimizer.kind", optimizer<&O::kind>, any, {"adafactor", "adamw"}, "the update rule"},
        {"optimizer.learning_rate", optimizer<&O::learning_rate>, above(0), no_names, "peak rate; relative to the parameter's RMS under scale_by_parameter"},
        {"optimizer.schedule", optimizer<&O::schedule>, any, {"constant", "inverse_sqrt", "linear", "cosine"},
         "constant; learning_rate / sqrt(max(step, warmup_steps)); straight line or half cosine to final_fraction at train.steps"},
        {"optimizer.warmup_steps", optimizer<&O::warmup_steps>, at_least(0), no_names, "linear ramp from 0; inverse_sqrt: constant so long"},
        {"optimizer.final_fraction", optimizer<&O::final_fraction>, within(0, 1), no_names, "linear, cosine: last rate / learning_rate"},
        {"optimizer.beta1", optimizer<&O::beta1>, probability, no_names, "adamw: decay of the first moment"},
        {"optimizer.beta2", optimizer<&O::beta2>, probability, no_names, "adamw: decay of the second moment"},
        {"optimizer.epsilon", optimizer<&O::epsilon>, above(0), no_names, "adamw: added outside the root"},
        {"optimizer.weight_decay", optimizer<&O::weight_decay>, at_least(0), no_names, "adamw: decoupled, weight matrices only"},
        {"optimizer.decay_vectors", optimizer<&O::decay_vectors>, any, no_names, "adamw: weight decay also for vectors (norm gains)"},
        {"optimizer.clipping_threshold", optimizer<&O::clipping_threshold>, at_least(0), no_names, "adafactor: largest RMS of an update; 0: no limit"},
        {"optimizer.scale_by_parameter", optimizer<&O::scale_by_parameter>, any, no_names, "adafactor: step relative to the parameter's RMS"},
        {"optimizer.factored", optimizer<&O::factored>, any, no_names, "adafactor: second moments as row and column means"},
        {"optimizer.min_factored", optimizer<&O::min_factored>, at_least(1), no_names, "adafactor: both dimensions of a factored matrix are at least so large"},
        {"optimizer.decay_exponent", optimizer<&O::decay_exponent>, above(0), no_names, "adafactor: decay at step t is 1 - (t+1)^-decay_exponent"},
        {"optimizer.squared_epsilon", optimizer<&O::squared_epsilon>, above(0), no_names, "adafactor: added to squared gradients"},
        {"optimizer.minimum_scale", optimizer<&O::minimum_scale>, above(0), no_names, "adafactor: least RMS of a parameter in the relative step"},
    });
}

void add_eval(std::vector<Option>& rows) {
    rows.insert(rows.end(), {
        changeable({"eval.every", eval<&E::every>, at_least(0), no_names, "steps between validations; 0: only at the end"}),
        {"eval.metric", eval<&E::metric>, any, {"loss", "accuracy", "exact_match", "f1", "macro_f1", "f1a", "rouge_l", "pearson", "spearman", "consistency"},
         "what best and early stopping mean; all but loss are of eval.samples answers (src/eval/task_metrics.hpp)"},
        {"eval.samples", eval<&E::samples>, at_least(0), no_names, "validation examples that are answered, evenly chosen; 0: none"},
        changeable({"eval.patience", eval<&E::patience>, at_least(0), no_names, "validations without improvement that end the run; 0: no early stopping"}),
        changeable({"eval.min_delta", eval<&E::min_delta>, at_least(0), no_names, "least improvement that counts"}),
        changeable({"eval.keep_best", eval<&E::keep_best>, any, no_names, "keep the best checkpoint"}),
        changeable({"eval.test_split", eval<&E::test_split>, any, no_names, "at the end the best checkpoint answers this split of data.mixture (test.json in the run directory); empty: no test"}),
    });
}

void add_parallel(std::vector<Option>& rows) {
    rows.insert(rows.end(), {
        changeable({"parallel.data", parallel<&P::data>, within(0, 1e6), no_names, "ranks with the same weights and other rows; 0: what is left of the ranks"}),
        changeable({"parallel.expert", parallel<&P::expert>, within(1, 1e6), no_names, "ranks that share the experts among them"}),
        changeable({"parallel.tensor", parallel<&P::tensor>, within(1, 1e6), no_names, "ranks that share every matrix among them"}),
        changeable({"parallel.sequence", parallel<&P::sequence>, any, no_names, "tensor ranks share the tokens where nothing is split (residual stream, norms, dropout): less memory"}),
        changeable({"parallel.exchange_chunks", parallel<&P::exchange_chunks>, within(1, 64), no_names, "parts in which rows travel between expert ranks, beside the products with the part before"}),
        changeable({"parallel.shard_optimizer", parallel<&P::shard_optimizer>, any, no_names,
                    "divide optimizer state over the ranks with the same weights, and with train.dtype = bf16 and train.forward = bf16 the f32 master weights too; the same results"}),
        changeable({"parallel.check_every", parallel<&P::check_every>, at_least(0), no_names, "steps between comparisons of equal weights on several ranks; 0: never"}),
        changeable({"parallel.patience", parallel<&P::patience>, at_least(0), no_names, "seconds without a sign of life that end the run (exit 77); 0: not watched"}),
        changeable({"parallel.timeout", parallel<&P::timeout>, at_least(0), no_names, "seconds in one collective, on the host or on a GPU, that end the run (exit 77); 0: no limit"}),
    });
}

}  // namespace

const std::vector<Option>& options() {
    static const std::vector<Option> rows = [] {
        std::vector<Option> all;
        add_model(all);
        add_moe(all);
        add_data(all);
        add_train(all);
        add_optimizer(all);
        add_eval(all);
        add_parallel(all);
        return all;
    }();
    return rows;
}

const Option* find_option(const std::string& key) {
    for (const Option& option : options())
        if (option.key == key) return &option;
    return nullptr;
}

std::string Range::text() const {
    const bool lower = low > -std::numeric_limits<double>::infinity(), upper = high < std::numeric_limits<double>::infinity();
    if (lower && upper) return fmt::format("in {}{}, {}{}", open_low ? "(" : "[", low, high, open_high ? ")" : "]");
    if (lower) return fmt::format("{} {}", open_low ? "above" : "at least", low);
    return fmt::format("{} {}", open_high ? "below" : "at most", high);
}

}  // namespace flanmoe

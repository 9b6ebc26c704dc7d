// flanmoe convert: a model directory made from another: other stored type, other shards, or a dense model upcycled to a Mixture of Experts.
#include "checkpoint/conversion.hpp"
#include "checkpoint/hf_config.hpp"
#include "checkpoint/resolve.hpp"
#include "cli/checks.hpp"
#include "cli/commands.hpp"
#include "cli/model_argument.hpp"
#include "cli/table.hpp"
#include "config/limits.hpp"
#include "core/file.hpp"
#include "train/memory.hpp"

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <filesystem>
#include <memory>

namespace flanmoe::cli {

namespace {

namespace fs = std::filesystem;

struct Options {
    std::string source, target, dtype, router = "switch";
    std::vector<std::string> settings;
    double shard_gigabytes = 5;
    int64_t experts = 0, every = 2, seed = 0, row_tokens = -1;
    bool keep_optimizer = false, no_check = false;
};

// The dense model with [moe] as the options say; experts are shaped like its feed-forward unless --set says otherwise, which is then refused.
ModelConfig wanted_model(const ModelConfig& dense, const Options& options) {
    ModelConfig base = dense;
    base.expert_activation = dense.activation, base.expert_gated = dense.gated, base.expert_d_ff = 0;
    std::vector<std::string> settings = {fmt::format("moe.experts={}", options.experts), fmt::format("moe.every={}", options.every), "moe.router=" + options.router};
    settings.insert(settings.end(), options.settings.begin(), options.settings.end());
    return upcycled_model(dense, override_moe(base, settings));
}

// As most of the source is stored; f32 where that is neither of ours.
DType stored_as(const fs::path& source) {
    const WeightFiles weights(source);
    int64_t bf16_bytes = 0, other_bytes = 0;
    for (const SafetensorsFile& file : weights.files())
        for (const TensorEntry& entry : file.entries()) (entry.type == StoredType::bf16 ? bf16_bytes : other_bytes) += entry.bytes();
    return bf16_bytes > other_bytes ? DType::bf16 : DType::f32;
}

// The length of an encoder row of the run that made the source, for the integer capacity in Switch's config.json; 0 if that is not known.
int64_t row_tokens_of(const fs::path& source) {
    const fs::path path = source / "training" / "config.toml";
    return fs::exists(path) ? parse_config(read_file(path, int64_t{1} << 20), path.string(), false).data.encoder_length : 0;
}

// Both models answer the same tokens; what the router's definition promises must hold, what it does not is reported with the measured difference.
void check_function(const fs::path& parent, const fs::path& child, const ModelConfig& model, DType weights) {
    const Transformer declared(model);
    check_memory(memory_of_weights(declared.parameters(), DType::f32), declared.parameters().parameter_count());
    const FunctionDifference difference = compare_functions(parent, child);
    const std::string measured = fmt::format("largest difference of a logit {:.2g}, {:.2g} of their root mean square", difference.largest, difference.relative());
    const std::string reason = changed_function(model);
    if (!reason.empty()) {
        fmt::print("function: not the parent's at step 0, because {}; {}\n", reason, measured);
        return;
    }
    const double tolerance = weights == DType::bf16 ? 0.1 : 1e-4;  // rounding of weights to 8 bits; rounding of sums in f32
    if (!(difference.relative() <= tolerance))
        fail(Exit::internal, "the upcycled model should compute what its parent computes, but does not ({}); nothing was kept, please report this", measured);
    fmt::print("function: the parent's at step 0 where nothing is dropped; {}\n", measured);
}

void convert(const CLI::App& command, const Options& options) {
    const bool upcycling = command.count("--experts") > 0;
    for (const char* flag : {"--every", "--router", "--set", "--seed", "--no-check"})
        if (!upcycling && command.count(flag) > 0) fail(Exit::usage, "{} is for upcycling; give --experts too", flag);
    const fs::path source = resolve_checkpoint(options.source);
    ConversionSettings settings;
    settings.model = read_model_config(source);
    if (upcycling) settings.model = wanted_model(settings.model, options);
    settings.weights = options.dtype.empty() ? stored_as(source) : options.dtype == "bf16" ? DType::bf16 : DType::f32;
    settings.shard_bytes = static_cast<int64_t>(options.shard_gigabytes * 1e9);
    settings.row_tokens = options.row_tokens < 0 ? row_tokens_of(source) : options.row_tokens;
    settings.seed = static_cast<uint64_t>(options.seed);
    settings.keep_optimizer = options.keep_optimizer;
    const auto check = [&](const fs::path& folder) {
        if (upcycling && !options.no_check) check_function(source, folder, settings.model, settings.weights);
    };
    const ConversionResult result = convert_model(source, options.target, settings, check);
    fmt::print("{}: {}, {} tensors, {} as {} in {} {}\n", options.target, name_of(layout_of(settings.model)), thousands(result.tensors), human_bytes(result.bytes), name_of(settings.weights),
               result.files, result.files == 1 ? "file" : "files");
    if (upcycling)
        fmt::print("{} {} in encoder layers [{}] and decoder layers [{}]: {} tensors copied, {} new\n", settings.model.experts, settings.model.experts == 1 ? "expert" : "experts", fmt::join(settings.model.encoder_sparse, ", "),
                   fmt::join(settings.model.decoder_sparse, ", "), thousands(result.copied), thousands(result.drawn));
}

}  // namespace

void add_convert(CLI::App& program) {
    auto options = std::make_shared<Options>();
    CLI::App* command = program.add_subcommand("convert", "Make a model directory from another: other type, other shards, or a dense model upcycled to experts");
    command->add_option("SOURCE", options->source, "Model directory (ours or Hugging Face's), checkpoint, or folder of a run: its best or else its newest checkpoint")->required();
    command->add_option("OUT", options->target, "directory to make; must not exist")->required();
    command->add_option("--dtype", options->dtype, "stored type: f32 or bf16 (routers stay f32); default: the source's")->check(CLI::IsMember({"f32", "bf16"}))->type_name("DTYPE");
    command->add_option("--shard-gb", options->shard_gigabytes, "largest file of weights, in units of 10^9 bytes")->check(above_zero)->capture_default_str();
    command->add_option("--experts", options->experts, "upcycle a dense model: so many experts, each a copy of the dense feed-forward, under a new router")->check(CLI::Range(int64_t{1}, most_experts));
    command->add_option("--every", options->every, "upcycling: every n-th layer is sparse")->check(above_zero)->capture_default_str();
    command->add_option("--router", options->router, "upcycling: moe.router of the new model")->capture_default_str();
    command->add_option("--set", options->settings, "upcycling: any other option of [moe]: moe.key=value (repeatable)")->type_name("KEY=VALUE")->expected(1)->allow_extra_args(false)
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
    command->add_option("--seed", options->seed, "upcycling: of the new routers")->check(not_negative)->capture_default_str();
    command->add_flag("--no-check", options->no_check, "upcycling: do not compare the new model's function with its parent's (which loads one after the other)");
    command->add_flag("--keep-optimizer", options->keep_optimizer, "take optimizer state along, for a stage with train.reset_optimizer = false; else the model alone");
    command->add_option("--row-tokens", options->row_tokens,
                        "row length for which the integer expert_capacity in Switch's config.json is computed; 0: nothing is dropped there; default: of the run that made the source")
        ->check(not_negative);
    command->footer("Examples:\n  flanmoe convert runs/pretrain model-bf16 --dtype bf16 --shard-gb 2\n"
                    "  flanmoe convert t5-base upcycled --experts 8 --every 2 --router gshard --set moe.encoder.layers=[1,3,5]\n\n"
                    "Upcycled directories are for train.start_from; the directory appears when it is complete, or not at all.");
    command->callback([command, options] { convert(*command, *options); });
}

}  // namespace flanmoe::cli

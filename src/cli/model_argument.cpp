#include "cli/model_argument.hpp"

#include "checkpoint/model_directory.hpp"
#include "checkpoint/resolve.hpp"
#include "config/config.hpp"
#include "config/limits.hpp"
#include "core/file.hpp"
#include "core/log.hpp"
#include "train/memory.hpp"

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>
#include <omp.h>

#include <algorithm>

namespace flanmoe::cli {

namespace {

namespace fs = std::filesystem;

// How many sentinels the model's own tokenizer files name; T5's 100 if there are none.
int64_t sentinels_of(const fs::path& folder) {
    const fs::path path = folder / "tokenizer_config.json";
    if (!fs::exists(path)) return 100;
    const nlohmann::json json = nlohmann::json::parse(read_file(path), nullptr, false);
    if (json.is_discarded() || !json.is_object()) fail(Exit::bad_data, "{} is not a JSON object; get the tokenizer's files again", path.string());
    if (!json.contains("additional_special_tokens") || !json["additional_special_tokens"].is_array()) return 100;
    int64_t count = 0;
    for (const nlohmann::json& token : json["additional_special_tokens"]) {
        const nlohmann::json& name = token.is_object() && token.contains("content") ? token["content"] : token;
        count += name.is_string() && name.get_ref<const std::string&>().starts_with("<extra_id_");
    }
    return count;
}

}  // namespace

void ModelArgument::add_to(CLI::App& command) {
    command.add_option("CHECKPOINT", checkpoint, "Model directory (ours or Hugging Face's), checkpoint, or folder of a run: its best or else its newest checkpoint")->required();
    command.add_option("--tokenizer", tokenizer, "spiece.model or its folder, if the model's folder has none");
    command.add_option_function<std::string>("--device", [this](const std::string& name) { device = name == "cuda" ? Device::cuda : Device::cpu; }, "What computes: cpu or cuda")
        ->check(CLI::IsMember({"cpu", "cuda"}).description(""))
        ->type_name("DEVICE")
        ->default_str("cpu");
    command
        .add_option_function<std::string>(
            "--dtype", [this](const std::string& name) { dtype = name == "f64" ? DType::f64 : name == "bf16" ? DType::bf16 : DType::f32; }, "Precision of the computation: f32, bf16 or f64")
        ->check(CLI::IsMember({"f32", "bf16", "f64"}).description(""))
        ->type_name("DTYPE")
        ->default_str("f32");
    command.add_option("--set", settings, "Another routing rule for this time: moe.key=value, such as moe.eval_capacity_factor=4; or how ranks share the work: parallel.key=value (repeatable)")
        ->type_name("KEY=VALUE")
        ->expected(1)
        ->allow_extra_args(false)
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
    command.add_option("--threads", threads, "Threads; 0 = one a core")->check(CLI::Range(int64_t{0}, most_threads))->capture_default_str();
}

ModelConfig override_moe(const ModelConfig& model, const std::vector<std::string>& settings) {
    if (settings.empty()) return model;
    for (const std::string& setting : settings)
        if (!setting.starts_with("moe.")) fail(Exit::usage, "--set {}: only options of [moe] can be set over a model that exists", setting);
    Config base;
    base.model = model;
    if (!model.encoder_decoder) base.data.encoder_length = 0, base.data.decoder_length = 512, base.data.objective = Objective::prefix_lm;
    Config config = override_config(base, settings);
    if (config.model.experts == 0) fail(Exit::usage, "--set {}: the model is dense, so there is no routing to change; flanmoe convert makes a sparse model of it", settings[0]);
    // There is no batch here: one that suits the groups, since only the model is judged.
    config.data.batch_rows = std::max<int64_t>(1, config.model.encoder_routing.group_rows) * std::max<int64_t>(1, config.model.decoder_routing.group_rows);
    validate(config);
    return config.model;
}

namespace {

// The settings of one section, or all others.
std::vector<std::string> of_section(const std::vector<std::string>& settings, const std::string& section, bool wanted) {
    std::vector<std::string> some;
    for (const std::string& setting : settings)
        if (setting.starts_with(section + ".") == wanted) some.push_back(setting);
    return some;
}

}  // namespace

RankSettings ModelArgument::ranks() const {
    Config base;
    base.parallel.data = 0;
    return {override_config(base, of_section(settings, "parallel", true)).parallel, device_for(device, dtype), "", command_line()};
}

LoadedModel ModelArgument::load(const Context& place, const Mesh& mesh) const {
    if (threads > 0) omp_set_num_threads(threads);
    const fs::path folder = resolve_checkpoint(checkpoint);
    LoadedModel loaded;
    loaded.path = folder.string();
    const ModelConfig stored = read_model_config(folder), wanted = override_moe(stored, of_section(settings, "parallel", false));
    if (wanted.experts != stored.experts) fail(Exit::usage, "moe.experts is {} in {} and cannot be changed; flanmoe convert makes a sparse model of a dense one", stored.experts, folder.string());
    loaded.model = std::make_unique<Transformer>(wanted, mesh);
    const fs::path vocabulary = tokenizer.empty() ? folder : fs::path(tokenizer);
    if (tokenizer.empty() && !fs::exists(folder / "spiece.model"))
        fail(Exit::missing_input, "{} has no spiece.model; name the model's vocabulary with --tokenizer", folder.string());
    loaded.tokenizer = Tokenizer::load(vocabulary, sentinels_of(folder));
    loaded.tokenizer->check_same(folder, "leave out --tokenizer");
    const ModelConfig& config = loaded.model->config();
    for (const std::string& warning : routing_warnings(config)) warn("{}", warning);
    loaded.tokenizer->check_fits(config.vocab_size, config.pad_id, config.eos_id);
    check_memory(memory_of_weights(loaded.model->parameters(), dtype), loaded.model->parameters().parameter_count(), *place.engine);
    loaded.model->parameters().allocate(dtype, false, place);
    load_model(folder, loaded.model->parameters());
    return loaded;
}

}  // namespace flanmoe::cli

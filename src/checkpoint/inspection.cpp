#include "checkpoint/inspection.hpp"

#include "checkpoint/checkpoint.hpp"
#include "checkpoint/hf_config.hpp"
#include "checkpoint/json_reader.hpp"
#include "checkpoint/manifest.hpp"
#include "checkpoint/tensor_tree.hpp"
#include "core/file.hpp"
#include "model/flops.hpp"

#include <map>

namespace flanmoe {

namespace {

namespace fs = std::filesystem;

constexpr int64_t small_file_limit = int64_t{1} << 26;
constexpr int64_t state_limit = int64_t{1} << 20;

bool contains(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

template <class AnyJson>
std::string value_text(const AnyJson& value) {
    if (value.is_string()) return printable(value.template get<std::string>());
    const std::string text = value.dump(-1, ' ', true);
    return text.size() <= 160 ? text : text.substr(0, 157) + "...";
}

TrainingSummary training_summary(const fs::path& folder) {
    TrainingSummary summary;
    const fs::path state = folder / "state.json", optimizer = folder / "optimizer.safetensors";
    if (fs::exists(state)) {
        const Json json = Json::parse(read_file(state, state_limit), nullptr, false);  // in the order of the file
        if (!json.is_object()) fail(Exit::bad_checkpoint, "{} is not a JSON object; it is damaged: use another checkpoint", state.string());
        for (const auto& [key, value] : json.items()) summary.state.emplace_back(printable(key), value_text(value));
    }
    if (fs::exists(optimizer)) {
        const SafetensorsFile file(optimizer);
        std::map<std::string, OptimizerSlot> slots;
        for (const TensorEntry& entry : file.entries()) {
            const size_t dot = entry.name.rfind('.');
            OptimizerSlot& slot = slots[printable(dot == std::string::npos ? entry.name : entry.name.substr(dot + 1))];
            ++slot.tensors, slot.elements += entry.elements(), slot.bytes += entry.bytes();
            summary.optimizer_bytes += entry.bytes();
        }
        for (auto& [name, slot] : slots) {
            slot.slot = name;
            summary.optimizer.push_back(slot);
        }
    }
    return summary;
}

void count(Inspection& found) {
    double active = 0;
    bool known = true;
    for (const SafetensorsFile& file : found.weights.files())
        for (const TensorEntry& entry : file.entries()) {
            const TensorKind kind = kind_of(entry.name);
            const int64_t n = entry.elements();
            found.parameters += n, found.bytes += entry.bytes();
            found.parameters_by_kind[static_cast<size_t>(kind)] += n;
            ++found.tensors_by_kind[static_cast<size_t>(kind)];
            double share = 1;
            if (kind == TensorKind::expert) {
                known &= found.config && found.config->experts > 0;
                if (known)
                    share = active_share(entry.name.starts_with("encoder.") ? found.config->encoder_routing : found.config->decoder_routing,
                                         found.config->experts);
            }
            active += share * static_cast<double>(n);
        }
    if (known) found.active = active;
}

std::string layers_text(const std::vector<int64_t>& layers) {
    std::string text;
    for (const int64_t layer : layers) text += fmt::format("{}{}", text.empty() ? "" : ",", layer);
    return text.empty() ? "none" : text;
}

const char* activation_text(Activation activation) {
    switch (activation) {
        case Activation::relu: return "relu";
        case Activation::gelu_tanh: return "gelu (tanh)";
        case Activation::gelu_erf: return "gelu (erf)";
        case Activation::silu: return "silu";
    }
    return "";
}

std::string router_text(const RoutingConfig& routing) {
    if (routing.kind == RouterKind::expert_choice) return "expert choice";
    if (routing.kind == RouterKind::balanced) return fmt::format("forced balanced, {} each", routing.k);
    return fmt::format("top-{}{}{}", routing.k, routing.normalize ? " normalised" : "", routing.balance_bias ? " with balance bias" : "");
}

}  // namespace

const char* name_of(TensorKind kind) {
    constexpr const char* names[] = {"embedding", "attention", "feed-forward", "experts", "router", "norm", "output head", "other"};
    return names[static_cast<int>(kind)];
}

TensorKind kind_of(std::string_view name) {
    if (name == "lm_head.weight") return TensorKind::head;
    if (name == "shared.weight" || contains(name, "embed_tokens")) return TensorKind::embedding;
    if (contains(name, ".router.") || contains(name, ".gate.") || contains(name, "shared_expert_gate")) return TensorKind::router;
    if (contains(name, ".experts.")) return TensorKind::expert;
    if (contains(name, "norm")) return TensorKind::norm;
    if (contains(name, "Attention") || contains(name, "self_attn")) return TensorKind::attention;
    if (contains(name, "DenseReluDense") || contains(name, ".mlp.")) return TensorKind::ffn;
    return TensorKind::other;
}

Inspection inspect(const fs::path& path) {
    std::error_code error;
    if (!fs::exists(path, error))
        fail(Exit::missing_input, "{} does not exist; name a checkpoint, a model directory or a safetensors file", path.string());
    const bool directory = fs::is_directory(path);
    if (directory && !fs::exists(path / "config.json") && fs::exists(path / "checkpoints")) {
        const auto all = list_checkpoints(path);
        fail(Exit::missing_input, "{} is the folder of a run; name one of its checkpoints{}", path.string(),
             all.empty() ? "" : ", " + all.back().second.string());
    }
    Inspection found{path,
                     directory ? fs::exists(path / "manifest.json") ? "flanmoe checkpoint" : "model directory" : "safetensors file",
                     WeightFiles(path),
                     {},
                     "",
                     {},
                     0,
                     0,
                     {},
                     {},
                     {}};
    if (directory && fs::exists(path / "config.json")) {
        try {
            found.config = parse_hf_config(read_file(path / "config.json", small_file_limit), (path / "config.json").string());
        } catch (const Error& problem) {
            found.config_problem = problem.what();
        }
    }
    if (directory && fs::is_directory(path / "training")) found.training = training_summary(path / "training");
    count(found);
    return found;
}

std::string describe(const ModelConfig& c) {
    const std::string depth = c.encoder_decoder ? fmt::format("{} + {} layers", c.encoder_layers, c.decoder_layers)
                                                : fmt::format("{} layers, decoder only", c.decoder_layers);
    std::string attention = c.kv_heads && c.kv_heads != c.heads ? fmt::format(" ({} of keys)", c.kv_heads) : "";
    if (c.rotary > 0) attention += fmt::format(", rotary {:g}", c.rotary);
    if (c.attention_window > 0) attention += fmt::format(", window {}", c.attention_window);
    std::string text =
        fmt::format("{}: {}, d_model {}, {} heads x {}{}, d_ff {} {}{}, vocabulary {} {}", name_of(layout_of(c)), depth, c.d_model, c.heads, c.d_kv, attention,
                    c.d_ff, c.gated ? "gated " : "", activation_text(c.activation), c.vocab_size, c.tied ? "tied" : "untied");
    if (!c.encoder_d_ff.empty()) text += fmt::format("\nencoder d_ff by layer: {}", layers_text(c.encoder_d_ff));
    if (!c.decoder_d_ff.empty()) text += fmt::format("\ndecoder d_ff by layer: {}", layers_text(c.decoder_d_ff));
    if (c.experts == 0) return text;
    text += fmt::format("\n{} experts{}, {}{}", c.experts, c.expert_d_ff && c.expert_d_ff != c.d_ff ? fmt::format(" of d_ff {}", c.expert_d_ff) : "",
                        c.expert_gated ? "gated " : "", activation_text(c.expert_activation));
    if (c.shared_d_ff > 0) text += fmt::format(", shared expert of d_ff {}{}", c.shared_d_ff, c.shared_gate ? ", gated" : "");
    if (c.encoder_decoder) text += fmt::format("; encoder layers {}, {}", layers_text(c.encoder_sparse), router_text(c.encoder_routing));
    return text + fmt::format("; decoder layers {}, {}", layers_text(c.decoder_sparse), router_text(c.decoder_routing));
}

std::vector<std::string> verify_path(const fs::path& path, std::vector<std::string>& checked) {
    std::vector<std::string> problems;
    const auto attempt = [&](const std::string& what, auto action) {
        try {
            checked.push_back(what + ": " + action());
        } catch (const Error& error) {
            problems.push_back(error.what());
        }
    };
    const auto headers = [](const WeightFiles& weights) {
        return fmt::format("{} files, {} tensors: every rule of the format holds", weights.files().size(), weights.tensors());
    };
    attempt("weights", [&] { return headers(WeightFiles(path)); });
    if (!fs::is_directory(path)) return problems;
    if (fs::exists(path / "training" / "optimizer.safetensors"))
        attempt("optimizer", [&] { return headers(WeightFiles(path / "training" / "optimizer.safetensors")); });
    if (fs::exists(path / "config.json"))
        attempt("config.json", [&] { return std::string(read_model_config(path).experts > 0 ? "sparse" : "dense") + " model, fits the embedding"; });
    if (!fs::exists(path / "manifest.json")) {
        if (fs::exists(path / "training")) {
            problems.push_back(fmt::format("{} has a training state but no manifest.json, so it was never completed or the file is lost; training does not go on from it", path.string()));
            return problems;
        }
        checked.push_back("hashes: none, as there is no manifest.json (only our checkpoints have one)");
        return problems;
    }
    const std::vector<std::string> broken = verify_checkpoint(path);
    problems.insert(problems.end(), broken.begin(), broken.end());
    if (broken.empty()) checked.push_back(fmt::format("manifest: the sizes and hashes of {} files hold", read_manifest(path).files.size()));
    return problems;
}

std::vector<std::string> config_differences(const fs::path& a, const fs::path& b) {
    const ParsedJson left = parse_json_object(read_file(a, small_file_limit), a.string()).flatten(),
                     right = parse_json_object(read_file(b, small_file_limit), b.string()).flatten();
    std::vector<std::string> differences;
    const auto dotted = [](std::string pointer) {
        std::replace(pointer.begin(), pointer.end(), '/', '.');
        return printable(pointer.substr(1));
    };
    for (const auto& [key, value] : left.items()) {
        if (!right.contains(key))
            differences.push_back(fmt::format("{}: {} -> (absent)", dotted(key), value_text(value)));
        else if (right[key] != value)
            differences.push_back(fmt::format("{}: {} -> {}", dotted(key), value_text(value), value_text(right[key])));
    }
    for (const auto& [key, value] : right.items())
        if (!left.contains(key)) differences.push_back(fmt::format("{}: (absent) -> {}", dotted(key), value_text(value)));
    return differences;
}

}  // namespace flanmoe

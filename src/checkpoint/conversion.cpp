#include "checkpoint/conversion.hpp"

#include "checkpoint/checkpoint.hpp"
#include "checkpoint/hashed_file.hpp"
#include "checkpoint/hf_names.hpp"
#include "checkpoint/manifest.hpp"
#include "core/file.hpp"
#include "core/random.hpp"
#include "model/transformer.hpp"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <set>

namespace flanmoe {

namespace {

namespace fs = std::filesystem;

// Files of a vocabulary that go along as they are.
constexpr const char* vocabulary_files[] = {"spiece.model",      "tokenizer.model", "tokenizer.json", "tokenizer_config.json",
                                            "special_tokens_map.json", "added_tokens.json", "vocab.json",     "merges.txt"};

// Layouts have other names for the same place; this is one for all.
std::string common_name(const std::string& name) { return name_in_layout(name, HfLayout::flanmoe); }

// The dense tensor that an expert's is a copy of: "...mlp.experts.expert_3.wi.weight" -> "...mlp.wi.weight". Other names stay.
std::string dense_name(std::string name) {
    const size_t at = name.find(".experts.expert_");
    if (at != std::string::npos) name.erase(at, name.find('.', at + std::strlen(".experts.")) - at);
    return name;
}

class Conversion {
public:
    Conversion(const fs::path& source, const ConversionSettings& settings)
        : source_(source), settings_(settings), parent_(read_model_config(source)), child_(settings.model), weights_(source), upcycling_(parent_.config().experts == 0 && settings.model.experts > 0) {
        for (const auto& [name, place] : locate_model(weights_, parent_.parameters(), source)) places_[common_name(name)] = place;
        find_sources();
    }

    ConversionResult write(const fs::path& folder) {
        SaveModelOptions options{settings_.weights, settings_.shard_bytes, settings_.row_tokens};
        const TensorMaker make = [this](const Parameter& p, int64_t expert) { return values(p, expert); };
        FileHashes hashes = save_model_by_tensor(folder, child_.config(), child_.parameters(), make, vocabulary(), options);
        for (const auto& [name, hash] : hashes) result_.files += name.ends_with(".safetensors");
        if (settings_.keep_optimizer) write_training(folder / "training", hashes);
        const int64_t step = fs::exists(source_ / "manifest.json") ? read_manifest(source_).step : 0;
        write_manifest(folder, step, hashes);
        sync_directory(folder);
        return result_;
    }

    int64_t bytes() const { return result_.bytes; }

private:
    // The place of the values of a child's tensor in the source; none for new ones.
    const WeightFiles::Found* source_of(const Parameter& p, int64_t expert) const {
        const std::string name = common_name(p.tensor_name(expert));
        const auto found = places_.find(upcycling_ ? dense_name(name) : name);
        return found == places_.end() ? nullptr : &found->second;
    }

    // Every tensor of the source goes somewhere, and only an upcycled model has new ones.
    void find_sources() {
        std::set<const TensorEntry*> used;
        for (const Parameter& p : child_.parameters().records()) {
            for (int64_t e = 0; e < p.tensors(); ++e) {
                const WeightFiles::Found* place = source_of(p, e);
                if (place) used.insert(place->entry);
                require(place || upcycling_, "a source for every tensor of a model that is not upcycled");
                ++(place ? result_.copied : result_.drawn);
                ++result_.tensors;
                result_.bytes += p.shape.elements() * size_of(p.kind == ParameterKind::router ? DType::f32 : settings_.weights);
            }
        }
        require(used.size() == places_.size(), "a use for every tensor of the source");
    }

    HostTensor values(const Parameter& p, int64_t expert) const {
        if (const WeightFiles::Found* place = source_of(p, expert)) return place->file->load(*place->entry, DType::f32);
        HostTensor drawn(DType::f32, p.shape);
        initialise_tensor(p, expert, settings_.seed, drawn.view());
        // A new dense feed-forward (ST-MoE's extra one) begins as nothing: its output is zero.
        if (p.kind == ParameterKind::ffn && p.name.ends_with(".wo.weight")) std::memset(drawn.memory.get(), 0, static_cast<size_t>(drawn.view().bytes()));
        return drawn;
    }

    ExtraFiles vocabulary() const {
        ExtraFiles files;
        for (const char* name : vocabulary_files)
            if (fs::exists(source_ / name)) files[name] = read_file(source_ / name);
        return files;
    }

    // Optimizer state by the rule of the weights; the source's state.json tells how old it is.
    void write_training(const fs::path& folder, FileHashes& hashes) const {
        const SavedState state = read_training_state(source_);
        const SafetensorsFile slots(source_ / "training" / "optimizer.safetensors");
        // A slot is called as its tensor, with ".v" or the like behind.
        std::map<std::string, std::vector<const TensorEntry*>> by_tensor;
        for (const TensorEntry& entry : slots.entries()) by_tensor[common_name(entry.name.substr(0, entry.name.rfind('.')))].push_back(&entry);
        SafetensorsWriter writer;
        for (const Parameter& p : child_.parameters().records()) {
            for (int64_t e = 0; e < p.tensors(); ++e) {
                const std::string name = p.tensor_name(e), plain = common_name(name);
                const auto found = by_tensor.find(upcycling_ ? dense_name(plain) : plain);
                if (found == by_tensor.end()) continue;
                for (const TensorEntry* entry : found->second) {
                    Shape shape;
                    for (const int64_t size : entry->shape) shape.sizes[static_cast<size_t>(shape.rank++)] = size;
                    writer.add(name + entry->name.substr(entry->name.rfind('.')), shape, DType::f32, [&slots, entry] { return slots.load(*entry, DType::f32); });
                }
            }
        }
        std::error_code error;
        if (!fs::create_directory(folder, error)) fail(Exit::cannot_create, "cannot create the folder {}: {}", folder.string(), error.message());
        hashes["training/optimizer.safetensors"] = writer.write(folder / "optimizer.safetensors");
        hashes["training/state.json"] = write_hashed(folder / "state.json", state.state_json);
        hashes["training/config.toml"] = write_hashed(folder / "config.toml", state.config_toml);
        sync_directory(folder);
    }

    const fs::path& source_;
    const ConversionSettings& settings_;
    Transformer parent_, child_;  // declared only
    WeightFiles weights_;
    bool upcycling_;
    std::map<std::string, WeightFiles::Found> places_;
    ConversionResult result_;
};

std::vector<float> logits_of(const fs::path& path) {
    Transformer model(read_model_config(path));
    model.parameters().allocate(DType::f32, false);
    load_model(path, model.parameters());
    const ModelConfig& config = model.config();
    Batch batch;
    batch.rows = 2, batch.encoder_length = config.encoder_decoder ? 24 : 0, batch.decoder_length = 16;
    RandomStream random({11, 0, 0, Purpose::shuffle});
    const auto ids = [&](int64_t count) {
        std::vector<int32_t> drawn(static_cast<size_t>(count));
        for (int32_t& id : drawn) id = static_cast<int32_t>(random.below(static_cast<uint64_t>(config.vocab_size)));
        return drawn;
    };
    batch.encoder_ids = ids(batch.rows * batch.encoder_length), batch.encoder_segments.assign(batch.encoder_ids.size(), 1);
    batch.decoder_ids = ids(batch.rows * batch.decoder_length), batch.decoder_segments.assign(batch.decoder_ids.size(), 1);
    Context context;
    Pass pass{.context = context, .parameters = model.parameters(), .config = config, .route_rows_alone = true, .no_drop = true};
    TransformerSaved saved;
    const Tensor logits = model.logits(pass, model.forward(pass, batch, saved));
    return std::vector<float>(logits.as<float>(), logits.as<float>() + logits.elements());
}

}  // namespace

ModelConfig upcycled_model(const ModelConfig& dense, ModelConfig wanted) {
    if (dense.experts > 0) fail(Exit::usage, "the model has {} experts already; only a dense model is upcycled", dense.experts);
    if (wanted.experts == 0) fail(Exit::usage, "upcycling needs experts; give their number with --experts");
    const int64_t width = wanted.expert_width();
    for (const bool decoder : {false, true}) {
        for (const int64_t layer : decoder ? wanted.decoder_sparse : wanted.encoder_sparse) {
            if (dense_width(dense, decoder, layer) != width)
                fail(Exit::usage, "experts of width {} cannot be copies of the feed-forward of {} layer {}, whose width is {}; set moe.expert_d_ff = {}, or other sparse layers", width,
                     decoder ? "decoder" : "encoder", layer, dense_width(dense, decoder, layer), dense_width(dense, decoder, layer));
        }
    }
    if (wanted.expert_gated != dense.gated || wanted.expert_activation != dense.activation)
        fail(Exit::usage, "experts with another activation cannot be copies of the model's feed-forwards; leave moe.activation out");
    if (wanted.shared_d_ff > 0) fail(Exit::usage, "nothing in a dense model stands for a shared expert; leave moe.shared_d_ff out");
    wanted.flanmoe_layout = false;
    return wanted;
}

std::string changed_function(const ModelConfig& c) {
    for (const bool decoder : {false, true}) {
        if ((decoder ? c.decoder_sparse : c.encoder_sparse).empty()) continue;
        const RoutingConfig& r = decoder ? c.decoder_routing : c.encoder_routing;
        const char* stack = decoder ? "decoder" : "encoder";
        if (r.kind == RouterKind::expert_choice) return fmt::format("under expert choice the gates of a token of the {} do not sum to one", stack);
        if (r.kind != RouterKind::token_choice) return fmt::format("the {} does not route by its gates", stack);
        if (!r.normalize && c.experts > 1) return fmt::format("the {}'s gates are raw probabilities, which scale the experts' output; moe.normalize = true keeps the function", stack);
        if (r.k > 1 && r.second_eval != SecondPolicy::all) return fmt::format("the {} leaves out some further choices without rescaling the first", stack);
    }
    return "";
}

ConversionResult convert_model(const fs::path& source, const fs::path& target, const ConversionSettings& settings, const std::function<void(const fs::path&)>& check) {
    const fs::path whole = fs::absolute(target).lexically_normal(), final_path = whole.has_filename() ? whole : whole.parent_path(), parent = final_path.parent_path();
    if (fs::exists(fs::symlink_status(final_path))) fail(Exit::cannot_create, "{} exists already; name another directory, or remove it", target.string());
    Conversion conversion(source, settings);
    std::error_code error;
    fs::create_directories(parent, error);
    if (error) fail(Exit::cannot_create, "cannot create the folder {}: {}; check the path and its permissions", parent.string(), error.message());
    check_free_space(parent, conversion.bytes());
    const fs::path temporary = parent / (".tmp-" + final_path.filename().string());
    fs::remove_all(temporary, error);  // of a conversion that was killed
    try {
        const ConversionResult result = conversion.write(temporary);
        if (check) check(temporary);
        if (std::rename(temporary.c_str(), final_path.c_str()) != 0)
            fail(Exit::io, "renaming {} to {} failed: {}", temporary.string(), final_path.string(), std::strerror(errno));
        sync_directory(parent);
        return result;
    } catch (...) {
        fs::remove_all(temporary, error);
        throw;
    }
}

FunctionDifference compare_functions(const fs::path& first, const fs::path& second) {
    const std::vector<float> a = logits_of(first), b = logits_of(second);
    require(a.size() == b.size(), "models of the same vocabulary");
    FunctionDifference difference;
    double squares = 0;
    for (size_t i = 0; i < a.size(); ++i) {
        const double apart = std::fabs(static_cast<double>(a[i]) - b[i]);
        // A NaN in either counts as infinitely far apart.
        difference.largest = std::isnan(apart) ? INFINITY : std::max(difference.largest, apart);
        squares += static_cast<double>(a[i]) * a[i];
    }
    difference.rms = std::sqrt(squares / static_cast<double>(a.size()));
    return difference;
}

}  // namespace flanmoe

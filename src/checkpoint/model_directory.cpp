#include "checkpoint/model_directory.hpp"

#include "checkpoint/hashed_file.hpp"
#include "checkpoint/hf_config.hpp"
#include "checkpoint/hf_names.hpp"
#include "checkpoint/json_reader.hpp"
#include "core/file.hpp"
#include "core/log.hpp"

#include <algorithm>
#include <set>

namespace flanmoe {

namespace {

namespace fs = std::filesystem;

constexpr int64_t config_limit = int64_t{1} << 20;
constexpr int64_t index_limit = int64_t{128} << 20;
constexpr size_t tensors_per_file = 50'000;  // keeps headers far below the reader's limit
constexpr const char* single_name = "model.safetensors";
constexpr const char* index_name = "model.safetensors.index.json";
constexpr const char* embedding_name = "shared.weight";
constexpr const char* head_name = "lm_head.weight";
// Other names of the embedding table that a file may hold besides.
constexpr const char* embedding_aliases[] = {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight"};
// Left over in very old T5 files; no layer has it.
constexpr const char* junk_name = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight";
// Left over in old Mixtral files; computed from the config.
constexpr const char* junk_ending = ".rotary_emb.inv_freq";

bool plain_name(const std::string& name) {
    return !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos && name.find('\0') == std::string::npos;
}

void create_folder(const fs::path& path) {
    std::error_code error;
    fs::create_directories(path, error);
    if (error) fail(Exit::cannot_create, "cannot create the folder {}: {}; check the path and its permissions", path.string(), error.message());
}

struct StoredTensor {
    std::string name;
    Shape shape;
    DType type;
    Tensor values;                     // or:
    std::function<HostTensor()> make;
    int64_t bytes() const { return shape.elements() * size_of(type); }
};

// From the store's weights, or from `make` if that is given.
std::vector<StoredTensor> stored_tensors(const ParameterStore& store, HfLayout layout, DType weights, const TensorMaker& make) {
    std::vector<StoredTensor> tensors;
    for (const Parameter& p : store.records()) {
        for (int64_t e = 0; e < p.tensors(); ++e) {
            StoredTensor tensor{name_in_layout(p.tensor_name(e), layout), p.shape, p.kind == ParameterKind::router ? DType::f32 : weights, {}, {}};
            if (make)
                tensor.make = [&make, &p, e] { return make(p, e); };
            else
                tensor.values = store.master(p, e);
            tensors.push_back(std::move(tensor));
        }
    }
    return tensors;
}

// Greedy, in order; a tensor above the limit gets a file of its own.
std::vector<std::vector<StoredTensor>> cut_into_shards(std::vector<StoredTensor> tensors, int64_t limit) {
    std::vector<std::vector<StoredTensor>> shards(1);
    int64_t bytes = 0;
    for (StoredTensor& tensor : tensors) {
        if (!shards.back().empty() && (bytes + tensor.bytes() > limit || shards.back().size() >= tensors_per_file)) {
            shards.emplace_back();
            bytes = 0;
        }
        bytes += tensor.bytes();
        shards.back().push_back(std::move(tensor));
    }
    return shards;
}

void write_weights(const fs::path& directory, const std::vector<std::vector<StoredTensor>>& shards, Engine& engine, bool write, FileHashes& hashes) {
    ParsedJson map = ParsedJson::object();
    int64_t total = 0;
    for (size_t i = 0; i < shards.size(); ++i) {
        const std::string name = shards.size() == 1 ? single_name : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
        SafetensorsWriter writer;
        for (const StoredTensor& tensor : shards[i]) {
            if (tensor.make)
                writer.add(tensor.name, tensor.shape, tensor.type, tensor.make);
            else
                writer.add(tensor.name, tensor.values, tensor.type, engine);
            if (shards.size() > 1) map[tensor.name] = name;
        }
        total += writer.tensor_bytes();
        if (write) hashes[name] = writer.write(directory / name);
        else writer.make_all();
    }
    if (shards.size() == 1 || !write) return;
    ParsedJson index;
    index["metadata"] = {{"total_size", total}};
    index["weight_map"] = std::move(map);
    hashes[index_name] = write_hashed(directory / index_name, index.dump(2) + "\n");
}

void remove_stale_weights(const fs::path& directory) {
    for (const fs::directory_entry& entry : fs::directory_iterator(directory)) {
        const std::string name = entry.path().filename().string();
        if (name.starts_with("model") && (name.ends_with(".safetensors") || name == index_name)) fs::remove(entry.path());
    }
}

// file name -> the tensors that the index places in it.
std::map<std::string, std::set<std::string>> read_index(const fs::path& path) {
    const std::string where = path.string();
    const ParsedJson json = parse_json_object(read_file(path, index_limit), where);
    const JsonReader reader(json, where);
    if (!reader.has("weight_map")) reader.refuse("weight_map", "is missing", "get the index again, or rebuild it");
    reader.object("weight_map");
    std::map<std::string, std::set<std::string>> files;
    for (const auto& [tensor, file] : reader.raw("weight_map").items()) {
        if (!file.is_string() || !plain_name(file.get<std::string>()))
            fail(Exit::bad_checkpoint, "{}: tensor {:?} is not placed in a file of the same folder; get the index again", where, tensor);
        files[file.get<std::string>()].insert(tensor);
    }
    if (files.empty()) reader.refuse("weight_map", "is empty", "get the index again, or rebuild it");
    return files;
}

std::vector<SafetensorsFile> open_shards(const fs::path& directory) {
    std::vector<SafetensorsFile> opened;
    std::set<std::string> seen;
    for (const auto& [name, tensors] : read_index(directory / index_name)) {
        const fs::path path = directory / name;
        if (!fs::exists(path)) fail(Exit::bad_checkpoint, "{} is named by {} but does not exist; get the missing shard", path.string(), index_name);
        opened.emplace_back(path);
        for (const TensorEntry& entry : opened.back().entries()) {
            if (!seen.insert(entry.name).second)
                fail(Exit::bad_checkpoint, "{}: tensor {:?} is in another shard too; get the model again", path.string(), entry.name);
            if (!tensors.count(entry.name))
                fail(Exit::bad_checkpoint, "{}: {} does not name tensor {:?} of this shard; get the model again", path.string(), index_name,
                     entry.name);
        }
        for (const std::string& tensor : tensors)
            if (!opened.back().find(tensor))
                fail(Exit::bad_checkpoint, "{} lacks tensor {:?}, which {} places there; get the shard again", path.string(), tensor, index_name);
    }
    return opened;
}

bool equal_values(const WeightFiles::Found& a, const WeightFiles::Found& b) {
    if (a.entry->shape != b.entry->shape) return false;
    constexpr int64_t piece = int64_t{1} << 22;
    if (a.entry->type == b.entry->type) {
        std::string left, right;
        for (int64_t at = 0; at < a.entry->bytes(); at += piece) {
            const int64_t count = std::min(piece, a.entry->bytes() - at);
            left.resize(static_cast<size_t>(count)), right.resize(static_cast<size_t>(count));
            a.file->read_bytes(*a.entry, at, left.data(), count);
            b.file->read_bytes(*b.entry, at, right.data(), count);
            if (left != right) return false;
        }
        return true;
    }
    const HostTensor left = a.file->load(*a.entry, DType::f64), right = b.file->load(*b.entry, DType::f64);
    return std::equal(left.as<double>(), left.as<double>() + left.shape.elements(), right.as<double>());
}

// Where the values of a record are: under its name in one of the layouts, or another name of the embedding.
WeightFiles::Found locate(const WeightFiles& weights, const std::string& name) {
    for (const std::string& other : names_in_layouts(name))
        if (const WeightFiles::Found found = weights.find(other)) return found;
    if (name == embedding_name)
        for (const char* alias : embedding_aliases)
            if (const WeightFiles::Found found = weights.find(alias)) return found;
    return {};
}

// Judges a tensor that no record has taken.
void waive(const SafetensorsFile& file, const TensorEntry& entry, const WeightFiles::Found& embedding, bool tied, const fs::path& directory) {
    if (entry.name == junk_name || entry.name.ends_with(junk_ending)) return info("{}: ignoring {}, which no layer has", file.path().string(), entry.name);
    const bool alias = entry.name == embedding_aliases[0] || entry.name == embedding_aliases[1] || (tied && entry.name == head_name);
    if (!alias)
        fail(Exit::bad_checkpoint, "{}: tensor {:?} {} belongs to no parameter of this model; config.json and weights of {} do not fit each other",
             file.path().string(), entry.name, entry.shape_text(), directory.string());
    if (!equal_values({&file, &entry}, embedding))
        fail(Exit::bad_checkpoint, "{}: {} differs from {}, of which it must be a copy; the model has two embeddings and is not supported",
             file.path().string(), entry.name, embedding_name);
}

}  // namespace

FileHashes save_model(const fs::path& directory, const ModelConfig& config, const ParameterStore& store, const ExtraFiles& extra,
                      const SaveModelOptions& options) {
    return save_model_by_tensor(directory, config, store, {}, extra, options);
}

FileHashes save_model_by_tensor(const fs::path& directory, const ModelConfig& config, const ParameterStore& store, const TensorMaker& make, const ExtraFiles& extra,
                      const SaveModelOptions& options) {
    require(options.weights == DType::f32 || options.weights == DType::bf16, "weights stored as f32 or bf16");
    FileHashes hashes;
    if (options.write) {
        create_folder(directory);
        remove_stale_weights(directory);
    }
    write_weights(directory, cut_into_shards(stored_tensors(store, layout_of(config), options.weights, make), options.shard_bytes), store.engine(), options.write, hashes);
    if (!options.write) return hashes;
    const auto text = [&](const std::string& name, const std::string& content) { hashes[name] = write_hashed(directory / name, content); };
    text("config.json", write_hf_config(config, options.weights, options.row_tokens));
    text("generation_config.json", write_generation_config(config));
    for (const auto& [name, content] : extra) {
        require(plain_name(name) && !hashes.count(name), "extra files with plain names of their own");
        text(name, content);
    }
    sync_directory(directory);
    return hashes;
}

WeightFiles::WeightFiles(const fs::path& path) {
    std::error_code error;
    if (!fs::is_directory(path, error)) {
        files_.emplace_back(path);
        return;
    }
    const bool single = fs::exists(path / single_name), index = fs::exists(path / index_name);
    if (single && index) warn("{} holds both {} and an index of shards; the single file is read, as transformers does", path.string(), single_name);
    if (single)
        files_.emplace_back(path / single_name);
    else if (index)
        files_ = open_shards(path);
    else if (fs::exists(path / "pytorch_model.bin") || fs::exists(path / "pytorch_model.bin.index.json"))
        fail(Exit::missing_input, "{} holds its weights as pickle files, which are never read; save it again as safetensors with transformers",
             path.string());
    else
        fail(Exit::missing_input, "{} holds neither {} nor {}; name the folder of a model", path.string(), single_name, index_name);
}

WeightFiles::Found WeightFiles::find(std::string_view name) const {
    for (const SafetensorsFile& file : files_)
        if (const TensorEntry* entry = file.find(name)) return {&file, entry};
    return {};
}

int64_t WeightFiles::tensors() const {
    int64_t sum = 0;
    for (const SafetensorsFile& file : files_) sum += static_cast<int64_t>(file.entries().size());
    return sum;
}

ModelConfig read_model_config(const fs::path& directory) {
    std::error_code error;
    if (!fs::is_directory(directory, error))
        fail(Exit::missing_input, "{} is not the folder of a model; name a folder with config.json and model.safetensors", directory.string());
    const fs::path path = directory / "config.json";
    ModelConfig config = parse_hf_config(read_file(path, config_limit), path.string());
    const WeightFiles weights(directory);
    const WeightFiles::Found embedding = locate(weights, embedding_name), head = weights.find(head_name);
    if (!embedding) fail(Exit::bad_checkpoint, "{} has no tensor {} or model.embed_tokens.weight; it is no model of a supported family", directory.string(), embedding_name);
    // Compared before anything is allocated for what config.json says.
    if (embedding.entry->shape != std::vector<int64_t>{config.vocab_size, config.d_model})
        fail(Exit::bad_checkpoint, "{}: {} has shape {} but config.json says vocab_size {} and d_model {}; they belong to different models",
             embedding.file->path().string(), embedding_name, embedding.entry->shape_text(), config.vocab_size, config.d_model);
    if (config.tied && head && !equal_values(head, embedding)) config.tied = false;
    return config;
}

std::map<std::string, WeightFiles::Found> locate_model(const WeightFiles& weights, const ParameterStore& store, const fs::path& directory) {
    std::map<std::string, WeightFiles::Found> places;
    std::set<const TensorEntry*> consumed;
    for (const Parameter& p : store.records()) {
        for (int64_t e = 0; e < p.tensors(); ++e) {
            const std::string name = p.tensor_name(e);
            const WeightFiles::Found found = locate(weights, name);
            if (!found)
                fail(Exit::bad_checkpoint, "{} has no tensor {} {}, which its model needs; the checkpoint is incomplete or of another model",
                     directory.string(), name, p.shape.text());
            if (!std::equal(found.entry->shape.begin(), found.entry->shape.end(), p.shape.sizes.begin(), p.shape.sizes.begin() + p.shape.rank))
                fail(Exit::bad_checkpoint, "{}: tensor {:?} has shape {} where {} is expected; the checkpoint is of another model",
                     found.file->path().string(), found.entry->name, found.entry->shape_text(), p.shape.text());
            places[name] = found;
            consumed.insert(found.entry);
        }
    }
    const WeightFiles::Found embedding = locate(weights, embedding_name);
    for (const SafetensorsFile& file : weights.files())
        for (const TensorEntry& entry : file.entries())
            if (!consumed.count(&entry)) waive(file, entry, embedding, !store.find(head_name), directory);
    return places;
}

void read_part(const SafetensorsFile& file, const TensorEntry& entry, Engine& engine, const NamedTensor& into) {
    if (!into.tensor) return;
    if (into.slice.split == Split::none) return read_into(file, entry, engine, into.tensor);
    const HostTensor whole(into.tensor.dtype, into.shape());
    file.read_as(entry, whole.view());
    const HostTensor part = cut_part(whole, into.slice, into.tensor.shape);
    engine.upload(into.tensor.data, part.memory.get(), into.tensor.bytes());
}

void load_model(const fs::path& directory, ParameterStore& store) {
    const WeightFiles weights(directory);
    const std::map<std::string, WeightFiles::Found> places = locate_model(weights, store, directory);
    for (const Parameter& p : store.records()) {
        for (int64_t e = 0; e < p.part_tensors(); ++e) {
            const WeightFiles::Found& found = places.at(p.part_name(e));
            NamedTensor into = named_master(store, p, p.first_expert + e);
            if (!into.tensor) into.tensor = store.compute(p, e);  // another rank has the master weights
            read_part(*found.file, *found.entry, store.engine(), into);
        }
    }
    store.update_compute();
}

}  // namespace flanmoe

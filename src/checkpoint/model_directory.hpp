// Model directories in Hugging Face layout: config.json, model.safetensors (or shards with an index), generation_config.json, tokenizer files.
//
// Weights are written under the record's names, one tensor an expert. Loading is strict: every tensor of the directory is consumed or is a known
// alias (checked to be equal), every record is found, shapes match; whatever does not is refused with the tensor's name.
#pragma once

#include "checkpoint/safetensors.hpp"
#include "config/model_config.hpp"
#include "model/gather.hpp"

#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace flanmoe {

/// File name -> content, written beside the weights (tokenizer files). Plain names only.
using ExtraFiles = std::map<std::string, std::string>;
/// File name (relative to the directory) -> XXH3-128 as 32 hex digits, of every file that was written.
using FileHashes = std::map<std::string, std::string>;

struct SaveModelOptions {
    DType weights = DType::f32;           ///< f32 or bf16; routers stay f32
    int64_t shard_bytes = 5'000'000'000;  ///< a file of weights above this is split into shards with an index
    int64_t row_tokens = 0;               ///< for write_hf_config
    bool write = true;                    ///< false: nothing is written, values are made and forgotten (ranks that give their parts of what another writes)
};

/// Makes the values of one tensor of a record (of one expert), in any type.
using TensorMaker = std::function<HostTensor(const Parameter& parameter, int64_t expert)>;

/// Writes a model directory, every file and the directory synced. Stale weights and indexes in it are removed first. Exit::io, Exit::cannot_create. The store has
/// the whole model; of one that ranks share, save_checkpoint() writes it.
FileHashes save_model(const std::filesystem::path& directory, const ModelConfig& config, const ParameterStore& store, const ExtraFiles& extra = {},
                      const SaveModelOptions& options = {});
/// The same for a store that is declared but not allocated: values are made tensor by tensor while they are written.
FileHashes save_model_by_tensor(const std::filesystem::path& directory, const ModelConfig& config, const ParameterStore& store, const TensorMaker& make, const ExtraFiles& extra = {},
                      const SaveModelOptions& options = {});

/// The weights of a path: a directory (sharded or not) or one safetensors file. Opening reads headers only.
class WeightFiles {
public:
    explicit WeightFiles(const std::filesystem::path& path);
    const std::vector<SafetensorsFile>& files() const { return files_; }
    struct Found {
        const SafetensorsFile* file = nullptr;
        const TensorEntry* entry = nullptr;
        explicit operator bool() const { return entry != nullptr; }
    };
    Found find(std::string_view name) const;
    int64_t tensors() const;

private:
    std::vector<SafetensorsFile> files_;
};

/// The model of a directory. A stored lm_head that differs from the embedding makes it untied, whatever config.json says.
ModelConfig read_model_config(const std::filesystem::path& directory);
/// Where the tensors of a directory's model are in its files, by the records' tensor names. Strict: every record is found with its shape, every tensor of the files
/// is taken or is a known alias (Exit::bad_checkpoint).
std::map<std::string, WeightFiles::Found> locate_model(const WeightFiles& weights, const ParameterStore& store, const std::filesystem::path& directory);
/// Reads what a rank has of a tensor, if it has a part of it.
void read_part(const SafetensorsFile& file, const TensorEntry& entry, Engine& engine, const NamedTensor& into);
/// Fills the master weights of an allocated store, or a rank's part of them, and refreshes the compute copy. Its records must be those of the directory's model.
void load_model(const std::filesystem::path& directory, ParameterStore& store);

}  // namespace flanmoe

// The model that a command line names: ours or any Hugging Face directory of the T5 family, with its vocabulary.
#pragma once

#include "cli/ranks.hpp"
#include "data/tokenizer.hpp"
#include "model/transformer.hpp"
#include "ops/engine.hpp"

#include <memory>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace flanmoe::cli {

struct LoadedModel {
    std::string path;  ///< of the model directory
    std::unique_ptr<Transformer> model;
    std::shared_ptr<const Tokenizer> tokenizer;
};

struct ModelArgument {
    std::string checkpoint, tokenizer;
    std::vector<std::string> settings;
    Device device = Device::cpu;
    DType dtype = DType::f32;
    int threads = 0;  ///< 0 = one a core

    /// CHECKPOINT, --tokenizer, --device, --dtype, --threads and --set.
    void add_to(CLI::App& command);
    /// A context on --device; Exit::usage if that does not compute in --dtype, Exit::hardware if it is not there.
    DeviceContext open() const { return DeviceContext(device_for(device, dtype)); }
    /// The ranks that the command is to run on: [parallel] as --set says, where data = 0 (what is left of the ranks) unless it is set.
    RankSettings ranks() const;
    /// Weights without gradients, on the device of `place`, this rank's of the mesh; sets the number of threads. Does not communicate. A folder of a run stands for its best or else its newest checkpoint. Exit::missing_input, Exit::bad_checkpoint, and Exit::usage for a
    /// vocabulary that does not fit the model.
    LoadedModel load(const Context& place, const Mesh& mesh = one_rank()) const;
};

/// The model with `moe.key=value` settings over it, validated; Exit::usage for keys of other sections.
ModelConfig override_moe(const ModelConfig& model, const std::vector<std::string>& settings);

}  // namespace flanmoe::cli

// Commands that run on one rank or on many: from the launcher to ranks that agree on what they do, each on its device, as a mesh.
#pragma once

#include "comm/mesh.hpp"
#include "config/config.hpp"
#include "ops/engine.hpp"

#include <functional>
#include <memory>
#include <string>

namespace flanmoe {
class World;
}

namespace flanmoe::cli {

/// Of which all ranks of a command must have the same, and where they run.
struct RankSettings {
    ParallelConfig parallel;
    Device device = Device::cpu;
    std::string config;                   ///< as TOML; may be empty
    std::string command;                  ///< command_line(); may be empty
};

/// The ranks of a command on their devices.
class RankMesh {
public:
    /// Every rank makes it at once. SharedError (Exit::usage) if `settings`, which may fail, says different things on two ranks, if their programs differ, or if
    /// the mesh is not of as many ranks as there are.
    RankMesh(World& world, const std::function<RankSettings()>& settings);

    const Mesh& mesh() const { return *mesh_; }
    Context& context() const { return *context_; }
    Communicator& world() const { return mesh_->world(); }
    bool leader() const { return world().rank() == 0; }

private:
    std::unique_ptr<DeviceContext> context_;
    std::unique_ptr<Communicator> over_nccl_;
    std::unique_ptr<Mesh> mesh_;
};

/// Runs a command that writes no run directory, `what` being its work in messages (a literal: "evaluation"): only rank 0's messages are seen, and an error of any rank ends all.
void on_ranks(const char* what, const std::function<RankSettings()>& settings, const std::function<void(const RankMesh&)>& work);

/// SharedError (Exit::usage) if a launcher started several ranks: `what` runs on one.
void refuse_ranks(const std::string& what);

/// The words of this process behind the program's name.
std::string command_line();

}  // namespace flanmoe::cli

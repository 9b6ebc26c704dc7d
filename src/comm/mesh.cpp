#include "comm/mesh.hpp"

#include "comm/single.hpp"

namespace flanmoe {

std::string MeshShape::text() const { return fmt::format("{} data x {} expert x {} tensor", data, expert, tensor); }

MeshShape mesh_for(MeshShape wanted, int ranks) {
    require(wanted.data >= 0 && wanted.expert > 0 && wanted.tensor > 0, "positive axes");
    const int64_t rest = int64_t{wanted.expert} * wanted.tensor;
    if (ranks % rest != 0 || (wanted.data > 0 && wanted.data * rest != ranks)) {
        const std::string advice = ranks % rest == 0 ? fmt::format("start {} rank{}, or set parallel.data = {} (0 takes what is left)", wanted.data * rest, wanted.data * rest == 1 ? "" : "s", ranks / rest)
                                                     : fmt::format("start a multiple of {} ranks, or change parallel.expert and parallel.tensor", rest);
        fail(Exit::usage, "there are {} ranks, but parallel.data x parallel.expert x parallel.tensor is {} x {} x {}; {}", ranks,
             wanted.data > 0 ? fmt::format("{}", wanted.data) : "(what is left)", wanted.expert, wanted.tensor, advice);
    }
    wanted.data = static_cast<int>(ranks / rest);
    return wanted;
}

Mesh::Mesh()
    : alone_(std::make_unique<SingleCommunicator>()), world_(alone_.get()), data_(alone_->split(0, 0)), expert_(alone_->split(0, 0)), tensor_(alone_->split(0, 0)),
      replicas_(alone_->split(0, 0)) {}

const Mesh& one_rank() {
    static const Mesh mesh;
    return mesh;
}

Mesh::Mesh(Communicator& world, const MeshShape& shape) : shape_(shape), world_(&world) {
    require(shape.ranks() == world.size(), "a mesh of as many ranks as there are");
    const int tensor = world.rank() % shape.tensor, replica = world.rank() / shape.tensor;
    const int expert = replica % shape.expert, data = replica / shape.expert;
    const auto group = [&](int size, int color, int key) -> std::unique_ptr<Communicator> {
        auto communicator = world.split(color, key);
        if (size == 1) return std::make_unique<SingleCommunicator>();
        return communicator;
    };
    data_ = group(shape.data, expert * shape.tensor + tensor, data);
    expert_ = group(shape.expert, data * shape.tensor + tensor, expert);
    tensor_ = group(shape.tensor, replica, tensor);
    replicas_ = group(shape.replicas(), tensor, replica);
}

}  // namespace flanmoe

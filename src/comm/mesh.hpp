// The ranks as a grid of three axes: data x expert x tensor.
//
// Dense parameters are replicated over data x expert and split over tensor; experts are split over expert (and tensor) and replicated over data. The tensor
// axis is innermost, so that its ranks, which talk most, are neighbours:  rank = (data * experts + expert) * tensors + tensor.
#pragma once

#include "comm/communicator.hpp"

#include <string>

namespace flanmoe {

struct MeshShape {
    int data = 1, expert = 1, tensor = 1;
    int ranks() const { return data * expert * tensor; }
    int replicas() const { return data * expert; }  ///< of dense parameters; each has its own rows of the batch
    std::string text() const;                       ///< "2 data x 4 expert x 1 tensor"
    bool operator==(const MeshShape&) const = default;
};

/// The mesh for so many ranks; data = 0 stands for what is left of the ranks. Exit::usage, with what would fit, if it does not multiply to them.
MeshShape mesh_for(MeshShape wanted, int ranks);

class Mesh {
public:
    /// One rank.
    Mesh();
    /// Every rank of `world`, which must outlive the mesh, makes it at once.
    Mesh(Communicator& world, const MeshShape& shape);

    const MeshShape& shape() const { return shape_; }
    int data_index() const { return data_->rank(); }
    int expert_index() const { return expert_->rank(); }
    int tensor_index() const { return tensor_->rank(); }
    int replica_index() const { return replicas_->rank(); }  ///< data_index * experts + expert_index

    Communicator& world() const { return *world_; }
    Communicator& data() const { return *data_; }          ///< the same experts and the same split of dense parameters
    Communicator& expert() const { return *expert_; }      ///< all experts together
    Communicator& tensor() const { return *tensor_; }      ///< all pieces of a matrix, the same rows
    Communicator& replicas() const { return *replicas_; }  ///< data x expert: the same split of dense parameters

private:
    MeshShape shape_;
    std::unique_ptr<Communicator> alone_;  ///< the world of a mesh of one
    Communicator* world_;
    std::unique_ptr<Communicator> data_, expert_, tensor_, replicas_;
};

/// The mesh of a program that runs alone; it has no state.
const Mesh& one_rank();

}  // namespace flanmoe

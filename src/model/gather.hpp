// Named tensors of which ranks have parts, whole again on rank 0: how checkpoints see a model and its optimizer.
#pragma once

#include "core/host_tensor.hpp"
#include "model/parameters.hpp"

#include <string>
#include <vector>

namespace flanmoe {

/// Where what this rank has of a tensor lies in the whole one.
struct Slice {
    Split split = Split::none;  ///< over tensor ranks
    Shape shape;                ///< of the whole tensor; without dimensions: this rank has it whole
    int64_t first = 0;          ///< first row or column that is here
    int replica = -1;           ///< rank of Mesh::replicas() that has it, the first of several; -1: all
};
struct NamedTensor {
    std::string name;
    Tensor tensor;  ///< empty: others have it
    Slice slice;
    Shape shape() const { return slice.shape.rank ? slice.shape : tensor.shape; }
};
using NamedTensors = std::vector<NamedTensor>;

/// Slice of a tensor of `shape` that belongs to a record and is split like it: of expert `expert` of all. `owners`: those of the record if only they have it, or
/// nothing.
Slice slice_of(const Mesh& mesh, const Parameter& parameter, int64_t expert, const Shape& shape, Split split, const std::vector<int>& owners);
/// Master weights of one tensor of a record, of expert `expert` of all.
NamedTensor named_master(const ParameterStore& store, const Parameter& parameter, int64_t expert);

/// Brings whole tensors to rank 0, one by one. All ranks call it for the same tensors in the same order.
class Gatherer {
public:
    explicit Gatherer(const ParameterStore& store) : store_(&store), context_(store.context()) {}
    /// The whole tensor on rank 0, an empty one elsewhere.
    HostTensor operator()(const NamedTensor& tensor);
    /// The calls so far are made again from here on, and do nothing: what failed on this rank in between is gone through once more to its end, so that no
    /// other rank waits.
    void repeat() { skipped_ = calls_, calls_ = 0; }

private:
    const ParameterStore* store_;
    Context context_;
    int64_t calls_ = 0, skipped_ = 0;
};

/// The part of a whole tensor on the host that `slice` names, of a tensor of shape `part`.
HostTensor cut_part(const HostTensor& whole, const Slice& slice, const Shape& part);

}  // namespace flanmoe

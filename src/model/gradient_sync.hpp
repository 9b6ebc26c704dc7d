// Sums of gradients over the ranks that have the same parameters: dense ones over all replicas, experts over the data ranks.
//
// The flat gradients are cut into buckets, and a thread of its own reduces them while the backward pass still runs: records are declared in the order of the
// forward, so the backward finishes them from the last to the first, and one number says which are done. Buckets do not depend on timing, so neither do the
// sums. On a device that the host cannot read, all are reduced at the end.
#pragma once

#include "core/context.hpp"
#include "model/parameters.hpp"

#include <memory>
#include <vector>

namespace flanmoe {

class Mesh;  // comm/mesh.hpp

class GradientSync {
public:
    /// Both must outlive it, and the store must stay allocated. Frozen parameters are left out.
    GradientSync(const ParameterStore& store, const Mesh& mesh, int64_t bucket_bytes = int64_t{16} << 20);
    ~GradientSync();
    GradientSync(const GradientSync&) = delete;

    /// The gradients of the records from this index on are what they will be.
    void done_from(size_t record);
    /// Returns when all gradients are summed; an error of the reducing thread is thrown here. `context` does the work that is left.
    void finish(Context& context);
    const Mesh& mesh() const;
    /// Bytes of all buckets.
    int64_t bytes() const;

private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace flanmoe

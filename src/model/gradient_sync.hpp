// Sums of gradients over the ranks that have the same parameters: dense ones over all replicas, experts over the data ranks.
//
// The flat gradients are cut into buckets, which a lane sums while the backward pass still runs: records are declared in the order of the forward, so the
// backward finishes them from the last to the first, and one number says which are done. Buckets do not depend on timing, so neither do the sums. Of a sharded
// store a bucket of tensors with an owner is summed to it alone; what the others have of those gradients then is nothing.
#pragma once

#include "core/lane.hpp"
#include "model/sharding.hpp"

#include <memory>
#include <vector>

namespace flanmoe {

class GradientSync {
public:
    /// The store must outlive it, and stay allocated. Frozen parameters are left out.
    explicit GradientSync(const ParameterStore& store, int64_t bucket_bytes = int64_t{16} << 20);

    /// The gradients of the records from this index on are what they will be.
    void done_from(size_t record);
    /// What is queued from now on finds all gradients summed. An error of a sum is thrown here.
    void finish();
    const Mesh& mesh() const { return store_.mesh(); }

private:
    void sum(Context& context, const FlatRun& bucket) const;

    const ParameterStore& store_;
    std::vector<FlatRun> buckets_;       ///< last record first
    size_t ready_ = 0;                   ///< buckets given to the lane in this step
    int64_t last_ = 0;                   ///< number of the last one there
    std::unique_ptr<Lane> lane_;         ///< null without buckets
};

}  // namespace flanmoe

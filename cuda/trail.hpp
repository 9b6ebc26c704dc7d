// Marks that a stream leaves in host memory when it begins and ends a collective: what tells a rank that waits in NCCL from one that computes, or does nothing, while
// both hosts wait for their GPUs.
//
// A mark is a kernel of one thread that writes eight bytes. Counted, not measured: 2 us of the stream each, two a collective.
#pragma once

#include "comm/communicator.hpp"
#include "comm/progress.hpp"
#include "core/engine.hpp"
#include "engine.hpp"

#include <mutex>
#include <vector>

namespace flanmoe::cuda {

class Trail : public DeviceProgress {
public:
    /// Parts and layers are those that `activity` says when a collective is queued; null: none. `progress` follows it while it lives.
    Trail(Engine& engine, const Activity* activity, Progress& progress);
    ~Trail() override;

    /// To be queued before and after a collective, by one thread. Serial numbers are kernels' arguments: a graph is recorded anew before it runs again.
    void begin(Context& context, Collective collective);
    void end(Context& context);
    Reached reached() const override;

private:
    struct Mark {
        int64_t begun, ended;  // serial numbers
    };
    struct Place {
        const char *part, *collective;
        int layer;
    };
    Mark* mark_of(cudaStream_t stream);

    const Activity* activity_;
    Progress& progress_;
    PinnedBuffer memory_;
    Mark* marks_;                        // one a stream
    std::vector<cudaStream_t> streams_;
    size_t next_ = 0;                    // that gives way to a new stream
    int64_t queued_ = 0;
    mutable std::mutex mutex_;           // of the places
    std::vector<Place> places_;          // of the last serial numbers
};

}  // namespace flanmoe::cuda

// A second order of work beside an engine's own, on the same memory: collectives run there while layers compute.
//
// On the host a lane is a thread, on a GPU a stream (cuda/lane.cu). Work given to a lane begins after all that the engine was given before, and its pieces
// follow each other; the engine's own work goes on meanwhile, and comes after a piece only where wait() says so. Until then neither may touch what the other
// writes, and a tensor of the arena must outlive the piece that uses it.
#pragma once

#include "core/context.hpp"

#include <functional>
#include <memory>

namespace flanmoe {

class Lane {
public:
    virtual ~Lane() = default;
    /// Queues `work`, which gets a context of the lane's order (its arena is not for use), and returns its number, from 1. On a GPU `work` is called at once
    /// and what it queues runs later; on the host it is called later, on the lane's thread.
    virtual int64_t run(std::function<void(Context&)> work) = 0;
    /// What the engine is given from now on follows that piece and those before it. An error of a piece is thrown here, and what was queued behind it is not
    /// done.
    virtual void wait(int64_t number) = 0;
};

}  // namespace flanmoe

// Groups of ranks that have a GPU each: NCCL, found when first needed.
//
// Collectives are queued on the engine's stream and return at once, like kernels; nothing waits for them but what follows on the stream. They may be captured
// in a graph, which must be destroyed before the group: NCCL waits for that. Sums are taken in NCCL's own order, which a layout fixes: every rank gets the same bits, and gets them again; bf16 is rounded at every addition.
// Texts, barriers and the start go over the group that NCCL's is made from (MPI; threads on the simulator).
#pragma once

#include "comm/communicator.hpp"
#include "comm/progress.hpp"

#include <functional>
#include <memory>
#include <string>

namespace flanmoe::cuda {

/// NCCL's group of the same ranks as `host`, which must outlive it and all that are split from it. Every rank calls it. `failed` is called once, on a thread of
/// its own, with a sentence if NCCL reports an error after a collective was queued (a rank or a link is gone). Exit::hardware if the library cannot be
/// loaded. Null if ranks share a GPU, for which NCCL is not made. A group of one is NCCL's if
/// `host` is of one; split from more it has nothing to do. Tensors of a CPU context go over `host`.
/// `progress`, which must outlive it too, follows how far the GPU is; parts and layers in it are those of context.activity.
std::unique_ptr<Communicator> nccl_communicator(Context& context, Communicator& host, Progress& progress, std::function<void(const std::string&)> failed);

}  // namespace flanmoe::cuda

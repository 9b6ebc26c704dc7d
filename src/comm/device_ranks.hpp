// How ranks exchange tensors that lie on GPUs.
#pragma once

#include "comm/communicator.hpp"
#include "comm/progress.hpp"

#include <functional>
#include <memory>
#include <string>

namespace flanmoe {

/// This rank's number among those of its host, which says which GPU is its own, and how many they are.
struct HostPlace {
    int number = 0, ranks = 1;
};
HostPlace place_on_host(Communicator& ranks);

/// The same ranks over NCCL, where each has a GPU of its own; `ranks` must outlive it. Null where `ranks` themselves are to be used: for tensors on the host, and ranks
/// that share GPUs (tests), whose tensors are staged through host memory. One rank alone becomes a group of NCCL's too, of use to tests only. `failed` is told, on a
/// thread of its own, that a rank or a link is gone; `progress` follows how far the GPU is with its collectives.
std::unique_ptr<Communicator> device_ranks(Context& context, Communicator& ranks, Progress& progress, std::function<void(const std::string&)> failed);

}  // namespace flanmoe

#include "comm/device_ranks.hpp"

#include "comm/agreement.hpp"
#include "comm/world.hpp"

#include <algorithm>

namespace flanmoe {

#ifdef FLANMOE_CUDA
namespace cuda {
std::unique_ptr<Communicator> nccl_communicator(Context& context, Communicator& host, Progress& progress, std::function<void(const std::string&)> failed);
}
#endif

HostPlace place_on_host(Communicator& ranks) {
    const std::vector<std::string> hosts = gather_texts(ranks, host_name());
    const auto own = hosts.begin() + ranks.rank();
    return {static_cast<int>(std::count(hosts.begin(), own, *own)), static_cast<int>(std::count(hosts.begin(), hosts.end(), *own))};
}

std::unique_ptr<Communicator> device_ranks([[maybe_unused]] Context& context, [[maybe_unused]] Communicator& ranks, [[maybe_unused]] Progress& progress, [[maybe_unused]] std::function<void(const std::string&)> failed) {
#ifdef FLANMOE_CUDA
    if (context.device == Device::cuda) return cuda::nccl_communicator(context, ranks, progress, std::move(failed));
#endif
    return nullptr;
}

}  // namespace flanmoe

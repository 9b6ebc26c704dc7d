#include "ops/engine.hpp"

#include "ops/run.hpp"

namespace flanmoe::cuda {
std::unique_ptr<Engine> open_engine();
}

namespace flanmoe {

std::unique_ptr<Engine> open_engine(Device device) {
    if (device == Device::cpu) return make_host_engine();
    if constexpr (ops::with_cuda) {
        return cuda::open_engine();
    } else {
        ops::refuse_cuda();
    }
}

}  // namespace flanmoe

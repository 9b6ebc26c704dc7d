#include "ops/engine.hpp"

#include "ops/run.hpp"

namespace flanmoe::cuda {
std::unique_ptr<Engine> open_engine(int place);
}

namespace flanmoe {

std::unique_ptr<Engine> open_engine(Device device, int place) {
    if (device == Device::cpu) return make_host_engine();
    if constexpr (ops::with_cuda) {
        return cuda::open_engine(place);
    } else {
        ops::refuse_cuda();
    }
}

Device device_for(Device device, DType type) {
    if (device == Device::cuda && type == DType::f64) fail(Exit::usage, "--dtype f64 runs on the CPU alone; use --device cpu, or f32 or bf16");
    return device;
}

}  // namespace flanmoe

// The engine of a device.
#pragma once

#include "core/context.hpp"

#include <memory>

namespace flanmoe {

/// Main memory, or the GPU of this process. Fails with Exit::hardware if there is none, or none that this program can use.
std::unique_ptr<Engine> open_engine(Device device);

/// The device, where it computes in this type; Exit::usage for f64, the oracle, on CUDA.
Device device_for(Device device, DType type);

struct EngineOwner {
    std::unique_ptr<Engine> owned;
};
/// A context with an engine of its own, opened for it.
struct DeviceContext : private EngineOwner, Context {
    explicit DeviceContext(Device device) : EngineOwner{open_engine(device)}, Context(device, *owned) {}
};

}  // namespace flanmoe

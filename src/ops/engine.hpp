// The engine of a device.
#pragma once

#include "core/context.hpp"

#include <memory>

namespace flanmoe {

/// Main memory, or a GPU: number `place` of those that this process sees, counted round (ranks of one host take their places on it). Fails with
/// Exit::hardware if there is none, or none that this program can use.
std::unique_ptr<Engine> open_engine(Device device, int place = 0);

/// The device, where it computes in this type; Exit::usage for f64, the oracle, on CUDA.
Device device_for(Device device, DType type);

struct EngineOwner {
    std::unique_ptr<Engine> owned;
};
/// A context with an engine of its own, opened for it.
struct DeviceContext : private EngineOwner, Context {
    explicit DeviceContext(Device device, int place = 0) : EngineOwner{open_engine(device, place)}, Context(device, *owned) {}
};

}  // namespace flanmoe

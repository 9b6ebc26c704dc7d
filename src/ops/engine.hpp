// The engine of a device.
#pragma once

#include "core/context.hpp"

#include <memory>

namespace flanmoe {

/// Main memory, or the GPU of this process. Fails with Exit::hardware if there is none, or none that this program can use.
std::unique_ptr<Engine> open_engine(Device device);

}  // namespace flanmoe

// Main memory of this machine, as far as this process may use it.
#pragma once

#include <cstdint>
#include <string>

namespace flanmoe {

/// Bytes that can still be taken without swapping or being killed: what the kernel calls available, but no more than the limits of the control groups
/// (containers, Slurm) and of `ulimit -v` leave. -1 if the system does not say.
int64_t available_memory();

std::string human_bytes(int64_t bytes);  ///< 1.2 MB, decimal units

}  // namespace flanmoe

// Stands in for the CUDA toolkit's header of this name: kernels (kernel_api.hpp) and the runtime's host functions (runtime_api.hpp).
#pragma once

#include "cudasim/kernel_api.hpp"
#include "cudasim/runtime_api.hpp"

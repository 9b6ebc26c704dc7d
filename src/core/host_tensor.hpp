// Tensors that own memory of the host: what a file held, what is to be written, what came from a device.
#pragma once

#include "core/engine.hpp"
#include "core/tensor.hpp"

#include <cstddef>
#include <memory>

namespace flanmoe {

/// A compact tensor that owns its memory. Uninitialised on construction.
struct HostTensor {
    DType dtype = DType::f32;
    Shape shape;
    std::unique_ptr<std::byte[]> memory;

    HostTensor() = default;
    HostTensor(DType dtype, Shape shape)
        : dtype(dtype), shape(shape), memory(new std::byte[static_cast<size_t>(shape.elements() * size_of(dtype)) + 1]) {}
    Tensor view() const { return Tensor(memory.get(), dtype, shape); }
    template <class T>
    T* as() const {
        return view().as<T>();
    }
};

/// A copy of a compact tensor of an engine; waits for the work before. An empty tensor gives an empty one.
inline HostTensor to_host(Engine& engine, const Tensor& tensor) {
    if (!tensor) return {};
    require(tensor.compact(), "a compact tensor to copy to the host");
    HostTensor copy(tensor.dtype, tensor.shape);
    engine.download(copy.memory.get(), tensor.data, tensor.bytes());
    return copy;
}

}  // namespace flanmoe

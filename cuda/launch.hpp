// The one way to start a kernel, and what choosing one needs.
#pragma once

#include "engine.hpp"

namespace flanmoe::cuda {

/// Queues kernel(arguments...) on the context's stream; nothing for an empty grid. `shared_bytes`: dynamic shared memory of a block, the sum of
/// cuda::shared_bytes of what the kernel takes. `name` is what errors call it.
template <class... Parameters, class... Arguments>
void launch(Context& context, const char* name, void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, Arguments&&... arguments) {
    if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
    constexpr size_t without_asking = 48 << 10;
    Engine& engine = engine_of(context);
    if (shared_bytes > without_asking) engine.allow_shared(reinterpret_cast<const void*>(kernel), shared_bytes, name);
    cudaLaunchConfig_t config{};
    config.gridDim = grid, config.blockDim = block, config.dynamicSmemBytes = shared_bytes, config.stream = engine.stream();
#ifdef FLANMOE_CUDASIM
    cudasim::name_next_launch(name);
#endif
    engine.check(cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...), name);
}

/// Blocks that cover `count` with `per_block` each.
constexpr unsigned blocks_for(int64_t count, int64_t per_block) { return static_cast<unsigned>((count + per_block - 1) / per_block); }

/// Calls body.operator()<T>() with T = float or bf16; operations in double run on the CPU.
template <class Body>
decltype(auto) with_storage(DType type, Body&& body) {
    if (type == DType::bf16) return body.template operator()<bf16>();
    require(type == DType::f32, "an element type of f32 or bf16");
    return body.template operator()<float>();
}
template <class Body>
decltype(auto) with_storages(DType first, DType second, Body&& body) {
    return with_storage(first, [&]<class A>() { return with_storage(second, [&]<class B>() { return body.template operator()<A, B>(); }); });
}

/// A row-major matrix; null: absent.
template <class T>
struct Rows {
    T* data;
    int64_t ld;
    __device__ T* row(int64_t r) const { return data + r * ld; }
    __device__ explicit operator bool() const { return data != nullptr; }
};
template <class T>
Rows<T> rows_of(const Tensor& tensor) {
    return {tensor ? tensor.as<std::remove_const_t<T>>() : nullptr, tensor.ld};
}

/// Vectors of 16 bytes may be used: at a pointer; at the beginning of every row of a tensor (an empty tensor has none).
inline bool is_aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }
inline bool has_aligned_rows(const Tensor& tensor) {
    return is_aligned(tensor.data) && (tensor.rows() <= 1 || tensor.ld * size_of(tensor.dtype) % 16 == 0);
}

}  // namespace flanmoe::cuda

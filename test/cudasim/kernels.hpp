// Tools of the simulator's own tests.
#pragma once

#include <cuda_runtime.h>

#include <string>
#include <vector>

namespace cudasim::test {

/// Runs a kernel and waits. Empty, or what the runtime says went wrong; the error is cleared.
template <class... Parameters, class... Arguments>
std::string run(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, Arguments&&... arguments) {
    if (shared_bytes > 48 << 10) cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes));
    cudaGetLastError();
    cudaLaunchConfig_t config{};
    config.gridDim = grid, config.blockDim = block, config.dynamicSmemBytes = shared_bytes;
    name_next_launch("tested");
    cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...);
    cudaDeviceSynchronize();
    const cudaError_t error = cudaGetLastError();
    return error ? cudaGetErrorString(error) : "";
}

inline bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

/// Device memory with its elements at hand.
template <class T>
class Memory {
public:
    explicit Memory(size_t count, T value = T{}) : count_(count) {
        cudaMalloc(&data_, count * sizeof(T));
        for (size_t i = 0; i < count; ++i) data_[i] = value;
    }
    Memory(const Memory&) = delete;
    ~Memory() { cudaFree(data_); }
    operator T*() const { return data_; }
    std::vector<T> values() const { return {data_, data_ + count_}; }

private:
    T* data_ = nullptr;
    size_t count_;
};

/// Streams run late and out of order until it ends.
struct DeferredStreams {
    bool before = options().deferred_streams;
    DeferredStreams() {
        options().deferred_streams = true;
        draw_streams_anew();
    }
    ~DeferredStreams() {
        cudaDeviceSynchronize();
        options().deferred_streams = before;
    }
};

}  // namespace cudasim::test

// The GPU of this process: one stream for all operations, memory, and the library of plain matrix products.
//
// Work is queued in one order and nothing in an operation waits for it. Errors of the runtime become flanmoe::Error: no usable GPU is Exit::hardware, no
// memory Exit::out_of_memory, a fault in a kernel Exit::internal.
#pragma once

#include "core/context.hpp"
#include "core/engine.hpp"
#include "tables.hpp"

#include <cuda_runtime.h>

#include <memory>

namespace flanmoe::cuda {

/// Fails unless `error` is cudaSuccess; `what` says what was tried: "kernel 'cast'", "a copy to the GPU".
void check(cudaError_t error, const char* what);

class Blas;

class Engine : public flanmoe::Engine {
public:
    /// Fails with Exit::hardware if there is no GPU, driver or architecture that this program can use.
    explicit Engine(int place = 0);
    ~Engine() override;
    void* allocate(int64_t bytes) override;
    void release(void* memory) override;
    void zero(void* memory, int64_t bytes) override;
    void upload(void* to, const void* host, int64_t bytes) override;
    void download(void* host, const void* from, int64_t bytes) override;
    void copy_rows(void* to, int64_t to_stride, const void* from, int64_t from_stride, int64_t bytes, int64_t rows) override;
    void synchronize() override;
    int64_t available_bytes() const override;
    bool on_host() const override { return managed_; }
    bool separate_allocations() const override;

    int device() const { return device_; }  ///< its number among those that this process sees
    cudaStream_t stream() const { return stream_; }
    const cudaDeviceProp& properties() const { return properties_; }
    Blas& blas();  ///< loaded at the first call
    TableCache& tables() { return tables_; }

private:
    int device_ = 0;
    cudaStream_t stream_ = nullptr;
    cudaDeviceProp properties_{};
    bool managed_ = false;
    std::unique_ptr<Blas> blas_;
    TableCache tables_{*this};
};

/// The engine of a CUDA context.
inline Engine& engine_of(Context& context) { return static_cast<Engine&>(*context.engine); }

}  // namespace flanmoe::cuda

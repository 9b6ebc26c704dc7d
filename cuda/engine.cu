#include "engine.hpp"

#include "blas.hpp"

#include <cstdlib>

namespace flanmoe::cuda {

namespace {

constexpr int oldest_architecture = 80;  ///< bf16 tensor cores and asynchronous copies: A100 and later

std::string version(int number) { return fmt::format("{}.{}", number / 1000, number % 1000 / 10); }

// Number `place` of the devices that CUDA shows, counted round; CUDA_VISIBLE_DEVICES says which those are.
cudaDeviceProp usable_device(int place, int& device) {
    int count = 0, driver = 0;
    const cudaError_t error = cudaGetDeviceCount(&count);
    cudaGetLastError();
    if (error == cudaErrorInsufficientDriver) {
        cudaDriverGetVersion(&driver);
        if (driver == 0) fail(Exit::hardware, "no NVIDIA driver is loaded on this machine; install one, or use --device cpu");
        fail(Exit::hardware, "the NVIDIA driver supports CUDA {} and this program needs {}; update the driver, or use --device cpu", version(driver), version(CUDART_VERSION));
    }
    if (error == cudaErrorNoDevice || (error == cudaSuccess && count == 0))
        fail(Exit::hardware, "no GPU is visible to this process (nvidia-smi lists what is there, CUDA_VISIBLE_DEVICES hides); use --device cpu to run without");
    if (error != cudaSuccess) fail(Exit::hardware, "the GPU cannot be used: {}; use --device cpu to run without", cudaGetErrorString(error));
    device = place % count;
    cudaDeviceProp properties{};
    check(cudaGetDeviceProperties(&properties, device), "looking at the GPU");
    const int architecture = properties.major * 10 + properties.minor;
    if (architecture < oldest_architecture)
        fail(Exit::hardware, "{} has compute capability {}.{} and this program needs {}.{} (A100) or later; use --device cpu", properties.name, properties.major,
             properties.minor, oldest_architecture / 10, oldest_architecture % 10);
    return properties;
}

}  // namespace

void check(cudaError_t error, const char* what) {
    if (error == cudaSuccess) return;
    const std::string reason = cudaGetErrorString(error);
    cudaGetLastError();  // what can be cleared is: the caller may catch the failure and go on
    switch (error) {
        case cudaErrorMemoryAllocation: fail(Exit::out_of_memory, "out of GPU memory at {}; reduce the micro-batch or the sequence length", what);
        case cudaErrorNoKernelImageForDevice: fail(Exit::hardware, "the GPU cannot be used: {} (at {}); use --device cpu to run without", reason, what);
        default: fail(Exit::internal, "CUDA failed at {}: {}", what, reason);
    }
}

Engine::Engine(int place) : properties_(usable_device(place, device_)), managed_(std::getenv("FLANMOE_CUDA_MANAGED") != nullptr) {
    cudaError_t error = cudaSetDevice(device_);
    if (error == cudaSuccess) error = cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking);
    cudaGetLastError();
    if (error == cudaErrorMemoryAllocation)
        fail(Exit::out_of_memory, "the GPU has no memory left to start on: another process holds it (nvidia-smi lists them); end that one or choose another GPU by CUDA_VISIBLE_DEVICES");
    if (error == cudaErrorDevicesUnavailable)
        fail(Exit::hardware, "the GPU is held by another process alone (nvidia-smi lists them); end that one or choose another GPU by CUDA_VISIBLE_DEVICES");
    check(error, "starting work on the GPU");
}

Engine::~Engine() {
    blas_.reset();
    cudaStreamDestroy(stream_);
}

// Managed memory is for the tests of operations on hardware, whose tools read and write tensors on the host: nothing may still run then. CUDA_LAUNCH_BLOCKING=1
// sees to that for kernels, the functions below for their own work.
void* Engine::allocate(int64_t bytes) {
    void* memory = nullptr;
    const size_t size = static_cast<size_t>(bytes);
    const cudaError_t error = managed_ ? cudaMallocManaged(&memory, size, cudaMemAttachGlobal) : cudaMalloc(&memory, size);
    if (error == cudaErrorMemoryAllocation) {
        cudaGetLastError();
        return nullptr;
    }
    check(error, "allocating GPU memory");
    return memory;
}

void Engine::release(void* memory) { cudaFree(memory); }  // an earlier failure is reported by whatever waits for it, not here in destructors
void Engine::zero(void* memory, int64_t bytes) {
    check(cudaMemsetAsync(memory, 0, static_cast<size_t>(bytes), stream_), "clearing GPU memory");
    if (managed_) synchronize();
}
void Engine::upload(void* to, const void* host, int64_t bytes) {
    check(cudaMemcpyAsync(to, host, static_cast<size_t>(bytes), cudaMemcpyHostToDevice, stream_), "a copy to the GPU");
    if (managed_) synchronize();
}
void Engine::download(void* host, const void* from, int64_t bytes) {
    check(cudaMemcpyAsync(host, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToHost, stream_), "a copy from the GPU");
    synchronize();
}
void Engine::copy_rows(void* to, int64_t to_stride, const void* from, int64_t from_stride, int64_t bytes, int64_t rows) {
    const auto size = [](int64_t n) { return static_cast<size_t>(n); };
    const bool together = rows == 1 || (to_stride == bytes && from_stride == bytes);  // of any size, while strides have a limit
    check(together ? cudaMemcpyAsync(to, from, size(bytes * rows), cudaMemcpyDeviceToDevice, stream_)
                   : cudaMemcpy2DAsync(to, size(to_stride), from, size(from_stride), size(bytes), size(rows), cudaMemcpyDeviceToDevice, stream_),
          "a copy on the GPU");
    if (managed_) synchronize();
}
void Engine::synchronize() { check(cudaStreamSynchronize(stream_), "waiting for the GPU"); }

int64_t Engine::available_bytes() const {
    size_t free = 0, total = 0;
    check(cudaMemGetInfo(&free, &total), "asking for the GPU's free memory");
    return static_cast<int64_t>(free);
}

bool Engine::separate_allocations() const {
#ifdef FLANMOE_CUDASIM
    return true;
#else
    return false;
#endif
}

Blas& Engine::blas() {
    if (!blas_) blas_ = std::make_unique<Blas>();
    return *blas_;
}

std::unique_ptr<flanmoe::Engine> open_engine(int place) { return std::make_unique<Engine>(place); }

}  // namespace flanmoe::cuda

#include "engine.hpp"

#include "blas.hpp"
#include "core/log.hpp"

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstdlib>

// Ranges for profilers, where the toolkit has the header.
#if __has_include(<nvtx3/nvToolsExt.h>)
#include <nvtx3/nvToolsExt.h>
#define FLANMOE_NVTX
#endif

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

void check(cudaError_t error, const char* what, const std::string& where) {
    if (error == cudaSuccess) return;
    const std::string reason = cudaGetErrorString(error);
    cudaGetLastError();  // what can be cleared is: the caller may catch the failure and go on
    switch (error) {
        case cudaErrorMemoryAllocation: fail(Exit::out_of_memory, "out of GPU memory at {}; take fewer or shorter rows at a time (training: data.micro_batch_rows, train.recompute; eval and generate: --batch)", what + where);
        case cudaErrorNoKernelImageForDevice: fail(Exit::hardware, "the GPU cannot be used: {} (at {}); use --device cpu to run without", reason, what + where);
        default: fail(Exit::internal, "CUDA failed at {}: {}", what + where, reason);
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
    for (const auto& [memory, size] : pinned_) cudaFreeHost(memory);
    for (cudaEvent_t event : marks_) cudaEventDestroy(event);
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
    require(!recording_, "copies of memory that stays where it is, while a graph is recorded");
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

// Pinning takes the driver long and waits for the GPU, and exchanges through the host ask for it again and again: pieces of a power of two are kept.
void* Engine::allocate_pinned(int64_t bytes) {
    void* memory = nullptr;
    const size_t size = separate_allocations_ ? static_cast<size_t>(bytes) : std::bit_ceil(static_cast<size_t>(std::max<int64_t>(bytes, 4096)));
    if (std::vector<void*>& kept = free_pinned_[size]; !separate_allocations_ && !kept.empty()) {
        memory = kept.back();
        kept.pop_back();
        return memory;
    }
    const cudaError_t error = cudaMallocHost(&memory, size);
    if (error == cudaErrorMemoryAllocation) {
        cudaGetLastError();
        return nullptr;
    }
    check(error, "allocating memory that the GPU copies from");
    if (!separate_allocations_) pinned_[memory] = size;
    return memory;
}
void Engine::release_pinned(void* memory) {
    if (const auto kept = pinned_.find(memory); kept != pinned_.end()) free_pinned_[kept->second].push_back(memory);
    else cudaFreeHost(memory);
}
void Engine::upload_later(void* to, const void* pinned, int64_t bytes) {
    check(cudaMemcpyAsync(to, pinned, static_cast<size_t>(bytes), cudaMemcpyHostToDevice, stream_), "a copy to the GPU");
}
void Engine::download_later(void* pinned, const void* from, int64_t bytes) {
    check(cudaMemcpyAsync(pinned, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToHost, stream_), "a copy from the GPU");
}

namespace {

struct Graph : flanmoe::Engine::Recording {
    cudaGraphExec_t exec = nullptr;
    int replaced = 0;  // in a row
    ~Graph() override {
        if (exec) cudaGraphExecDestroy(exec);
    }
};

struct GraphOwner {
    cudaGraph_t graph = nullptr;
    ~GraphOwner() {
        if (graph) cudaGraphDestroy(graph);
    }
};

}  // namespace

// Recorded anew every time, since kernels have their random keys, rates and shapes as arguments, and the executable graph brought up to date, which costs
// the host about as much as queueing. Meanwhile the GPU has nothing to do, as the step before has been waited for: whether that costs more than the pauses
// between launches that a graph spares is to be measured on hardware (test/gpu/bench.sh times both). A graph of other kernels takes its place.
void Engine::run_recorded(std::unique_ptr<Recording>& recording, const std::function<void()>& work) {
    GraphOwner fresh;
    check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "recording a graph");
    recording_ = true;
    try {
        work();
    } catch (...) {
        recording_ = false;
        cudaStreamEndCapture(stream_, &fresh.graph);
        cudaGetLastError();
        throw;
    }
    recording_ = false;
    check(cudaStreamEndCapture(stream_, &fresh.graph), "recording a graph");
    if (!recording) recording = std::make_unique<Graph>();
    Graph& graph = static_cast<Graph&>(*recording);
    cudaGraphExec_t& exec = graph.exec;
    cudaGraphExecUpdateResultInfo result{};
    if (!exec || cudaGraphExecUpdate(exec, fresh.graph, &result) == cudaSuccess) {
        graph.replaced = 0;
    } else {
        cudaGetLastError();
        if (++graph.replaced == 3) warn("steps of the same shapes need a new CUDA graph each (reason {}), which costs time; train.cuda_graph = false may be faster", static_cast<int>(result.result));
        check(cudaGraphExecDestroy(std::exchange(exec, nullptr)), "replacing a graph");
    }
    if (!exec) check(cudaGraphInstantiate(&exec, fresh.graph, 0), "making a graph");
    check(cudaGraphLaunch(exec, stream_), "starting a graph");
}

int64_t Engine::mark() {
    if (marks_used_ == marks_.size()) {
        marks_.emplace_back();
        check(cudaEventCreate(&marks_.back()), "making an event");
    }
    check(cudaEventRecord(marks_[marks_used_], stream_), "marking a time");
    return static_cast<int64_t>(marks_used_++);
}
double Engine::seconds_between(int64_t first, int64_t second) const {
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, marks_.at(static_cast<size_t>(first)), marks_.at(static_cast<size_t>(second))), "measuring a time");
    return 1e-3 * static_cast<double>(milliseconds);
}

void Engine::enter_part(const char* name, int layer) {
    part_ = name, layer_ = layer;
#ifdef FLANMOE_NVTX
    char text[64];
    std::snprintf(text, sizeof text, layer < 0 ? "%s" : "%s, layer %d", name, layer);
    nvtxRangePushA(text);
#endif
}
void Engine::leave_part() {
    part_ = nullptr, layer_ = -1;
#ifdef FLANMOE_NVTX
    nvtxRangePop();
#endif
}

// A fault of a kernel is noticed by a later call, often the one that waits: then only the step is known.
std::string Engine::where() const {
    std::string text;
    if (part_) text += fmt::format(" in {}", part_);
    if (layer_ >= 0) text += fmt::format(" of layer {}", layer_);
    if (step_ >= 0) text += fmt::format("{} step {}", part_ ? "," : " in", step_);
    return text;
}

int64_t Engine::available_bytes() const {
    size_t free = 0, total = 0;
    check(cudaMemGetInfo(&free, &total), "asking for the GPU's free memory");
    return static_cast<int64_t>(free);
}

int64_t Engine::device_bytes() const { return static_cast<int64_t>(properties_.totalGlobalMem); }

void Engine::allow_shared(const void* kernel, size_t bytes, const char* name) {
    size_t& limit = shared_limits_[kernel];
    if (bytes <= limit) return;
    if (bytes > properties_.sharedMemPerBlockOptin)
        fail(Exit::hardware, "kernel '{}' needs {} KB of shared memory in a block and {} has {} KB; use smaller heads, bf16, or another GPU", name, bytes >> 10, properties_.name,
             properties_.sharedMemPerBlockOptin >> 10);
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)), name);
    limit = bytes;
}

Blas& Engine::blas() {
    if (!blas_) blas_ = std::make_unique<Blas>();
    return *blas_;
}

std::unique_ptr<flanmoe::Engine> open_engine(int place) { return std::make_unique<Engine>(place); }

}  // namespace flanmoe::cuda

// Errors, memory and the machine of the simulated runtime.
//
// Every allocation is one of the host's, of exactly the size asked for, so that AddressSanitizer sees its borders; its bytes begin as NaN. Copies from
// ordinary host memory read it at the call, as the runtime stages them; from pinned memory when the stream gets there.
#include "cudasim/runtime_state.hpp"

#include "core/error.hpp"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <vector>

namespace cudasim {

namespace {

struct State {
    std::recursive_mutex mutex;
    Counters counters;
    cudaError_t error = cudaSuccess;
    std::string sentence;
    std::map<const char*, size_t> device, pinned;  // allocations by address
    size_t used = 0;
};
State& state() {
    static State& state = *new State;  // outlives whatever frees memory at the end of the program
    return state;
}

cudaError_t allocate(std::map<const char*, size_t>& kind, void** memory, size_t bytes) {
    *memory = nullptr;
    if (bytes == 0) return cudaSuccess;
    if (::posix_memalign(memory, 256, bytes) != 0) return set_error(cudaErrorMemoryAllocation);
    std::memset(*memory, 0xff, bytes);
    kind[static_cast<const char*>(*memory)] = bytes;
    return cudaSuccess;
}

bool inside(const std::map<const char*, size_t>& kind, const void* pointer, size_t bytes) {
    const char* const first = static_cast<const char*>(pointer);
    auto next = kind.upper_bound(first);
    if (next == kind.begin()) return false;
    --next;
    return first + bytes <= next->first + next->second;
}

}  // namespace

std::recursive_mutex& mutex() { return state().mutex; }
Counters& count() { return state().counters; }
Counters counters() {
    const std::lock_guard lock(mutex());
    return state().counters;
}
cudaError_t set_error(cudaError_t error) {
    if (!failed()) state().error = error;  // what a kernel did wrong stays until it is asked for
    return error;
}
bool failed() { return state().error == cudaErrorLaunchFailure; }
cudaError_t failure() { return failed() ? cudaErrorLaunchFailure : cudaSuccess; }
cudaError_t fail(std::string sentence) {
    if (failed()) return cudaErrorLaunchFailure;
    state().sentence = std::move(sentence);
    drop_work();
    return set_error(cudaErrorLaunchFailure);
}

uint64_t number_of(const char* variable, uint64_t otherwise) {
    const char* const text = std::getenv(variable);
    if (!text) return otherwise;
    uint64_t value = 0;
    const char* const end = text + std::strlen(text);
    const auto result = std::from_chars(text, end, value);
    if (result.ec != std::errc() || result.ptr != end || text == end)
        flanmoe::fail(flanmoe::Exit::usage, "the simulator's {} is \"{}\", not a number; correct it or leave it out (test/cudasim/README.md)", variable, text);
    return value;
}

Machine& machine() {
    static Machine machine = [] {
        const auto number = [](const char* name, auto& value) { value = static_cast<std::remove_reference_t<decltype(value)>>(number_of(name, static_cast<uint64_t>(value))); };
        Machine m;
        number("FLANMOE_SIM_DEVICES", m.devices);
        number("FLANMOE_SIM_DRIVER", m.driver);
        number("FLANMOE_SIM_ARCH", m.architecture);
        number("FLANMOE_SIM_MEMORY", m.memory);
        return m;
    }();
    return machine;
}

}  // namespace cudasim

using namespace cudasim;

namespace {
thread_local int current_device = 0;  // memory is the host's, whatever the device
}
int cudasim::this_device() { return current_device; }
size_t cudasim::most_shared() { return size_t{machine().architecture == 80 || machine().architecture == 87 ? 163u : machine().architecture < 90 ? 99u : 227u} << 10; }

const char* cudaGetErrorString(cudaError_t error) {
    switch (error) {
        case cudaSuccess: return "no error";
        case cudaErrorInvalidValue: return "invalid argument";
        case cudaErrorMemoryAllocation: return "out of memory";
        case cudaErrorInsufficientDriver: return "CUDA driver version is insufficient for CUDA runtime version";
        case cudaErrorNoDevice: return "no CUDA-capable device is detected";
        case cudaErrorInvalidDevice: return "invalid device ordinal";
        case cudaErrorNotReady: return "device not ready";
        case cudaErrorLaunchFailure: return state().sentence.c_str();
        case cudaErrorStreamCaptureUnsupported: return "operation not permitted when stream is capturing";
        case cudaErrorStreamCaptureInvalidated: return "operation failed due to a previous error during capture";
        case cudaErrorStreamCaptureUnjoined: return "capturing stream has unjoined work";
        case cudaErrorGraphExecUpdateFailure: return "the graph update was not performed because it included changes which violated constraints specific to instantiated graph update";
        default: return "unknown error";
    }
}
const char* cudaGetErrorName(cudaError_t error) { return error == cudaErrorLaunchFailure ? "cudaErrorLaunchFailure" : cudaGetErrorString(error); }
cudaError_t cudaGetLastError() {
    const std::lock_guard lock(mutex());
    return std::exchange(state().error, cudaSuccess);
}
cudaError_t cudaPeekAtLastError() { return state().error; }

cudaError_t cudaGetDeviceCount(int* count) {
    *count = 0;
    if (machine().driver < CUDART_VERSION / 1000 * 1000) return set_error(cudaErrorInsufficientDriver);
    *count = machine().devices;
    return *count ? cudaSuccess : set_error(cudaErrorNoDevice);
}
cudaError_t cudaSetDevice(int device) {
    if (device < 0 || device >= machine().devices) return set_error(cudaErrorInvalidDevice);
    current_device = device;
    return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
    *device = current_device;
    return cudaSuccess;
}
cudaError_t cudaDeviceGetPCIBusId(char* text, int length, int device) {
    std::snprintf(text, static_cast<size_t>(length), "0000:%02x:00.0", static_cast<unsigned>(device + 1));
    return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
    *properties = {};
    std::strcpy(properties->name, "CUDA simulator");
    properties->totalGlobalMem = machine().memory;
    properties->sharedMemPerBlockOptin = most_shared();
    properties->major = machine().architecture / 10, properties->minor = machine().architecture % 10;
    properties->multiProcessorCount = 4;
    properties->l2CacheSize = 50 << 20;
    return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) {
    *version = machine().driver;
    return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
    *version = CUDART_VERSION;
    return cudaSuccess;
}
cudaError_t cudaDeviceReset() {
    const std::lock_guard lock(mutex());
    drop_work();
    state().error = cudaSuccess;
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
    const std::lock_guard lock(mutex());
    *total = machine().memory;
    *free = machine().memory - std::min(state().used, machine().memory);
    return cudaSuccess;
}
cudaError_t cudaMalloc(void** memory, size_t bytes) {
    const std::lock_guard lock(mutex());
    *memory = nullptr;
    if (const cudaError_t refused = refuse_in_capture()) return refused;
    ++count().allocations;
    if (bytes > machine().memory || state().used + bytes > machine().memory) return set_error(cudaErrorMemoryAllocation);
    state().used += bytes;
    return allocate(state().device, memory, bytes);
}
cudaError_t cudaMallocManaged(void** memory, size_t bytes, unsigned) { return cudaMalloc(memory, bytes); }
cudaError_t cudaFree(void* memory) {
    if (!memory) return cudaSuccess;
    const std::lock_guard lock(mutex());
    if (const cudaError_t refused = refuse_in_capture()) return refused;
    finish_all();
    const auto found = state().device.find(static_cast<const char*>(memory));
    if (found == state().device.end()) return set_error(cudaErrorInvalidValue);
    state().used -= found->second;
    state().device.erase(found);
    std::free(memory);
    return failure();
}
cudaError_t cudaMallocHost(void** memory, size_t bytes) {
    const std::lock_guard lock(mutex());
    if (const cudaError_t refused = refuse_in_capture()) return refused;
    ++count().allocations;
    return allocate(state().pinned, memory, bytes);
}
cudaError_t cudaFreeHost(void* memory) {
    if (!memory) return cudaSuccess;
    const std::lock_guard lock(mutex());
    finish_all();
    if (state().pinned.erase(static_cast<const char*>(memory)) == 0) return set_error(cudaErrorInvalidValue);
    std::free(memory);
    return failure();
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
    const std::lock_guard lock(mutex());
    if (bytes == 0) return failure();
    if (!capturing(stream)) ++count().copies;
    const auto unpinned = [&](const void* host) { return !inside(state().pinned, host, bytes); };
    if ((kind == cudaMemcpyHostToDevice && !inside(state().device, to, bytes)) || (kind == cudaMemcpyDeviceToHost && !inside(state().device, from, bytes)) ||
        (kind == cudaMemcpyDeviceToDevice && !(inside(state().device, to, bytes) && inside(state().device, from, bytes))))
        return set_error(cudaErrorInvalidValue);
    if ((kind == cudaMemcpyHostToDevice && unpinned(from)) || (kind == cudaMemcpyDeviceToHost && unpinned(to))) ++count().pageable_copies;
    if (kind == cudaMemcpyHostToDevice && unpinned(from) && !capturing(stream)) {  // staged: the stream may wait for other ranks
        std::vector<char> staged(static_cast<const char*>(from), static_cast<const char*>(from) + bytes);
        return queue_work(stream, [to, staged = std::move(staged)] { std::memcpy(to, staged.data(), staged.size()); });
    }
    const cudaError_t error = queue_work(stream, [to, from, bytes] { std::memmove(to, from, bytes); });
    if (kind == cudaMemcpyDeviceToHost && unpinned(to) && !capturing(stream)) finish(stream);
    return error ? error : failure();
}
// Between places on the device only.
cudaError_t cudaMemcpy2DAsync(void* to, size_t to_stride, const void* from, size_t from_stride, size_t bytes, size_t rows, cudaMemcpyKind kind, cudaStream_t stream) {
    const std::lock_guard lock(mutex());
    if (bytes == 0 || rows == 0) return failure();
    const auto spanned = [&](size_t stride) { return (rows - 1) * stride + bytes; };
    if (kind != cudaMemcpyDeviceToDevice || to_stride < bytes || from_stride < bytes || !inside(state().device, to, spanned(to_stride)) ||
        !inside(state().device, from, spanned(from_stride)))
        return set_error(cudaErrorInvalidValue);
    if (!capturing(stream)) ++count().copies;
    return queue_work(stream, [=] {
        for (size_t r = 0; r < rows; ++r) std::memmove(static_cast<char*>(to) + r * to_stride, static_cast<const char*>(from) + r * from_stride, bytes);
    });
}
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
    const std::lock_guard lock(mutex());
    if (const cudaError_t refused = refuse_in_capture()) return refused;
    ++count().synchronisations;
    const cudaError_t error = cudaMemcpyAsync(to, from, bytes, kind, nullptr);
    finish(nullptr);
    return error ? error : failure();
}
cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t stream) {
    const std::lock_guard lock(mutex());
    if (bytes == 0) return failure();
    if (!inside(state().device, memory, bytes)) return set_error(cudaErrorInvalidValue);
    return queue_work(stream, [=] { std::memset(memory, value, bytes); });
}
cudaError_t cudaMemset(void* memory, int value, size_t bytes) { return cudaMemsetAsync(memory, value, bytes, nullptr); }

// Streams, events, graphs, memory and the pretended machine; a dependency that is missing between streams shows.
#include "cudasim/kernels.hpp"

#include "core/error.hpp"
#include "cuda/engine.hpp"
#include "ops/engine.hpp"

#include <doctest/doctest.h>

#include <cmath>

using namespace cudasim::test;

namespace {

__global__ void add_kernel(int* values, int by) { values[threadIdx.x] += by; }
__global__ void double_kernel(int* values) { values[threadIdx.x] *= 2; }

template <class... Parameters, class... Arguments>
void queue(cudaStream_t stream, void (*kernel)(Parameters...), Arguments&&... arguments) {
    cudaLaunchConfig_t config{};
    config.blockDim = 32, config.stream = stream;
    REQUIRE(cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...) == cudaSuccess);
}

struct TwoStreams {
    cudaStream_t a, b;
    cudaEvent_t event, back;
    TwoStreams() {
        cudaStreamCreateWithFlags(&a, cudaStreamNonBlocking), cudaStreamCreateWithFlags(&b, cudaStreamNonBlocking);
        cudaEventCreateWithFlags(&event, cudaEventDisableTiming), cudaEventCreateWithFlags(&back, cudaEventDefault);
    }
    ~TwoStreams() {
        cudaEventDestroy(event), cudaEventDestroy(back);
        cudaStreamDestroy(a), cudaStreamDestroy(b);
    }
};

constexpr int repeats = 20;

// (0 + 3) * 2 on two streams, the second waiting for the first or not.
int wrong_results(bool with_event) {
    int wrong = 0;
    for (int i = 0; i < repeats; ++i) {
        const TwoStreams s;
        const Memory<int> values(32);
        queue(s.a, add_kernel, +values, 3);
        cudaEventRecord(s.event, s.a);
        if (with_event) cudaStreamWaitEvent(s.b, s.event);
        queue(s.b, double_kernel, +values);
        cudaStreamSynchronize(s.a), cudaStreamSynchronize(s.b);
        wrong += values.values() != std::vector<int>(32, 6);
    }
    return wrong;
}

// The same as a graph: fork to the second stream, join; run `times` times.
cudaGraph_t capture(const TwoStreams& s, int* values, int by, bool join) {
    REQUIRE(cudaStreamBeginCapture(s.a, cudaStreamCaptureModeGlobal) == cudaSuccess);
    queue(s.a, add_kernel, values, by);
    cudaEventRecord(s.event, s.a);
    cudaStreamWaitEvent(s.b, s.event);
    queue(s.b, double_kernel, values);
    cudaEventRecord(s.back, s.b);
    if (join) cudaStreamWaitEvent(s.a, s.back);
    cudaGraph_t graph;
    const cudaError_t error = cudaStreamEndCapture(s.a, &graph);
    CHECK(error == (join ? cudaSuccess : cudaErrorStreamCaptureUnjoined));
    cudaGetLastError();
    return graph;
}

// Puts the machine back when it ends.
struct PretendedMachine {
    cudasim::Machine before = cudasim::machine();
    ~PretendedMachine() { cudasim::machine() = before; }
};

std::string refusal(int exit_code) {
    try {
        flanmoe::open_engine(flanmoe::Device::cuda);
    } catch (const flanmoe::Error& error) {
        CHECK(static_cast<int>(error.code) == exit_code);
        return error.what();
    }
    return "";
}

}  // namespace

TEST_SUITE("cudasim/streams") {
    TEST_CASE("work of one stream runs in order") {
        const DeferredStreams deferred;
        const TwoStreams s;
        const Memory<int> values(32);
        for (int i = 0; i < repeats; ++i) queue(s.a, add_kernel, +values, 1), queue(s.a, double_kernel, +values);
        cudaStreamSynchronize(s.a);
        CHECK(values[0] == 2 * ((1 << repeats) - 1));
    }

    TEST_CASE("a missing dependency between streams shows, one by an event does not") {
        const DeferredStreams deferred;
        CHECK(wrong_results(true) == 0);
        CHECK(wrong_results(false) > 0);
    }

    TEST_CASE("an event waits for its last record alone; one that was never recorded is done") {
        const DeferredStreams deferred;
        const TwoStreams s;
        CHECK(cudaEventQuery(s.event) == cudaSuccess);
        const Memory<int> values(32);
        queue(s.a, add_kernel, +values, 3);
        cudaEventRecord(s.event, s.a);
        CHECK(cudaEventSynchronize(s.event) == cudaSuccess);
        CHECK(values[0] == 3);
        cudaEventRecord(s.event, s.a), cudaEventRecord(s.back, s.a);
        cudaStreamSynchronize(s.a);
        float milliseconds = -1;
        CHECK(cudaEventElapsedTime(&milliseconds, s.event, s.back) == cudaSuccess);
        CHECK(milliseconds >= 0);
    }

    TEST_CASE("a graph runs what was captured, as often as launched, with new arguments after an update") {
        for (bool late : {false, true}) {
            cudasim::options().deferred_streams = late;
            const TwoStreams s;
            const Memory<int> values(32);
            cudaGraph_t graph = capture(s, values, 3, true);
            REQUIRE(graph);
            CHECK(values[0] == 0);  // captured, not run
            cudaGraphExec_t exec;
            CHECK(cudaGraphInstantiate(&exec, graph) == cudaSuccess);
            for (int i = 0; i < 3; ++i) CHECK(cudaGraphLaunch(exec, s.a) == cudaSuccess);
            cudaStreamSynchronize(s.a);
            CHECK(values[0] == ((0 + 3) * 2 + 3) * 2 * 2 + 6);
            cudaGraph_t other = capture(s, values, 10, true);
            cudaGraphExecUpdateResultInfo info{};
            CHECK(cudaGraphExecUpdate(exec, other, &info) == cudaSuccess);
            cudaGraphLaunch(exec, s.a);
            cudaStreamSynchronize(s.a);
            CHECK(values[0] == (42 + 10) * 2);
            cudaGraphDestroy(graph), cudaGraphDestroy(other), cudaGraphExecDestroy(exec);
            cudasim::options().deferred_streams = false;
        }
    }

    TEST_CASE("a capture is spoilt by waiting, by allocating, and by a stream that is not joined") {
        const TwoStreams s;
        const Memory<int> values(32);
        CHECK(capture(s, values, 3, false) == nullptr);
        for (int fault = 0; fault < 3; ++fault) {
            cudaStreamBeginCapture(s.a, cudaStreamCaptureModeGlobal);
            void* memory = nullptr;
            const cudaError_t error = fault == 0 ? cudaStreamSynchronize(s.a) : fault == 1 ? cudaMalloc(&memory, 8) : cudaDeviceSynchronize();
            CHECK(error == cudaErrorStreamCaptureUnsupported);
            cudaGraph_t graph;
            CHECK(cudaStreamEndCapture(s.a, &graph) == cudaErrorStreamCaptureInvalidated);
            cudaGetLastError();
        }
    }

    TEST_CASE("a failure in a queued kernel reaches the call that waits") {
        const DeferredStreams deferred;
        const TwoStreams s;
        cudaLaunchConfig_t config{};
        config.blockDim = 64, config.stream = s.a;
        cudasim::name_next_launch("late");
        cudaLaunchKernelEx(&config, +[]() {
            if (threadIdx.x == 0) __syncthreads();
        });
        CHECK(cudaStreamSynchronize(s.a) == cudaErrorLaunchFailure);
        CHECK(contains(cudaGetErrorString(cudaGetLastError()), "kernel 'late'"));
        CHECK(cudaStreamSynchronize(s.a) == cudaSuccess);
    }

    TEST_CASE("ordinary host memory is read at the call, pinned memory when the stream gets there") {
        const DeferredStreams deferred;
        int changed = 0;
        for (int i = 0; i < repeats; ++i) {
            const TwoStreams s;
            const Memory<int> values(32);
            int ordinary = 1, *pinned;
            cudaMallocHost(&pinned, sizeof(int));
            *pinned = 1;
            cudaMemcpyAsync(values, &ordinary, sizeof(int), cudaMemcpyHostToDevice, s.a);
            cudaMemcpyAsync(values + 1, pinned, sizeof(int), cudaMemcpyHostToDevice, s.a);
            ordinary = *pinned = 2;
            cudaStreamSynchronize(s.a);
            CHECK(values[0] == 1);
            changed += values[1] == 2;
            cudaFreeHost(pinned);
        }
        CHECK(changed > 0);
    }

    TEST_CASE("copies must lie inside an allocation of the kind that is named") {
        const Memory<int> values(8);
        int host[9];
        CHECK(cudaMemcpy(values, host, 32, cudaMemcpyHostToDevice) == cudaSuccess);
        CHECK(cudaMemcpy(values, host, 36, cudaMemcpyHostToDevice) == cudaErrorInvalidValue);
        CHECK(cudaMemcpy(host, host + 1, 4, cudaMemcpyDeviceToHost) == cudaErrorInvalidValue);
        CHECK(cudaMemcpy2DAsync(values, 12, values + 6, 4, 4, 2, cudaMemcpyDeviceToDevice) == cudaSuccess);
        CHECK(cudaMemcpy2DAsync(values, 12, values + 6, 8, 4, 2, cudaMemcpyDeviceToDevice) == cudaErrorInvalidValue);
        CHECK(cudaFree(host) == cudaErrorInvalidValue);
        cudaGetLastError();
    }

    TEST_CASE("operations with late streams give what they give in order") {
        flanmoe::Context context(flanmoe::Device::cuda, *[] {
            static const auto engine = flanmoe::open_engine(flanmoe::Device::cuda);
            return engine.get();
        }());
        const DeferredStreams deferred;
        const flanmoe::Tensor values = context.upload(std::vector<float>{1, 2, 3}, {3});
        context.engine->zero(static_cast<char*>(values.data) + 4, 4);
        CHECK(context.download<float>(values) == std::vector<float>{1, 0, 3});
    }

    TEST_CASE("machines that cannot be used are refused in one sentence with exit code 69 or 71") {
        const PretendedMachine restore;
        cudasim::machine().devices = 0;
        CHECK(contains(refusal(69), "no GPU is visible"));
        cudasim::machine() = {.devices = 1, .driver = 12040};
        CHECK(contains(refusal(69), "the NVIDIA driver supports CUDA 12.4 and this program needs 13.0"));
        cudasim::machine().driver = 0;
        CHECK(contains(refusal(69), "no NVIDIA driver"));
        cudasim::machine() = {.architecture = 75};
        CHECK(contains(refusal(69), "compute capability 7.5"));
        cudasim::machine() = {.start = cudaErrorDevicesUnavailable};
        CHECK(contains(refusal(69), "held by another process alone"));
        cudasim::machine() = {.start = cudaErrorMemoryAllocation};
        CHECK(contains(refusal(71), "another process holds it"));
    }

    TEST_CASE("no memory left: null from the engine, exit code 71 from an arena") {
        const PretendedMachine restore;
        const auto engine = flanmoe::open_engine(flanmoe::Device::cuda);
        cudasim::machine().memory = 1 << 20;
        CHECK(engine->allocate(2 << 20) == nullptr);
        flanmoe::Context context(flanmoe::Device::cuda, *engine);
        try {
            context.allocate(flanmoe::DType::f32, {1 << 20});
            CHECK(false);
        } catch (const flanmoe::Error& error) {
            CHECK(error.code == flanmoe::Exit::out_of_memory);
        }
        CHECK(cudaPeekAtLastError() == cudaSuccess);
    }
}

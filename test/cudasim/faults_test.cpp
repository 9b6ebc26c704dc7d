// Faults planted in kernels: each must be caught. Where a fault changes results only in some orders of threads, some of several launches must show it.
#include "cudasim/kernels.hpp"

#include "cuda/device.cuh"

#include <doctest/doctest.h>

#include <sys/wait.h>
#include <unistd.h>

#include <cmath>

using namespace cudasim::test;
using flanmoe::cuda::full_mask;
using flanmoe::cuda::load_vec;
using flanmoe::cuda::Shared;
using flanmoe::cuda::shared_bytes;

namespace {

constexpr int launches = 20;

__global__ void reverse_kernel(const float* in, float* out, bool with_barrier) {
    Shared shared;
    float* const piece = shared.take<float>(blockDim.x);
    piece[threadIdx.x] = in[threadIdx.x];
    if (with_barrier) __syncthreads();
    out[threadIdx.x] = piece[blockDim.x - 1 - threadIdx.x];
}

// Sums over the block in steps that halve it, as textbooks have it; the last steps stay inside one warp.
__global__ void sum_kernel(const int* in, int* sum, bool with_syncwarp) {
    Shared shared;
    int* const piece = shared.take<int>(blockDim.x);
    piece[threadIdx.x] = in[threadIdx.x];
    __syncthreads();
    for (unsigned step = blockDim.x / 2; step >= 32; step /= 2) {
        if (threadIdx.x < step) piece[threadIdx.x] += piece[threadIdx.x + step];
        __syncthreads();
    }
    if (threadIdx.x >= 32) return;
    for (unsigned step = 16; step > 0; step /= 2) {
        const int other = piece[threadIdx.x + step];
        if (with_syncwarp) __syncwarp();
        piece[threadIdx.x] += other;
        if (with_syncwarp) __syncwarp();
    }
    if (threadIdx.x == 0) *sum = piece[0];
}

__global__ void partial_kernel(float* out, int initialised) {
    Shared shared;
    float* const piece = shared.take<float>(blockDim.x);
    if (static_cast<int>(threadIdx.x) < initialised) piece[threadIdx.x] = 1;
    __syncthreads();
    float sum = 0;
    for (unsigned i = 0; i < blockDim.x; ++i) sum += piece[i];
    out[threadIdx.x] = sum;
}

__global__ void divergent_kernel(int* out) {
    if (threadIdx.x == 5) return;
    __syncthreads();
    out[threadIdx.x] = 1;
}
__global__ void two_barriers_kernel(int* out) {
    if (threadIdx.x < 32) {
        __syncthreads();
    } else {
        __syncthreads();
    }
    out[threadIdx.x] = 1;
}
__global__ void missing_lane_kernel(int* out) {
    if (threadIdx.x != 7) out[threadIdx.x] = __shfl_xor_sync(full_mask, 1, 1);
}
__global__ void short_warp_kernel(int* out) { out[threadIdx.x] = __shfl_xor_sync(full_mask, 1, 1); }
__global__ void unnamed_lane_kernel(int* out) { out[threadIdx.x] = __shfl_sync(0xffu, 1, 0); }
__global__ void unnamed_source_kernel(int* out) {
    if (threadIdx.x < 8) out[threadIdx.x] = __shfl_sync(0xffu, 1, 9);
}
__global__ void vector_kernel(const float* in, float* out, int offset) {
    const auto four = load_vec<4>(in + offset);
    out[threadIdx.x] = four[0];
}
__global__ void take_kernel(float* out, int count) {
    Shared shared;
    shared.take<float>(16)[0] = 0;
    out[0] = shared.take<float>(count)[0];
}
__global__ void nothing_kernel() {}
__global__ void wait_kernel(int* flag) {
    if (blockIdx.x == 0) {
        while (atomicAdd(flag, 0) == 0) {}
    } else if (blockIdx.x == 1000) {  // there is none
        atomicExch(flag, 1);
    }
}

#ifdef __SANITIZE_ADDRESS__
__global__ void copy_kernel(const int* from, int* to, int count) {
    const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
    if (i <= count) to[i] = from[i];  // reads and writes one too far
}
__global__ void shared_copy_kernel(int* to, int extra) {
    Shared shared;
    int* const a = shared.take<int>(blockDim.x);
    int* const b = shared.take<int>(blockDim.x);
    a[threadIdx.x] = b[threadIdx.x] = 1;
    __syncthreads();
    to[threadIdx.x] = a[threadIdx.x + static_cast<unsigned>(extra)];
}

// What `body` prints to standard error before it dies, in a process of its own.
template <class Body>
std::string last_words(Body&& body) {
    int ends[2];
    REQUIRE(::pipe(ends) == 0);
    const pid_t child = ::fork();
    if (child == 0) {
        cudasim::options().threads = 1;  // the parent's helpers do not exist here
        ::dup2(ends[1], 2);
        body();
        ::_exit(0);
    }
    ::close(ends[1]);
    std::string text;
    char buffer[4096];
    for (ssize_t got; (got = ::read(ends[0], buffer, sizeof buffer)) > 0;) text.append(buffer, static_cast<size_t>(got));
    ::close(ends[0]);
    int status = 0;
    ::waitpid(child, &status, 0);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? "lived on" : text;
}
#endif

}  // namespace

TEST_SUITE("cudasim/faults") {
    TEST_CASE("a removed __syncthreads changes results") {
        for (bool with_barrier : {true, false}) {
            int wrong = 0;
            for (int i = 0; i < launches; ++i) {
                const Memory<float> in(64, 2.0f), out(64);
                REQUIRE(run(reverse_kernel, 1, 64, shared_bytes<float>(64), +in, +out, with_barrier) == "");
                wrong += out.values() != std::vector<float>(64, 2.0f);
            }
            CHECK(wrong == (with_barrier ? 0 : launches));
        }
    }

    TEST_CASE("a warp that relies on running in step does not") {
        for (bool with_syncwarp : {true, false}) {
            int wrong = 0;
            for (int i = 0; i < launches; ++i) {
                const Memory<int> in(128, 1), sum(1);
                REQUIRE(run(sum_kernel, 1, 128, shared_bytes<int>(128), +in, +sum, with_syncwarp) == "");
                wrong += *sum != 128;
            }
            CHECK((wrong > 0) == !with_syncwarp);
        }
    }

    TEST_CASE("shared memory that nobody wrote is NaN") {
        const Memory<float> out(64);
        REQUIRE(run(partial_kernel, 1, 64, shared_bytes<float>(64), +out, 64) == "");
        CHECK(out[3] == 64);
        REQUIRE(run(partial_kernel, 1, 64, shared_bytes<float>(64), +out, 63) == "");
        CHECK(std::isnan(out[3]));
    }

    TEST_CASE("device memory that nobody wrote is NaN") {
        float* memory;
        cudaMalloc(&memory, 40);
        for (int i = 0; i < 10; ++i) CHECK(std::isnan(memory[i]));
        cudaFree(memory);
    }

    TEST_CASE("a barrier that not all threads reach") {
        const Memory<int> out(64);
        const std::string left = run(divergent_kernel, 2, 64, 0, +out);
        CHECK(contains(left, "kernel 'tested', block ("));
        CHECK(contains(left, "a barrier that not all threads reach"));
        CHECK(contains(left, "thread (5, 0, 0) has ended"));
        const std::string two = run(two_barriers_kernel, 1, 64, 0, +out);
        CHECK(contains(two, "a barrier is one place that all threads reach"));
        CHECK(contains(two, "faults_test.cpp:"));
    }

    TEST_CASE("a warp operation whose mask names a lane that does not arrive") {
        const Memory<int> out(64);
        CHECK(contains(run(missing_lane_kernel, 1, 32, 0, +out), "for lane 7, which does not arrive: thread (7, 0, 0) has ended"));
        CHECK(contains(run(short_warp_kernel, 1, 20, 0, +out), "names lane 20, but the warp has only 20 threads"));
        CHECK(contains(run(unnamed_lane_kernel, 1, 32, 0, +out), "which does not name its own lane"));
        CHECK(contains(run(unnamed_source_kernel, 1, 32, 0, +out), "from lane 9, which the mask does not name"));
    }

    TEST_CASE("a misaligned vector") {
        const Memory<float> in(64, 1.0f), out(64);
        CHECK(run(vector_kernel, 1, 32, 0, +in, +out, 4) == "");
        const std::string sentence = run(vector_kernel, 1, 32, 0, +in, +out, 2);
        CHECK(contains(sentence, "thread ("));
        CHECK(contains(sentence, "reads a vector of 16 bytes at address"));
    }

    TEST_CASE("more shared memory than asked for") {
        const Memory<float> out(1);
        CHECK(run(take_kernel, 1, 1, shared_bytes<float>(16) + shared_bytes<float>(5), +out, 5) == "");
        CHECK(contains(run(take_kernel, 1, 1, shared_bytes<float>(16) + 16, +out, 5), "takes shared memory up to byte 84 of the 80 it was launched with"));
    }

    TEST_CASE("a launch beyond what hardware has") {
        CHECK(contains(run(nothing_kernel, 1, 1025, 0), "1025 threads a block"));
        CHECK(contains(run(nothing_kernel, 1, dim3(1, 1, 65), 0), "65 in z"));
        CHECK(contains(run(nothing_kernel, dim3(1, 65536), 1, 0), "a grid of 1 x 65536 x 1 blocks"));
        CHECK(contains(run(nothing_kernel, 1, 1, (227 << 10) + 16), "232464 bytes of shared memory"));
        CHECK(contains(run(nothing_kernel, 0, 1, 0), "an empty grid"));
        CHECK(run(nothing_kernel, 1, 1024, 227 << 10) == "");
        cudaLaunchConfig_t config{};
        config.dynamicSmemBytes = 49 << 10;
        CHECK(cudaLaunchKernelEx(&config, divergent_kernel, nullptr) == cudaErrorLaunchFailure);
        CHECK(contains(cudaGetErrorString(cudaGetLastError()), "more than 48 KB of shared memory must be asked for"));
    }

    TEST_CASE("a block that waits for another") {
        const Memory<int> flag(1);
        CHECK(contains(run(wait_kernel, 2, 1, 0, +flag), "it waits for another block"));
    }

    TEST_CASE("after a failure the next launch runs") {
        const Memory<int> out(64);
        CHECK(run(divergent_kernel, 8, 64, 0, +out) != "");
        const Memory<float> in(64, 2.0f), reversed(64);
        CHECK(run(reverse_kernel, 1, 64, shared_bytes<float>(64), +in, +reversed, true) == "");
        CHECK(reversed.values() == std::vector<float>(64, 2.0f));
    }

#ifdef __SANITIZE_ADDRESS__
    TEST_CASE("an access one too far, in a tensor and in a piece of shared memory") {
        CHECK(last_words([] {
                  const Memory<int> from(32, 1), to(33);
                  run(copy_kernel, 1, 32, 0, +from, +to, 31);
              }) == "lived on");
        const std::string read = last_words([] {
            const Memory<int> from(32, 1), to(33);
            run(copy_kernel, 2, 32, 0, +from, +to, 32);
        });
        CHECK(contains(read, "heap-buffer-overflow"));
        CHECK(contains(read, "kernel 'tested', block (1, 0, 0), thread (0, 0, 0)"));
        const std::string shared = last_words([] {
            const Memory<int> to(20);
            run(shared_copy_kernel, 1, 20, 2 * shared_bytes<int>(20), +to, 1);
        });
        CHECK(contains(shared, "use-after-poison"));
        CHECK(contains(shared, "thread (19, 0, 0)"));
    }
#endif
}

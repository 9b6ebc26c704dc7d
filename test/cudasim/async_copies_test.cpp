// Copies that run beside a thread: with the waits that CUDA asks for they arrive, and a wait that is missing or too lax is seen.
#include "cudasim/kernels.hpp"

#include "cuda/mma.cuh"

#include <doctest/doctest.h>

using namespace cudasim::test;
using flanmoe::cuda::Shared;
using flanmoe::cuda::shared_bytes;

namespace {

constexpr int steps = 6, launches = 20;

/// Sums over `steps` pieces of 4 numbers for each thread, two stages under way; lets `pending` groups be under way where it reads.
template <int pending>
__global__ void pipeline_kernel(const int* in, int* sum) {
    Shared shared;
    int* const stages = shared.take<int>(2 * 4 * blockDim.x);
    const auto place = [&](int step) { return stages + (step % 2 * static_cast<int>(blockDim.x) + static_cast<int>(threadIdx.x)) * 4; };
    const auto fetch = [&](int step) {
        if (step < steps) flanmoe::cuda::copy_async_16(place(step), in + (step * static_cast<int>(blockDim.x) + static_cast<int>(threadIdx.x)) * 4, step != 2);
        flanmoe::cuda::copy_async_commit();
    };
    fetch(0), fetch(1);
    int total = 0;
    for (int step = 0; step < steps; ++step) {
        flanmoe::cuda::copy_async_wait<pending>();
        for (int i = 0; i < 4; ++i) total += place(step)[i];
        fetch(step + 2);
    }
    sum[threadIdx.x] = total;
}

/// How many launches gave the right sums.
template <int pending>
int right() {
    constexpr int threads = 64;
    const Memory<int> in(steps * threads * 4), sum(threads);
    for (int i = 0; i < steps * threads * 4; ++i) in[i] = i;
    int count = 0;
    for (int n = 0; n < launches; ++n) {
        CHECK(run(pipeline_kernel<pending>, 1, threads, shared_bytes<int>(2 * 4 * threads), static_cast<const int*>(in), static_cast<int*>(sum)) == "");
        bool same = true;
        for (int t = 0; t < threads; ++t) {
            int expected = 0;
            for (int step = 0; step < steps; ++step)
                for (int i = 0; i < 4 && step != 2; ++i) expected += in[(step * threads + t) * 4 + i];
            same &= sum[t] == expected;
        }
        count += same;
    }
    return count;
}

}  // namespace

TEST_SUITE("cudasim/async_copies") {
    TEST_CASE("a pipeline of copies arrives in time if it waits, and not if it lets one group too many be under way") {
        CHECK(right<1>() == launches);
        CHECK(right<2>() < launches);
    }
}

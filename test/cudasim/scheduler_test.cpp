// Blocks, barriers, warp operations and atomics do what CUDA promises, in any order of threads.
#include "cudasim/kernels.hpp"

#include "cuda/device.cuh"

#include <doctest/doctest.h>

#include <numeric>
#include <set>

using namespace cudasim::test;
using flanmoe::cuda::full_mask;
using flanmoe::cuda::Shared;
using flanmoe::cuda::shared_bytes;

namespace {

__global__ void indices_kernel(int* counts) {
    const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    ++counts[block * blockDim.x * blockDim.y * blockDim.z + thread];
}

// Each thread passes its value to the next, again and again; every round has a barrier before and after the exchange.
__global__ void rotate_kernel(int* values, int rounds) {
    Shared shared;
    int* const piece = shared.take<int>(blockDim.x);
    int mine = static_cast<int>(threadIdx.x);
    for (int i = 0; i < rounds; ++i) {
        piece[threadIdx.x] = mine;
        __syncthreads();
        mine = piece[(threadIdx.x + 1) % blockDim.x];
        __syncthreads();
    }
    values[threadIdx.x] = mine;
}

struct Seen {
    int shuffled, from_xor, down, up, half, count, all, any;
    unsigned ballot, match, sum;
};
__global__ void warp_kernel(Seen* seen) {
    const int lane = static_cast<int>(threadIdx.x % 32), value = lane * lane;
    Seen s{};
    s.shuffled = __shfl_sync(full_mask, value, (lane + 5) % 32);
    s.from_xor = __shfl_xor_sync(full_mask, value, 8);
    s.down = __shfl_down_sync(full_mask, value, 3);
    s.up = __shfl_up_sync(full_mask, value, 3);
    s.half = __shfl_sync(full_mask, value, 0, 16);
    s.ballot = __ballot_sync(full_mask, lane % 3 == 0);
    s.match = __match_any_sync(full_mask, lane % 4);
    s.sum = __reduce_add_sync(full_mask, static_cast<unsigned>(lane));
    s.all = __all_sync(full_mask, lane < 32), s.any = __any_sync(full_mask, lane == 40);
    s.count = __syncthreads_count(lane == 0);
    seen[threadIdx.x] = s;
}

// Two halves of a warp work by themselves, each with its own mask, then together.
__global__ void halves_kernel(int* values) {
    const bool low = threadIdx.x < 16;
    int v = static_cast<int>(threadIdx.x);
    if (low) {
        for (int step = 8; step > 0; step /= 2) v += __shfl_xor_sync(0x0000ffffu, v, step);
    } else {
        for (int step = 8; step > 0; step /= 2) v = max(v, __shfl_xor_sync(0xffff0000u, v, step));
    }
    __syncwarp();
    values[threadIdx.x] = __shfl_sync(full_mask, v, 31 - static_cast<int>(threadIdx.x));
}

__global__ void atomics_kernel(int* sum, unsigned* most, unsigned long long* wide, unsigned* tickets, int* last) {
    atomicAdd(sum, static_cast<int>(threadIdx.x));
    atomicMax(most, blockIdx.x * blockDim.x + threadIdx.x);
    atomicAdd(wide, uint64_t{1} << 33);
    if (threadIdx.x == 0 && atomicInc(tickets, gridDim.x - 1) == gridDim.x - 1) atomicExch(last, 1);
}

__global__ void order_kernel(unsigned* next, unsigned* order) { order[atomicAdd(next, 1u)] = threadIdx.x; }

__global__ void exchange_kernel(int* sums) {
    struct Pair {
        int a, b;
    };
    const auto all = cudasim::warp_exchange(Pair{static_cast<int>(threadIdx.x), 1});
    int sum = 0, twice = 0;
    for (const Pair& p : all) sum += p.a * p.b;
    cudasim::warp_compute(sum, twice, [](const int* const(&in)[32], int* const(&out)[32]) {
        for (int l = 0; l < 32; ++l) *out[l] = *in[l] + *in[31 - l];
    });
    sums[threadIdx.x] = twice;
}

}  // namespace

TEST_SUITE("cudasim/scheduler") {
    TEST_CASE("every thread of every block runs once, whatever the shape") {
        for (dim3 grid : {dim3(1), dim3(7), dim3(3, 2, 2)})
            for (dim3 block : {dim3(1), dim3(33), dim3(1024), dim3(5, 4, 3)}) {
                const size_t count = size_t{grid.x} * grid.y * grid.z * block.x * block.y * block.z;
                const Memory<int> counts(count);
                CHECK(run(indices_kernel, grid, block, 0, +counts) == "");
                CHECK(counts.values() == std::vector<int>(count, 1));
            }
    }

    TEST_CASE("barriers order shared memory, for any number of threads") {
        for (unsigned threads : {1u, 3u, 32u, 100u, 1024u}) {
            const Memory<int> values(threads);
            CHECK(run(rotate_kernel, 1, threads, shared_bytes<int>(threads), +values, 5) == "");
            std::vector<int> expected(threads);
            for (unsigned t = 0; t < threads; ++t) expected[t] = static_cast<int>((t + 5) % threads);
            CHECK(values.values() == expected);
        }
    }

    TEST_CASE("shuffles, votes, matches and sums of a warp") {
        const Memory<Seen> seen(96);
        REQUIRE(run(warp_kernel, 1, 96, 0, +seen) == "");
        for (int t = 0; t < 96; ++t) {
            const int lane = t % 32;
            const Seen& s = seen[t];
            CHECK(s.shuffled == (lane + 5) % 32 * ((lane + 5) % 32));
            CHECK(s.from_xor == (lane ^ 8) * (lane ^ 8));
            CHECK(s.down == (lane + 3 < 32 ? (lane + 3) * (lane + 3) : lane * lane));
            CHECK(s.up == (lane >= 3 ? (lane - 3) * (lane - 3) : lane * lane));
            CHECK(s.half == (lane < 16 ? 0 : 256));
            CHECK(s.ballot == 0x49249249u);
            CHECK(s.match == 0x11111111u << lane % 4);
            CHECK(s.sum == 31 * 16);
            CHECK(s.all == 1);
            CHECK(s.any == 0);
            CHECK(s.count == 3);
        }
    }

    TEST_CASE("parts of a warp that work by themselves") {
        const Memory<int> values(32);
        REQUIRE(run(halves_kernel, 1, 32, 0, +values) == "");
        for (int t = 0; t < 32; ++t) CHECK(values[t] == (t < 16 ? 31 : 120));
    }

    TEST_CASE("integer atomics, among blocks on several host threads") {
        const Memory<int> sum(1), last(1);
        const Memory<unsigned> most(1), tickets(1);
        const Memory<unsigned long long> wide(1);
        REQUIRE(run(atomics_kernel, 40, 128, 0, +sum, +most, +wide, +tickets, +last) == "");
        CHECK(*sum == 40 * 127 * 64);
        CHECK(*most == 40 * 128 - 1);
        CHECK(*wide == (uint64_t{40 * 128} << 33));
        CHECK(*tickets == 0);
        CHECK(*last == 1);
    }

    TEST_CASE("the order of threads is drawn anew for every launch") {
        std::set<std::vector<unsigned>> orders;
        for (int i = 0; i < 8; ++i) {
            const Memory<unsigned> next(1), order(64);
            REQUIRE(run(order_kernel, 1, 64, 0, +next, +order) == "");
            std::vector<unsigned> sorted = order.values();
            orders.insert(sorted);
            std::sort(sorted.begin(), sorted.end());
            std::vector<unsigned> all(64);
            std::iota(all.begin(), all.end(), 0u);
            CHECK(sorted == all);
        }
        CHECK(orders.size() == 8);
    }

    TEST_CASE("what lanes hold, for twins of tensor-core instructions") {
        const Memory<int> sums(32);
        REQUIRE(run(exchange_kernel, 1, 32, 0, +sums) == "");
        CHECK(sums.values() == std::vector<int>(32, 2 * 31 * 16));
    }
}

// One kernel launch on the host: blocks on host threads, the CUDA threads of a block as fibers.
//
// A block runs on one host thread. Its CUDA threads give way only at switch points (barriers, warp operations, atomics), and which one goes on is drawn from
// a seeded generator: evenly in some blocks, staying with one warp as long as it can in others, so that one warp runs far ahead. A thread gets a
// fiber of its own only while it waits; a kernel without switch points runs all its threads on one. Blocks start in a drawn order too.
//
// What a kernel does wrong ends the launch with one sentence that names kernel, block and thread: fail_thread(). The fibers that were
// under way are then dropped where they stand; kernels own nothing that would need a destructor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <source_location>
#include <string>

struct uint3 {
    unsigned x = 0, y = 0, z = 0;
};
struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

extern constinit thread_local uint3 threadIdx, blockIdx;
extern constinit thread_local dim3 blockDim, gridDim;

namespace cudasim {

/// The line of a kernel at which a switch point stands.
using Site = std::source_location;

struct Launch {
    std::string name;
    dim3 grid, block;
    size_t shared_bytes = 0;
    std::function<void()> body;  ///< the kernel with its arguments, run once a thread
};

/// What the simulator draws with, and on. From the environment: FLANMOE_SIM_SEED, FLANMOE_SIM_THREADS, FLANMOE_SIM_STREAMS (any text: streams out of order).
struct Options {
    uint64_t seed = 1;
    int threads = 1;              ///< host threads for blocks
    bool deferred_streams = false;  ///< work is queued and runs late, out of order across streams (streams.cpp)
};
Options& options();
/// The order of streams is drawn from the seed again: tests that need a certain one must not depend on those before them.
void draw_streams_anew();

/// Bytes of shared memory that a block of this architecture can have.
size_t most_shared();

/// Runs all blocks. Empty, or the sentence of the first failure.
std::string run(const Launch& launch);

/// Ends the launch with a sentence about the running CUDA thread: "kernel 'x', block (0, 0, 0), thread (3, 0, 0): WHAT".
[[noreturn]] void fail_thread(const std::string& what);

/// Lets another thread of the block go on, or not, as drawn.
void give_way();

enum class Barrier { plain, count, all, any };
int barrier(Barrier kind, bool predicate, const char* name, const Site& site);

/// Called by the last lane that arrives, for all: in[l] and out[l] are what lane l gave (null for lanes outside the mask).
using Complete = void (*)(unsigned mask, const void* const (&in)[32], void* const (&out)[32]);
/// Waits until every lane of `mask` is here with the same mask at the same site.
void warp_collective(const char* name, unsigned mask, const void* in, void* out, Complete complete, const Site& site);

/// Called after every atomic with what it read: a thread that reads the same again and again waits for another block, which may not even have started.
void after_atomic(const void* address, uint64_t seen);

/// Piece of the block's dynamic shared memory at `offset`; under AddressSanitizer each has a region of its own with borders that may not be touched.
void* shared_piece(size_t offset, size_t bytes);
/// Fails unless `pointer` is a multiple of `alignment`.
void check_aligned(const void* pointer, size_t alignment, const char* what);

unsigned lane_index();

}  // namespace cudasim

#include "cudasim/scheduler.hpp"

#include "cudasim/async_copies.hpp"
#include "cudasim/fiber.hpp"
#include "cudasim/runtime_state.hpp"
#include "cudasim/workers.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <numeric>
#include <thread>
#include <vector>

constinit thread_local uint3 threadIdx, blockIdx;
constinit thread_local dim3 blockDim, gridDim;

namespace cudasim {

namespace {

constexpr unsigned most_threads = 1024, warp_size = 32;
constexpr int most_polls = 100000;  ///< reads of one unchanged value by atomics, other threads of the block going on between them

class Random {
public:
    explicit Random(uint64_t seed) : state_(seed * 0x9E3779B97F4A7C15ull + 0xD1B54A32D192ED03ull) {}
    uint32_t bits() {
        state_ ^= state_ << 13, state_ ^= state_ >> 7, state_ ^= state_ << 17;
        return static_cast<uint32_t>(state_ >> 32);
    }
    uint32_t below(uint32_t bound) { return static_cast<uint32_t>(uint64_t{bits()} * bound >> 32); }
    /// Some set bit of a mask that has one.
    unsigned bit_of(uint32_t mask) {
        const unsigned turn = bits() & 31;
        return (static_cast<unsigned>(std::countr_zero(std::rotr(mask, static_cast<int>(turn)))) + turn) & 31;
    }

private:
    uint64_t state_;
};

enum class State : uint8_t { ready, at_barrier, in_warp, ended };

struct Thread {
    Fiber* fiber = nullptr;  // null: not started, or ended
    uint3 index;
    State state = State::ready;
    const char* operation = nullptr;  // what it waits in
    Site site;
    unsigned mask = 0;
    const void* in = nullptr;
    void* out = nullptr;
    const void* polled = nullptr;
    uint64_t polled_value = 0;
    int polls = 0;
};

/// Thrown through the kernel that failed, up to the bottom of its fiber.
struct Stop {};

/// Lanes of a warp that wait for one another in the same operation.
struct Group {
    unsigned mask, arrived;
    Site site;
};

bool same(const Site& a, const Site& b) {
    return a.line() == b.line() && a.column() == b.column() && (a.file_name() == b.file_name() || std::strcmp(a.file_name(), b.file_name()) == 0);
}
std::string text(const uint3& i) { return fmt::format("({}, {}, {})", i.x, i.y, i.z); }
std::string text(const Site& site) {
    const std::string file = site.file_name();
    return fmt::format("{}:{}", file.substr(file.rfind('/') + 1), site.line());
}

}  // namespace

/// Runs blocks, one at a time, on the host thread that owns it.
class Worker {
public:
    /// Empty, or the sentence of the block's failure.
    std::string run_block(const Launch& launch, uint3 block, uint64_t seed);
    [[noreturn]] void fail(const std::string& what) { fail_block(place() + ": " + what); }
    void give_way();
    int barrier(Barrier kind, bool predicate, const char* name, const Site& site);
    void warp_collective(const char* name, unsigned mask, const void* in, void* out, Complete complete, const Site& site);
    void after_atomic(const void* address, uint64_t seen);
    void* shared_piece(size_t offset, size_t bytes);
    unsigned current() const { return current_; }
    std::string place() const { return fmt::format("kernel '{}', block {}, thread {}", launch_->name, text(blockIdx), text(threadIdx)); }

private:
    struct Piece {
        size_t offset, bytes, at;
    };
    static constexpr unsigned none = ~0u;

    static void fiber_main(boost::context::detail::transfer_t from);
    void run_threads(Fiber& own);
    void begin_block(const Launch& launch, uint3 block);
    void prepare_shared();
    void make_ready(unsigned thread) {
        threads_[thread].state = State::ready;
        ready_[thread / warp_size] |= 1u << thread % warp_size;
        ready_warps_ |= 1u << thread / warp_size;
    }
    unsigned pick();
    void start(unsigned thread);
    void wait();
    [[noreturn]] void fail_stuck();
    [[noreturn]] void fail_block(const std::string& what);
    std::string describe(unsigned thread) const;
    Fiber* take_fiber();

    const Launch* launch_ = nullptr;
    std::vector<Thread> threads_{most_threads};
    std::vector<std::unique_ptr<Fiber>> fibers_;
    std::vector<Fiber*> free_;
    Fiber host_;
    unsigned count_ = 0, current_ = 0, ended_ = 0, prepared_ = 0;
    uint32_t ready_[32] = {}, ready_warps_ = 0;
    std::vector<Group> groups_[32];
    unsigned at_barrier_ = 0, agreeing_ = 0, barrier_result_ = 0;
    Site barrier_site_;
    Random random_{1};
    bool sticky_ = false;  // stay with one warp as long as possible
    std::string failure_;
    std::unique_ptr<char[]> shared_memory_;
    char* shared_ = nullptr;
    std::vector<Piece> pieces_;
    size_t used_ = 0;  // of the bytes that hold pieces with their borders
};

namespace {

thread_local Worker* worker = nullptr;

#ifdef __SANITIZE_ADDRESS__
constexpr size_t border = 256, shared_capacity = size_t{4} << 20;
#else
constexpr size_t shared_capacity = size_t{227} << 10;  ///< of the largest architecture
#endif

}  // namespace

void Worker::prepare_shared() {
    if (!shared_memory_) {
        shared_memory_.reset(new char[shared_capacity + 1024]);
        shared_ = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(shared_memory_.get()) + 1023) / 1024 * 1024);
    }
#ifdef __SANITIZE_ADDRESS__
    __asan_poison_memory_region(shared_, shared_capacity);
    pieces_.clear();
    used_ = 0;
#else
    std::memset(shared_, 0xff, launch_->shared_bytes);  // NaN in every floating type
#endif
}

void* Worker::shared_piece(size_t offset, size_t bytes) {
    if (offset + bytes > launch_->shared_bytes)
        fail(fmt::format("takes shared memory up to byte {} of the {} it was launched with", offset + bytes, launch_->shared_bytes));
#ifdef __SANITIZE_ADDRESS__
    for (const Piece& piece : pieces_)
        if (piece.offset == offset && piece.bytes == bytes) return shared_ + piece.at;
    const size_t at = used_ + border;
    used_ = (at + bytes + 1023) / 1024 * 1024;
    if (used_ > shared_capacity) fail("takes too many pieces of shared memory for the simulator's borders between them");
    __asan_unpoison_memory_region(shared_ + at, bytes);
    std::memset(shared_ + at, 0xff, bytes);
    pieces_.push_back({offset, bytes, at});
    return shared_ + at;
#else
    return shared_ + offset;
#endif
}

Fiber* Worker::take_fiber() {
    if (free_.empty()) {
        if (prepared_ == fibers_.size()) fibers_.push_back(std::make_unique<Fiber>());
        fibers_[prepared_]->prepare(&fiber_main, prepared_);
        free_.push_back(fibers_[prepared_++].get());
    }
    Fiber* const fiber = free_.back();
    free_.pop_back();
    return fiber;
}

void Worker::begin_block(const Launch& launch, uint3 block) {
    const dim3 size = launch.block;
    const unsigned count = size.x * size.y * size.z;
    launch_ = &launch;
    count_ = count;
    for (unsigned t = 0; t < count; ++t) {
        threads_[t] = Thread{};
        threads_[t].index = {t % size.x, t / size.x % size.y, t / size.x / size.y};
    }
    const unsigned warps = (count + warp_size - 1) / warp_size;
    for (unsigned w = 0; w < warps; ++w) {
        ready_[w] = w + 1 < warps || count % warp_size == 0 ? ~0u : (1u << count % warp_size) - 1;
        groups_[w].clear();
    }
    ready_warps_ = warps == 32 ? ~0u : (1u << warps) - 1;
    ended_ = at_barrier_ = agreeing_ = 0;
    failure_.clear();
    prepare_shared();
    forget_async_copies();
    blockIdx = block, blockDim = size, gridDim = launch.grid;
}

std::string Worker::run_block(const Launch& launch, uint3 block, uint64_t seed) {
    begin_block(launch, block);
    random_ = Random(seed);
    sticky_ = random_.bits() & 1;
    worker = this;
    start(pick());
    host_.switch_to(*threads_[current_].fiber);
    worker = nullptr;
    if (!failure_.empty()) {  // whatever stood on the stacks is dropped
        free_.clear();
        prepared_ = 0;
    }
    return failure_;
}

/// A ready thread, which is ready no longer; none if there is none.
unsigned Worker::pick() {
    if (ready_warps_ == 0) return none;
    unsigned w = current_ / warp_size;
    if (!sticky_ || ready_[w] == 0 || (random_.bits() & 15) == 0) w = random_.bit_of(ready_warps_);
    const unsigned l = random_.bit_of(ready_[w]);
    ready_[w] &= ~(1u << l);
    if (ready_[w] == 0) ready_warps_ &= ~(1u << w);
    return w * warp_size + l;
}

/// Makes it the running one, with a fiber; the caller switches there.
void Worker::start(unsigned thread) {
    if (!threads_[thread].fiber) threads_[thread].fiber = take_fiber();
    current_ = thread;
    threadIdx = threads_[thread].index;
}

void Worker::fiber_main(boost::context::detail::transfer_t from) {
    Fiber::begin(from);
    Worker* const self = worker;
    self->run_threads(*self->threads_[self->current_].fiber);
}

/// Runs the current thread on this fiber, then others that have not begun, and waits in the pool when there is none; never returns.
void Worker::run_threads(Fiber& own) {
    for (;;) {
        unsigned next = none;
        try {
            launch_->body();
            threads_[current_].state = State::ended;
            ++ended_;
            next = pick();
            if (next == none && ended_ != count_) fail_stuck();
        } catch (const Stop&) {
        } catch (const std::exception& error) {
            failure_ = place() + ": " + error.what();
        }
        threads_[current_].fiber = nullptr;
        if (next == none || !failure_.empty()) {
            free_.push_back(&own);
            own.switch_to(host_);
        } else if (!threads_[next].fiber) {
            threads_[next].fiber = &own;
            start(next);
        } else {
            free_.push_back(&own);
            start(next);
            own.switch_to(*threads_[next].fiber);
        }
    }
}

/// Gives the processor to a ready thread; returns when this one is drawn again.
void Worker::wait() {
    const unsigned self = current_, next = pick();
    if (next == none) fail_stuck();
    if (next == self) return;
    Fiber& own = *threads_[self].fiber;
    start(next);
    own.switch_to(*threads_[next].fiber);
}

void Worker::fail_block(const std::string& what) {
    failure_ = what;
    throw Stop{};
}

std::string Worker::describe(unsigned t) const {
    const Thread& thread = threads_[t];
    if (thread.state == State::ended) return fmt::format("thread {} has ended", text(thread.index));
    return fmt::format("thread {} waits in {} at {}", text(thread.index), thread.operation, text(thread.site));
}

/// No thread can go on, and not all have ended: says which one waits for which.
void Worker::fail_stuck() {
    const std::string block = fmt::format("kernel '{}', block {}: ", launch_->name, text(blockIdx));
    for (unsigned t = 0; t < count_; ++t) {
        if (threads_[t].state != State::in_warp) continue;
        const unsigned first = t / warp_size * warp_size;
        for (unsigned l = 0; l < warp_size; ++l) {
            if (!(threads_[t].mask >> l & 1)) continue;
            const unsigned other = first + l;
            if (other >= count_) fail_block(block + fmt::format("{}, whose mask 0x{:08x} names lane {}, but the warp has only {} threads", describe(t), threads_[t].mask, l, count_ - first));
            const Thread& o = threads_[other];
            if (o.state == State::in_warp && o.mask == threads_[t].mask && same(o.site, threads_[t].site)) continue;
            fail_block(block + fmt::format("{} with mask 0x{:08x} for lane {}, which does not arrive: {}{}", describe(t), threads_[t].mask, l, describe(other),
                             o.state == State::in_warp ? fmt::format(" with mask 0x{:08x}", o.mask) : ""));
        }
    }
    for (unsigned t = 0; t < count_; ++t) {
        if (threads_[t].state != State::at_barrier) continue;
        for (unsigned other = 0; other < count_; ++other)
            if (threads_[other].state != State::at_barrier) fail_block(block + fmt::format("a barrier that not all threads reach: {}, {}", describe(t), describe(other)));
    }
    fail_block(block + "no thread of the block can go on");
}

void Worker::give_way() {
    if ((random_.bits() & 3) != 0) return;
    make_ready(current_);
    wait();
}

void Worker::after_atomic(const void* address, uint64_t seen) {
    Thread& me = threads_[current_];
    if (me.polled != address || me.polled_value != seen) {
        me.polled = address, me.polled_value = seen, me.polls = 0;
        return;
    }
    if (++me.polls > most_polls) fail("reads the same value again and again: it waits for another block, which may not have started; blocks may not wait for each other");
    make_ready(current_);
    wait();
}

int Worker::barrier(Barrier kind, bool predicate, const char* name, const Site& site) {
    Thread& me = threads_[current_];
    me.state = State::at_barrier, me.operation = name, me.site = site;
    if (at_barrier_ == 0) barrier_site_ = site;
    if (!same(barrier_site_, site))
        fail(fmt::format("waits in {} at {} while other threads of the block wait at {}: a barrier is one place that all threads reach", name, text(site), text(barrier_site_)));
    agreeing_ += predicate;
    if (++at_barrier_ == count_) {
        barrier_result_ = agreeing_;
        at_barrier_ = agreeing_ = 0;
        for (unsigned t = 0; t < count_; ++t) make_ready(t);
    }
    wait();
    const unsigned agreed = barrier_result_;
    switch (kind) {
        case Barrier::count: return static_cast<int>(agreed);
        case Barrier::all: return agreed == count_;
        case Barrier::any: return agreed > 0;
        default: return 0;
    }
}

void Worker::warp_collective(const char* name, unsigned mask, const void* in, void* out, Complete complete, const Site& site) {
    const unsigned w = current_ / warp_size, bit = 1u << current_ % warp_size;
    if (!(mask & bit)) fail(fmt::format("calls {} at {} with mask 0x{:08x}, which does not name its own lane {}", name, text(site), mask, current_ % warp_size));
    Thread& me = threads_[current_];
    me.state = State::in_warp, me.operation = name, me.site = site, me.mask = mask, me.in = in, me.out = out;
    std::vector<Group>& groups = groups_[w];
    size_t g = 0;
    while (g < groups.size() && !(groups[g].mask == mask && same(groups[g].site, site))) ++g;
    if (g == groups.size()) groups.push_back({mask, 0, site});
    groups[g].arrived |= bit;
    if (groups[g].arrived == mask) {
        groups.erase(groups.begin() + static_cast<std::ptrdiff_t>(g));
        const void* inputs[warp_size] = {};
        void* outputs[warp_size] = {};
        for (unsigned l = 0; l < warp_size; ++l)
            if (mask >> l & 1) inputs[l] = threads_[w * warp_size + l].in, outputs[l] = threads_[w * warp_size + l].out, threads_[w * warp_size + l].state = State::ready;
        complete(mask, inputs, outputs);
        ready_[w] |= mask;
        ready_warps_ |= 1u << w;
    }
    wait();
}

// The rest: what kernels call, and the distribution of blocks over host threads.

void fail_thread(const std::string& what) { worker->fail(what); }
void give_way() { worker->give_way(); }
int barrier(Barrier kind, bool predicate, const char* name, const Site& site) { return worker->barrier(kind, predicate, name, site); }
void warp_collective(const char* name, unsigned mask, const void* in, void* out, Complete complete, const Site& site) {
    worker->warp_collective(name, mask, in, out, complete, site);
}
void after_atomic(const void* address, uint64_t seen) { worker->after_atomic(address, seen); }
void* shared_piece(size_t offset, size_t bytes) { return worker->shared_piece(offset, bytes); }
unsigned lane_index() { return worker->current() % warp_size; }
void check_aligned(const void* pointer, size_t alignment, const char* what) {
    if (reinterpret_cast<uintptr_t>(pointer) % alignment != 0) fail_thread(fmt::format("{} of {} bytes at address {}, which is no multiple of that", what, alignment, pointer));
}

Options& options() {
    static Options options = [] {
        Options o;
        o.seed = number_of("FLANMOE_SIM_SEED", 1);
        o.threads = static_cast<int>(std::clamp<uint64_t>(number_of("FLANMOE_SIM_THREADS", std::max(1u, std::thread::hardware_concurrency())), 1, 64));
        o.deferred_streams = number_of("FLANMOE_SIM_STREAMS", 0) != 0;
        return o;
    }();
    return options;
}

std::string beyond_limits(const Launch& launch) {
    const uint64_t threads = uint64_t{launch.block.x} * launch.block.y * launch.block.z;
    const auto refuse = [&](const std::string& what) { return fmt::format("kernel '{}' cannot be launched: {}", launch.name, what); };
    if (launch.grid.x == 0 || launch.grid.y == 0 || launch.grid.z == 0 || threads == 0) return refuse("an empty grid or block");
    if (threads > most_threads || launch.block.z > 64) return refuse(fmt::format("{} threads a block ({} in z), hardware has at most {} (64)", threads, launch.block.z, most_threads));
    if (launch.grid.x > 0x7fffffffu || launch.grid.y > 65535 || launch.grid.z > 65535)
        return refuse(fmt::format("a grid of {} x {} x {} blocks, hardware has at most 2147483647 x 65535 x 65535", launch.grid.x, launch.grid.y, launch.grid.z));
    if (launch.shared_bytes > most_shared()) return refuse(fmt::format("{} bytes of shared memory a block, hardware has at most {}", launch.shared_bytes, most_shared()));
    return {};
}

std::string run(const Launch& launch) {
    if (std::string refusal = beyond_limits(launch); !refusal.empty()) return refusal;
    static std::atomic<uint64_t> launches = 0;
    const uint64_t blocks = uint64_t{launch.grid.x} * launch.grid.y * launch.grid.z, seed = options().seed * 1000003 + launches++;
    Random random(seed);
    // Block i to run is number (first + i * stride) mod blocks, the stride having no divisor in common with their number.
    const uint64_t first = random.bits() % blocks;
    uint64_t stride = 1 + random.bits() % blocks;
    while (std::gcd(stride, blocks) != 1) ++stride;
    std::atomic<uint64_t> taken = 0;
    std::atomic<bool> failed = false;
    std::mutex mutex;
    std::string failure;
    const auto work = [&] {
        static thread_local Worker own;
        for (uint64_t i; !failed && (i = taken++) < blocks;) {
            const uint64_t b = static_cast<uint64_t>((static_cast<unsigned __int128>(i) * stride + first) % blocks);
            const uint3 index{static_cast<unsigned>(b % launch.grid.x), static_cast<unsigned>(b / launch.grid.x % launch.grid.y),
                              static_cast<unsigned>(b / launch.grid.x / launch.grid.y)};
            std::string sentence = own.run_block(launch, index, seed + b * 0x2545F4914F6CDD1Dull);
            if (sentence.empty()) continue;
            const std::lock_guard lock(mutex);
            if (failure.empty()) failure = std::move(sentence);
            failed = true;
        }
    };
    const uint64_t threads = blocks * launch.block.x * launch.block.y * launch.block.z;
    constexpr uint64_t threads_worth_waking = 4096;
    run_on_workers(threads < threads_worth_waking ? 1 : static_cast<int>(std::min<uint64_t>(blocks, static_cast<uint64_t>(options().threads))), work);
    return failure;
}

}  // namespace cudasim

#ifdef __SANITIZE_ADDRESS__
/// Called by AddressSanitizer before it reports: it knows the line, not whose it is.
extern "C" void __asan_on_error() {
    if (cudasim::worker) std::fprintf(stderr, "%s:\n", cudasim::worker->place().c_str());
}
#endif

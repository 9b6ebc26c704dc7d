// Fibers: stacks from one pool, switches by Boost.Context, told to AddressSanitizer where that is on.
//
// Boost's plain jump is used rather than its fiber class, so that one fiber hands over to the next without passing through a scheduler.
#pragma once

#include <boost/context/detail/fcontext.hpp>

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <stdexcept>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace cudasim {

class Fiber {
public:
    using Entry = void (*)(boost::context::detail::transfer_t);

    /// The host thread's own stack, to come back to.
    Fiber() = default;
    Fiber(const Fiber&) = delete;
    ~Fiber() {
        if (memory_) ::munmap(memory_, guard + stack_bytes);
    }

    /// A stack that begins in `entry` when it is first switched to, whatever ran on it before. `number` moves its start a little, since stacks whose tops
    /// share their low address bits would fight for the same lines of the cache.
    void prepare(Entry entry, size_t number) {
        if (!memory_) {
            memory_ = static_cast<char*>(::mmap(nullptr, guard + stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
            if (memory_ == MAP_FAILED) throw std::runtime_error("the CUDA simulator has no memory for another thread's stack");
            ::mprotect(memory_, guard, PROT_NONE);  // an overflow faults instead of writing into the next stack
        }
#ifdef __SANITIZE_ADDRESS__
        __asan_unpoison_memory_region(memory_ + guard, stack_bytes);
#endif
        const size_t offset = number % 61 * 64;
        context_ = boost::context::detail::make_fcontext(memory_ + guard + stack_bytes - offset, stack_bytes - offset, entry);
    }

    /// Leaves this fiber, which is running, for another; returns when something switches back.
    void switch_to(Fiber& to) {
#ifdef __SANITIZE_ADDRESS__
        __sanitizer_start_switch_fiber(&fake_stack_, to.bottom(), to.size());
#endif
        const auto from = boost::context::detail::jump_fcontext(to.context_, this);
        arrive(from);
#ifdef __SANITIZE_ADDRESS__
        __sanitizer_finish_switch_fiber(fake_stack_, nullptr, nullptr);
#endif
    }
    /// First thing on a new stack: keeps where the fiber that switched here stands.
    static void begin(boost::context::detail::transfer_t from) {
#ifdef __SANITIZE_ADDRESS__
        const void* bottom;
        size_t size;
        __sanitizer_finish_switch_fiber(nullptr, &bottom, &size);
        Fiber& before = *static_cast<Fiber*>(from.data);
        if (!before.memory_) before.host_bottom_ = bottom, before.host_size_ = size;
#endif
        arrive(from);
    }

private:
    static void arrive(boost::context::detail::transfer_t from) { static_cast<Fiber*>(from.data)->context_ = from.fctx; }

#ifdef __SANITIZE_ADDRESS__
    static constexpr size_t stack_bytes = 512 << 10;
    const void* bottom() const { return memory_ ? memory_ + guard : host_bottom_; }
    size_t size() const { return memory_ ? stack_bytes : host_size_; }
    const void* host_bottom_ = nullptr;
    size_t host_size_ = 0;
    void* fake_stack_ = nullptr;
#else
    static constexpr size_t stack_bytes = 128 << 10;
#endif
    static constexpr size_t guard = 4096;

    boost::context::detail::fcontext_t context_ = nullptr;
    char* memory_ = nullptr;
};

}  // namespace cudasim

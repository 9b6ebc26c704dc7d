// What a rank is doing, for those who wait for it. Written by the thread that works, read by the watchdog's; no locks.
#pragma once

#include <atomic>
#include <cstdint>

namespace flanmoe {

/// Texts are literals: they live as long as the program.
struct Activity {
    std::atomic<int64_t> step = -1;                   ///< of training; -1: before the first
    std::atomic<const char*> part = "start";          ///< of the step
    std::atomic<int> layer = -1;                      ///< global number; -1: none
    std::atomic<const char*> collective = nullptr;    ///< in which this rank waits
    std::atomic<int64_t> collectives = 0;             ///< begun so far
};

}  // namespace flanmoe

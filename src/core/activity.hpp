// What a rank is doing, for those who wait for it. Written by the thread that works, read by the watchdog's; no locks.
#pragma once

#include <atomic>
#include <cstdint>

namespace flanmoe {

constexpr int64_t no_steps = -2;  ///< of a command that does not train: nothing is saved on the way

/// Texts are literals: they live as long as the program.
struct Activity {
    std::atomic<int64_t> step = -1;                   ///< of training; -1: before the first; or no_steps
    std::atomic<const char*> part = "start";          ///< of the step, or of the command; of a model's part while Context::part names one
    std::atomic<int> layer = -1;                      ///< global number; -1: none
    std::atomic<const char*> collective = nullptr;    ///< in which this rank waits
    std::atomic<int64_t> collectives = 0;             ///< begun so far
    std::atomic<int> unhurried = 0;                   ///< above 0: collectives wait without limit
};

/// While one exists, this rank waits for a collective that a lane makes.
class WaitingIn {
public:
    WaitingIn(Activity* activity, const char* collective) : activity_(activity) {
        if (activity_) activity_->collective = collective;
    }
    WaitingIn(const WaitingIn&) = delete;
    ~WaitingIn() {
        if (activity_) activity_->collective = nullptr;
    }

private:
    Activity* activity_;
};

/// While one exists, this rank's collectives wait for others without limit: one of them works alone (verifies, syncs to disk), which takes as long as it takes. Whether it
/// lives is the watchdog's to see.
class Unhurried {
public:
    explicit Unhurried(Activity& activity) : activity_(activity) { ++activity_.unhurried; }
    Unhurried(const Unhurried&) = delete;
    ~Unhurried() { --activity_.unhurried; }

private:
    Activity& activity_;
};

}  // namespace flanmoe

// Stopping in good order. USR1, USR2, TERM, INT and HUP only set a flag; the loop asks after every step, saves and leaves with Exit::preempted (75).
//
// The second signal changes nothing but says so; the third leaves at once with 128 + its number: the last checkpoint is intact by design. HUP stays
// ignored under nohup. PIPE is ignored while a Stop lives: training does not die of a closed pipe that it reports to.
#pragma once

#include <chrono>
#include <string>
#include <thread>

namespace flanmoe {

class Stop {
public:
    /// Takes over the signals until destroyed (one at a time); max_minutes > 0 is a deadline from now on. The file that FLANMOE_STOP_FILE names, once it is
    /// there, is a request too: a launcher was signalled before this process could be.
    explicit Stop(double max_minutes = 0);
    /// A deadline from now on; 0: none.
    void limit(double max_minutes);
    Stop(const Stop&) = delete;
    ~Stop();
    bool requested() const;
    /// "signal USR1", "the limit of 30 minutes (train.max_minutes)", or what request() was given; empty if nothing was requested.
    std::string reason() const;
    /// From inside the program, e.g. for train.max_steps.
    void request(const std::string& reason) { own_reason_ = reason; }
    /// From now on signals change nothing and say nothing: the run ends with an error of all its ranks, and a launcher sends TERM to those that take longer.
    void ignore();

private:
    bool launcher_asked() const;

    double max_minutes_ = 0;
    std::chrono::steady_clock::time_point deadline_;
    std::string own_reason_;
    int ended_ = -1;        // becomes readable when the Stop ends
    std::thread receiver_;  // the thread that signals interrupt
};

}  // namespace flanmoe

// The ranks of a run, from start to end: this process alone, or those that a launcher started, watched over.
#pragma once

#include "comm/activity.hpp"
#include "comm/communicator.hpp"
#include "comm/mpi.hpp"
#include "comm/watchdog.hpp"

#include <functional>
#include <memory>
#include <string>

namespace flanmoe {

class World {
public:
    /// What ended this rank alone, or was found to have ended another.
    struct Trouble {
        std::string sentence;
        int64_t step;  ///< this rank's
    };
    /// Ranks under a launcher, else one. `said` is told of trouble before all ranks are ended; it may be called on the watchdog's thread.
    explicit World(std::function<void(const Trouble&)> said);
    World(const World&) = delete;
    ~World();

    Communicator& ranks() { return *ranks_; }
    int rank() const { return ranks_->rank(); }
    int size() const { return ranks_->size(); }
    /// What this rank does, as the others will know it.
    Activity& activity() { return *activity_; }
    /// Seconds after which a silent rank counts as stopped, and one that does not come to a collective as hung (0: never).
    void set_limits(double patience, double timeout);

    /// Runs the work of this rank. A SharedError passes through once every rank is there; any other error is this rank's alone: it is said, and all ranks
    /// are ended with its exit code.
    void run(const std::function<void()>& work);

    /// Says why, and ends all ranks with this exit code, whatever they do. From any thread.
    [[noreturn]] void give_up(Exit code, const std::string& sentence);

private:
    void leave();
    void say(const std::string& sentence);

    std::function<void(const Trouble&)> said_;
    std::unique_ptr<Mpi> mpi_;
    std::unique_ptr<Communicator> alone_;
    Communicator* ranks_;
    Activity own_;
    Activity* activity_ = &own_;
    std::unique_ptr<Watchdog> watchdog_;
};

/// Name of this machine.
std::string host_name();

}  // namespace flanmoe

// The ranks of a run, from start to end: this process alone, or those that a launcher started, watched over.
#pragma once

#include "comm/communicator.hpp"
#include "comm/mpi.hpp"
#include "comm/watchdog.hpp"
#include "core/activity.hpp"

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

namespace flanmoe {

class World {
public:
    /// What ended this rank alone, was found to have ended another, or, on rank 0, ends all of several ranks.
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
    /// How far its collectives are.
    Progress& progress() { return *progress_; }
    /// Seconds after which a silent rank counts as stopped, and one that does not come to a collective as hung (0: never). Before: five, and two minutes.
    void set_limits(double patience, double timeout);

    /// Runs the work of this rank. A SharedError passes through once every rank is there and rank 0 has said it (if there are several); any other error is
    /// this rank's alone: it is said, and all ranks are ended with its exit code.
    void run(const std::function<void()>& work);

    /// Says why, and ends all ranks with this exit code, whatever they do. From any thread but the watchdog's; the first one is heard, later ones only wait for the end.
    [[noreturn]] void give_up(Exit code, const std::string& sentence);

private:
    void leave();
    void say(std::string sentence);

    std::function<void(const Trouble&)> said_;
    std::unique_ptr<Mpi> mpi_;
    std::unique_ptr<Communicator> alone_;
    Communicator* ranks_;
    Activity own_;
    Activity* activity_ = &own_;
    Progress own_progress_;
    Progress* progress_ = &own_progress_;
    std::atomic<bool> ending_ = false;  ///< somebody says why and ends the run
    std::mutex watching_;               ///< of the pointer
    std::unique_ptr<Watchdog> watchdog_;
};

/// Name of this machine.
std::string host_name();

}  // namespace flanmoe

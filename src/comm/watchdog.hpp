// Notices ranks that have ended, have stopped, or hang.
//
// A launcher notices a rank that ends, with a message that says little, and never one that stands still. So every rank has a thread that sends a sign of life
// five times a second, with what the rank is doing, to rank 0, to the first rank of another host (or rank 1), and to the neighbour before it on its
// host; and every rank looks at the process of the neighbour behind it. Whoever finds a rank ended, or silent or stopped for longer than `patience`, says so and ends the run.
//
// A rank that lives but does not come to a collective (stuck in reading, in a kernel, in a loop) is rank 0's to find, since it sees what all of them are doing: when
// one has been in a collective for longer than `timeout`, on its host or on its GPU, the rank that is furthest behind is to blame, unless it says that it works
// without hurry (Unhurried: it saves or loads).
#pragma once

#include "comm/mpi.hpp"
#include "comm/progress.hpp"
#include "core/activity.hpp"
#include "core/error.hpp"

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace flanmoe {

/// Where a rank runs.
struct RankProcess {
    std::string host;
    int64_t process = 0;
};

struct Finding {
    Exit code = Exit::hang;  ///< or rank_failed
    int rank = 0;
    std::string sentence;    ///< which rank, where it runs, what it did last, and what this one waits in
};

class Watchdog {
public:
    /// In seconds.
    struct Limits {
        double patience = 0;  ///< without a sign of life; 0: only ranks that ended are noticed
        double timeout = 0;   ///< in one collective; 0: not watched
    };
    /// `places` of all ranks; `activity` and `progress` of this one. `found` is called once, on the watchdog's thread. All must live as long as the watchdog.
    Watchdog(int rank, std::vector<RankProcess> places, std::unique_ptr<Mailbox> mailbox, const Activity& activity, const Progress& progress, Limits limits,
             std::function<void(const Finding&)> found);
    /// Stops watching.
    ~Watchdog();
    Watchdog(const Watchdog&) = delete;
    void set_limits(Limits limits);
    /// This rank is about to end the run: stops watching, and keeps the others from finding it gone.
    void say_goodbye();

private:
    void stop();
    struct State;
    std::unique_ptr<State> state_;
};

/// The state letter of a process of this host as /proc says it (R, S, D, T, Z ...); 0 if it does not exist, ? if that cannot be told.
char process_state(int64_t process);

}  // namespace flanmoe

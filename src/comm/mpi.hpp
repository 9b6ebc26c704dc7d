// Ranks as processes under MPI. mpi.cpp is the only file that includes mpi.h.
//
// MPI is initialised only for processes that a launcher started (mpirun, srun): without one nothing of it runs. In the environment PMIX_RANK and
// OMPI_COMM_WORLD_SIZE are trusted; SLURM_* only inside a step (SLURM_STEP_ID), since a batch script has SLURM_PROCID and SLURM_NTASKS too. What MPICH's and Intel's
// launchers say (PMI_SIZE) this MPI does not understand.
#pragma once

#include "comm/communicator.hpp"
#include "comm/progress.hpp"
#include "core/activity.hpp"

#include <cstddef>
#include <optional>
#include <span>
#include <string>

namespace flanmoe {

/// What the environment says of a launcher, before MPI is asked.
struct Launch {
    int rank = 0;
    int ranks = 1;  ///< 1 where the launcher says no number
    bool foreign = false;  ///< of another MPI than ours
};
/// Nothing if no launcher started this process. `variable` reads the environment (std::getenv, but for tests).
std::optional<Launch> launch_of(const char* (*variable)(const char*));
/// Of this process, as it was started.
std::optional<Launch> launch();

/// Small messages between ranks beside the collectives, sent and received without waiting, by a thread of their own: heartbeats.
class Mailbox {
public:
    virtual ~Mailbox() = default;
    virtual void send(int rank, std::span<const std::byte> message) = 0;
    /// The next message that has come, of at most the buffer's size; returns its sender, or -1 if there is none.
    virtual int receive(std::span<std::byte> message) = 0;
};

/// MPI from its beginning to its end; at most one at a time.
class Mpi {
public:
    /// Exit::usage if the launcher started several tasks that MPI does not know to be ranks of one run (srun without --mpi=pmix, MPICH's mpirun).
    Mpi();
    Mpi(const Mpi&) = delete;
    ~Mpi();
    /// MPI's end, in which every rank takes part. A process that ends without it, as after an error of its own, takes the others with it.
    void finish();

    Communicator& world() { return *world_; }
    std::unique_ptr<Mailbox> mailbox();  ///< must not be used after this object's end
    /// Ends all ranks with this exit code, whatever they do.
    [[noreturn]] static void abort(int code);
    /// After so many seconds in one collective, unless it is unhurried, a rank fails with Exit::hang and names who has not come; 0: waits for ever.
    void set_timeout(double seconds);

    /// What this rank is doing; collectives of the thread that made this note themselves there.
    Activity& activity();
    /// How far it is with its exchanges.
    Progress& progress();

private:
    struct Shared;
    class Group;
    std::shared_ptr<Shared> shared_;
    std::unique_ptr<Communicator> world_;
};

}  // namespace flanmoe

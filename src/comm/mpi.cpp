// Pieces travel as plain non-blocking messages, polled for: so a rank that waits knows for whom, and how long already. Between two polls the processor is given
// away, soon for longer: ranks may share cores, and whoever computes comes first.
#define OMPI_SKIP_MPICXX 1
#include "comm/mpi.hpp"

#include "comm/host_communicator.hpp"

#include <mpi.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <deque>
#include <exception>
#include <list>
#include <thread>

namespace flanmoe {

namespace {

using Clock = std::chrono::steady_clock;
double since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

constexpr int64_t message_bytes = int64_t{1} << 30;  ///< MPI counts are int
constexpr int tags = 30000;                          ///< MPI promises 32767

void check(int code, const char* what) {
    if (code == MPI_SUCCESS) return;
    char text[MPI_MAX_ERROR_STRING] = "";
    int length = 0;
    MPI_Error_string(code, text, &length);
    fail(Exit::rank_failed, "MPI failed in {}: {}; another rank has probably ended, see its log", what, text);
}

/// A message under way.
struct Sent {
    std::vector<std::byte> message;
    MPI_Request request;
};

}  // namespace

/// What all groups of a process share.
struct Mpi::Shared {
    std::atomic<double> timeout = 0;
    Activity activity;
    Progress progress;
    const std::thread::id worker = std::this_thread::get_id();  ///< whose activity that is
    std::list<std::deque<Sent>> sent;  ///< of the mailboxes, which they outlive: messages may still be under way to ranks that no longer look
};

class Mpi::Group : public HostCommunicator {
public:
    Group(MPI_Comm communicator, bool owned, std::shared_ptr<Shared> shared) : communicator_(communicator), owned_(owned), shared_(std::move(shared)) {
        MPI_Comm_set_errhandler(communicator_, MPI_ERRORS_RETURN);
        MPI_Comm_rank(communicator_, &rank_);
        MPI_Comm_size(communicator_, &size_);
        MPI_Group group, world;
        MPI_Comm_group(communicator_, &group);
        MPI_Comm_group(MPI_COMM_WORLD, &world);
        std::vector<int> own(static_cast<size_t>(size_));
        for (int r = 0; r < size_; ++r) own[static_cast<size_t>(r)] = r;
        world_ranks_.resize(own.size());
        MPI_Group_translate_ranks(group, size_, own.data(), world, world_ranks_.data());
        MPI_Group_free(&group);
        MPI_Group_free(&world);
    }
    ~Group() override {
        int finalized = 0;
        MPI_Finalized(&finalized);
        // Freeing is a collective: not while an error ends this rank alone.
        if (owned_ && !finalized && std::uncaught_exceptions() == 0) MPI_Comm_free(&communicator_);
    }
    int rank() const override { return rank_; }
    int size() const override { return size_; }

    std::unique_ptr<Communicator> split(int color, int key) override {
        barrier();  // a rank that does not come is found here: MPI's own wait has no limit
        MPI_Comm part = MPI_COMM_NULL;
        check(MPI_Comm_split(communicator_, color, key, &part), "a split");
        return std::make_unique<Group>(part, true, shared_);
    }

protected:
    void exchange(Collective collective, std::span<const Piece> sends, std::span<const Piece> receives) override {
        requests_.clear(), messages_.clear();
        // The thread that sums gradients beside the backward pass does not say where this rank is.
        const bool noted = std::this_thread::get_id() == shared_->worker;
        if (noted) shared_->activity.collective = name_of(collective), ++shared_->activity.collectives;
        const int tag = static_cast<int>(sequence_++ % tags);
        const auto each_message = [&](const Piece& piece, auto&& post) {
            for (int64_t first = 0; first < piece.bytes; first += message_bytes) {
                requests_.emplace_back();
                const int count = static_cast<int>(std::min(message_bytes, piece.bytes - first));
                messages_.push_back({piece.rank, count});
                check(post(piece.data + first, count, piece.rank, &requests_.back()), name_of(collective));
            }
        };
        for (const Piece& piece : receives) {
            each_message(piece, [&](void* data, int count, int rank, MPI_Request* request) {
                return MPI_Irecv(data, count, MPI_BYTE, rank, tag, communicator_, request);
            });
        }
        const size_t received = messages_.size();
        for (const Piece& piece : sends) {
            each_message(piece, [&](void* data, int count, int rank, MPI_Request* request) {
                return MPI_Isend(data, count, MPI_BYTE, rank, tag, communicator_, request);
            });
        }
        statuses_.resize(requests_.size());
        {
            const InExchange exchange(shared_->progress);
            wait(collective);
        }
        if (noted) shared_->activity.collective = nullptr;
        for (size_t i = 0; i < received; ++i) {
            int arrived = 0;
            MPI_Get_count(&statuses_[i], MPI_BYTE, &arrived);
            require(arrived == messages_[i].bytes, same_everywhere);
        }
    }

private:
    static constexpr const char* same_everywhere = "the same collective with the same sizes on every rank";
    struct Message {
        int rank, bytes;  ///< to or from whom
    };

    /// What went wrong in a request: MPI says only that something did.
    int code_of(int code) const {
        if (code != MPI_ERR_IN_STATUS) return code;
        for (const MPI_Status& status : statuses_)
            if (status.MPI_ERROR != MPI_SUCCESS && status.MPI_ERROR != MPI_ERR_PENDING) return status.MPI_ERROR;
        return code;
    }

    void wait(Collective collective) {
        const Clock::time_point start = Clock::now();
        for (;;) {
            int done = 0;
            const int code = code_of(MPI_Testall(static_cast<int>(requests_.size()), requests_.data(), &done, statuses_.data()));
            require(code != MPI_ERR_TRUNCATE, same_everywhere);
            check(code, name_of(collective));
            if (done) return;
            const double waited = since(start);
            if (const double limit = shared_->timeout; limit > 0 && waited > limit && shared_->activity.unhurried == 0) give_up(collective, waited);
            if (waited < 20e-6) continue;
            if (waited < 5e-3) {
                ::sched_yield();
            } else {
                ::usleep(200);
            }
        }
    }
    [[noreturn]] void give_up(Collective collective, double waited) {
        std::vector<int> missing;
        for (size_t i = 0; i < requests_.size(); ++i) {
            int done = 0;
            MPI_Request_get_status(requests_[i], &done, MPI_STATUS_IGNORE);
            if (!done) missing.push_back(world_ranks_[static_cast<size_t>(messages_[i].rank)]);
        }
        std::sort(missing.begin(), missing.end());
        missing.erase(std::unique(missing.begin(), missing.end()), missing.end());
        fail(Exit::hang, "rank {} did not come to {} within {:.0f} s (parallel.timeout)", fmt::join(missing, ", "), name_of(collective), waited);
    }

    MPI_Comm communicator_;
    bool owned_;
    std::shared_ptr<Shared> shared_;
    int rank_ = 0, size_ = 1;
    int64_t sequence_ = 0;
    std::vector<int> world_ranks_;
    std::vector<MPI_Request> requests_;  ///< receives first
    std::vector<MPI_Status> statuses_;
    std::vector<Message> messages_;      ///< of the requests
};

namespace {

class MpiMailbox : public Mailbox {
public:
    explicit MpiMailbox(std::deque<Sent>& sent) : sent_(sent) {
        MPI_Comm_dup(MPI_COMM_WORLD, &communicator_);
        MPI_Comm_set_errhandler(communicator_, MPI_ERRORS_RETURN);
    }
    void send(int rank, std::span<const std::byte> message) override {
        for (int done = 1; !sent_.empty() && done;) {
            MPI_Test(&sent_.front().request, &done, MPI_STATUS_IGNORE);
            if (done) sent_.pop_front();
        }
        sent_.push_back({{message.begin(), message.end()}, MPI_REQUEST_NULL});
        MPI_Isend(sent_.back().message.data(), static_cast<int>(message.size()), MPI_BYTE, rank, 0, communicator_, &sent_.back().request);
    }
    int receive(std::span<std::byte> message) override {
        int there = 0;
        MPI_Status status;
        if (MPI_Iprobe(MPI_ANY_SOURCE, 0, communicator_, &there, &status) != MPI_SUCCESS || !there) return -1;
        const int code = MPI_Recv(message.data(), static_cast<int>(message.size()), MPI_BYTE, status.MPI_SOURCE, 0, communicator_, MPI_STATUS_IGNORE);
        return code == MPI_SUCCESS ? status.MPI_SOURCE : -1;
    }

private:
    MPI_Comm communicator_ = MPI_COMM_NULL;  ///< never freed: messages may still be under way
    std::deque<Sent>& sent_;
};

}  // namespace

std::optional<Launch> launch_of(const char* (*variable)(const char*)) {
    const auto number = [&](const char* name, int otherwise) {
        const char* text = variable(name);
        return text && *text ? std::atoi(text) : otherwise;
    };
    const bool step = variable("SLURM_STEP_ID") != nullptr;
    if (variable("PMIX_RANK")) return Launch{number("PMIX_RANK", 0), number("OMPI_COMM_WORLD_SIZE", step ? number("SLURM_STEP_NUM_TASKS", 1) : 1)};
    if (variable("OMPI_COMM_WORLD_SIZE")) return Launch{number("OMPI_COMM_WORLD_RANK", 0), number("OMPI_COMM_WORLD_SIZE", 1)};
    if (step && variable("SLURM_PROCID")) return Launch{number("SLURM_PROCID", 0), number("SLURM_STEP_NUM_TASKS", number("SLURM_NTASKS", 1))};
    if (number("PMI_SIZE", 1) > 1) return Launch{number("PMI_RANK", 0), number("PMI_SIZE", 1), true};
    return std::nullopt;
}

std::optional<Launch> launch() {
    // Asked for before MPI begins, which itself sets some of the variables.
    static const std::optional<Launch> at_start = launch_of([](const char* name) -> const char* { return std::getenv(name); });
    return at_start;
}

Mpi::Mpi() : shared_(std::make_shared<Shared>()) {
    const std::optional<Launch> told = launch();
    if (told && told->foreign)
        fail(Exit::usage, "the launcher started {} tasks, but not as ranks of Open MPI, so each would train alone; use the mpirun of Open MPI 4 (mpirun --version says whose it is), with Slurm srun --mpi=pmix",
             told->ranks);
    int provided = 0;
    if (MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &provided) != MPI_SUCCESS) fail(Exit::rank_failed, "MPI could not be started; see the messages of the launcher");
    if (provided < MPI_THREAD_MULTIPLE) fail(Exit::hardware, "this MPI does not allow several threads (MPI_THREAD_MULTIPLE); install another build of it");
    world_ = std::make_unique<Group>(MPI_COMM_WORLD, false, shared_);
    if (told && told->ranks > 1 && world_->size() == 1)
        fail(Exit::usage, "the launcher started {} tasks, but MPI knows of one; with Slurm use srun --mpi=pmix, else the mpirun of Open MPI 4", told->ranks);
}

Mpi::~Mpi() = default;

void Mpi::finish() { MPI_Finalize(); }

std::unique_ptr<Mailbox> Mpi::mailbox() { return std::make_unique<MpiMailbox>(shared_->sent.emplace_back()); }

Activity& Mpi::activity() { return shared_->activity; }

Progress& Mpi::progress() { return shared_->progress; }

void Mpi::abort(int code) {
    MPI_Abort(MPI_COMM_WORLD, code);
    ::_exit(code);
}

void Mpi::set_timeout(double seconds) { shared_->timeout = seconds; }

}  // namespace flanmoe

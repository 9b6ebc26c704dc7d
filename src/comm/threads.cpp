// One lock and one condition for all groups of a run: exchanges between threads are for proving layouts, not for speed. An exchange publishes what a rank
// sends, waits for all, copies what is for this rank, and waits again until everyone has copied.
#include "comm/threads.hpp"

#include "comm/host_communicator.hpp"

#include <omp.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <map>
#include <mutex>
#include <thread>

namespace flanmoe {

namespace {

/// What all ranks of a run share.
struct Run {
    explicit Run(int n, double seconds) : left(static_cast<size_t>(n)), seconds(seconds) {}
    std::mutex mutex;
    std::condition_variable changed;
    std::exception_ptr error;  ///< the first
    std::vector<bool> left;    ///< by rank of the world: it has returned
    double seconds;
};

/// What the ranks of one group share.
struct Group {
    explicit Group(std::vector<int> members) : members(std::move(members)), here(this->members.size()), published(this->members.size()) {}
    std::vector<int> members;  ///< ranks of the world
    std::vector<bool> here;    ///< who has come to the present meeting
    int64_t meetings = 0;
    struct Published {
        const void* pieces = nullptr;
        size_t count = 0;
        std::pair<int, int> color_key;
    };
    std::vector<Published> published;
    std::map<std::pair<int64_t, int>, std::shared_ptr<Group>> children;  ///< by number and color of a split
};

class ThreadCommunicator : public HostCommunicator {
public:
    ThreadCommunicator(std::shared_ptr<Run> run, std::shared_ptr<Group> group, int rank) : run_(std::move(run)), group_(std::move(group)), rank_(rank) {}
    int rank() const override { return rank_; }
    int size() const override { return static_cast<int>(group_->members.size()); }

    std::unique_ptr<Communicator> split(int color, int key) override {
        group_->published[static_cast<size_t>(rank_)].color_key = {color, key};
        meet("split");
        std::vector<std::pair<int, int>> order;  // key, rank
        for (int r = 0; r < size(); ++r)
            if (const auto& [c, k] = group_->published[static_cast<size_t>(r)].color_key; c == color) order.emplace_back(k, r);
        std::sort(order.begin(), order.end());
        std::vector<int> members;
        int place = 0;
        for (size_t i = 0; i < order.size(); ++i) {
            members.push_back(group_->members[static_cast<size_t>(order[i].second)]);
            if (order[i].second == rank_) place = static_cast<int>(i);
        }
        std::shared_ptr<Group> child;
        {
            const std::lock_guard lock(run_->mutex);
            std::shared_ptr<Group>& entry = group_->children[{splits_++, color}];
            if (!entry) entry = std::make_shared<Group>(std::move(members));
            child = entry;
        }
        meet("split");
        return std::make_unique<ThreadCommunicator>(run_, std::move(child), place);
    }

protected:
    void exchange(Collective collective, std::span<const Piece> sends, std::span<const Piece> receives) override {
        auto& mine = group_->published[static_cast<size_t>(rank_)];
        mine.pieces = sends.data(), mine.count = sends.size();
        meet(name_of(collective));
        bool fits = true;
        for (const Piece& receive : receives) {
            const auto& theirs = group_->published[static_cast<size_t>(receive.rank)];
            const std::span<const Piece> pieces(static_cast<const Piece*>(theirs.pieces), theirs.count);
            const auto piece = std::find_if(pieces.begin(), pieces.end(), [&](const Piece& p) { return p.rank == rank_; });
            if (piece == pieces.end() || piece->bytes != receive.bytes) {
                fits = false;
            } else if (receive.bytes > 0) {
                std::memcpy(receive.data, piece->data, static_cast<size_t>(receive.bytes));
            }
        }
        meet(name_of(collective), true);  // before any error, of whomever: others may be copying from this rank
        require(fits, "the same collective with the same sizes on every rank");
    }

private:
    /// Returns when every rank of the group has come. `surely`: all are on their way, since nothing but copying lies between this meeting and the last, and none may leave
    /// before, even if elsewhere something has failed.
    void meet(const char* what, bool surely = false) {
        std::unique_lock lock(run_->mutex);
        if (run_->error && !surely) std::rethrow_exception(run_->error);
        group_->here[static_cast<size_t>(rank_)] = true;
        const int64_t meeting = group_->meetings;
        if (missing() < 0) {
            std::fill(group_->here.begin(), group_->here.end(), false);
            ++group_->meetings;
            run_->changed.notify_all();
            return;
        }
        const auto deadline = std::chrono::steady_clock::now() + std::chrono::duration<double>(run_->seconds);
        bool in_time = true;
        while (group_->meetings == meeting) {
            if (surely) {
                run_->changed.wait(lock);
                continue;
            }
            if (run_->error) std::rethrow_exception(run_->error);
            for (size_t r = 0; r < group_->members.size(); ++r) {
                const int member = group_->members[r];
                if (!group_->here[r] && run_->left[static_cast<size_t>(member)])
                    give_up(Exit::rank_failed, fmt::format("rank {} has ended while others wait for it in {}", member, what));
            }
            if (!in_time) give_up(Exit::hang, fmt::format("rank {} did not come to {} within {} s", missing(), what, run_->seconds));
            in_time = run_->changed.wait_until(lock, deadline) == std::cv_status::no_timeout;
        }
    }
    /// Everyone's error, at once: nobody may meet a rank that has gone.
    [[noreturn]] void give_up(Exit code, const std::string& sentence) {
        run_->error = std::make_exception_ptr(Error(code, sentence));
        run_->changed.notify_all();
        std::rethrow_exception(run_->error);
    }
    /// Rank of the world that has not come; -1 if all have.
    int missing() const {
        for (size_t r = 0; r < group_->here.size(); ++r)
            if (!group_->here[r]) return group_->members[r];
        return -1;
    }

    std::shared_ptr<Run> run_;
    std::shared_ptr<Group> group_;
    int rank_;
    int64_t splits_ = 0;
};

}  // namespace

void run_ranks(int n, const std::function<void(Communicator& world)>& body, double seconds) {
    require(n > 0, "at least one rank");
    const auto run = std::make_shared<Run>(n, seconds);
    std::vector<int> everyone(static_cast<size_t>(n));
    for (int r = 0; r < n; ++r) everyone[static_cast<size_t>(r)] = r;
    const auto group = std::make_shared<Group>(everyone);
    const int threads = std::max(1, omp_get_max_threads() / n);
    std::vector<std::thread> ranks;
    for (int r = 0; r < n; ++r) {
        ranks.emplace_back([&, r] {
            omp_set_num_threads(threads);
            std::exception_ptr error;
            try {
                ThreadCommunicator world(run, group, r);
                body(world);
            } catch (...) {
                error = std::current_exception();
            }
            const std::lock_guard lock(run->mutex);
            if (error && !run->error) run->error = error;
            run->left[static_cast<size_t>(r)] = true;
            run->changed.notify_all();
        });
    }
    for (std::thread& rank : ranks) rank.join();
    if (run->error) std::rethrow_exception(run->error);
}

}  // namespace flanmoe

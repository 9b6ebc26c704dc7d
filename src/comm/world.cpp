#include "comm/world.hpp"

#include "comm/agreement.hpp"
#include "comm/single.hpp"
#include "comm/start_watch.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>

namespace flanmoe {

namespace {
constexpr double patience_before_mpi = 3, patience_at_start = 5, timeout_at_start = 120;  // until the config is known
// The watchdog sees all ranks and names the one behind; a rank that waits knows only who did not come to it, so it gives up by itself a little later.
double own_timeout(double timeout) { return timeout > 0 ? timeout + 5 : 0; }
}

std::string host_name() {
    char name[256] = "";
    ::gethostname(name, sizeof name - 1);
    return name;
}

World::World(std::function<void(const Trouble&)> said) : said_(std::move(said)) {
    if (!launch()) {
        alone_ = std::make_unique<SingleCommunicator>();
        ranks_ = alone_.get();
        return;
    }
    // Until the watchdog has begun. MPI's own end is not to be had yet, but the launcher ends the others when one goes with an error.
    const StartWatch start(patience_before_mpi, [this](const std::string& sentence) {
        say(sentence);
        ::_exit(static_cast<int>(Exit::hang));
    });
    mpi_ = std::make_unique<Mpi>();
    mpi_->set_timeout(own_timeout(timeout_at_start));
    ranks_ = &mpi_->world();
    activity_ = &mpi_->activity();
    progress_ = &mpi_->progress();
    if (size() == 1) return;
    std::vector<RankProcess> places;
    for (const std::string& text : gather_texts(*ranks_, fmt::format("{} {}", ::getpid(), host_name()))) {
        const size_t blank = text.find(' ');
        places.push_back({text.substr(blank + 1), std::atoll(text.substr(0, blank).c_str())});
    }
    const Watchdog::Limits limits{patience_at_start, timeout_at_start};
    watchdog_ = std::make_unique<Watchdog>(rank(), std::move(places), mpi_->mailbox(), *activity_, *progress_, limits, [this](const Finding& finding) {
        if (ending_.exchange(true)) return;
        say(finding.sentence);
        Mpi::abort(static_cast<int>(finding.code));
    });
}

World::~World() = default;

void World::set_limits(double patience, double timeout) {
    if (watchdog_) watchdog_->set_limits({patience, timeout});
    if (mpi_) mpi_->set_timeout(own_timeout(timeout));
}

void World::say(std::string sentence) {
    std::replace(sentence.begin(), sentence.end(), '\n', ' ');  // one line, whatever a library put into its message
    said_({sentence, std::max<int64_t>(0, activity_->step)});
}

void World::give_up(Exit code, const std::string& sentence) {
    while (ending_.exchange(true)) ::pause();  // another thread was first and is about to end this process
    {
        const std::lock_guard lock(watching_);
        if (watchdog_) watchdog_->say_goodbye();
    }
    say(fmt::format("rank {}: {}", rank(), sentence));
    Mpi::abort(static_cast<int>(code));
}

// Nobody is watched any more once all have come here.
void World::leave() {
    if (size() > 1) ranks_->barrier();
    {
        const std::lock_guard lock(watching_);
        watchdog_.reset();
    }
    if (size() > 1) ranks_->barrier();
    if (mpi_) mpi_->finish();
}

void World::run(const std::function<void()>& work) {
    const auto guarded = [&](const std::function<void()>& part) {
        try {
            part();
        } catch (const SharedError&) {
            throw;
        } catch (...) {
            if (size() == 1) throw;
            const Error error = error_of(std::current_exception());
            give_up(error.code, error.what());
        }
    };
    try {
        guarded(work);
    } catch (SharedError& error) {
        if (size() > 1 && rank() == 0) say(error.what());  // before any rank may go: a launcher ends the others when one has gone with an error
        guarded([&] { leave(); });
        error.said = size() > 1;
        throw;
    }
    guarded([&] { leave(); });
}

}  // namespace flanmoe

#include "comm/world.hpp"

#include "comm/agreement.hpp"
#include "comm/single.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <new>

namespace flanmoe {

namespace {
constexpr double patience_at_start = 5;  // until the config is known
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
    mpi_ = std::make_unique<Mpi>();
    ranks_ = &mpi_->world();
    activity_ = &mpi_->activity();
    if (size() == 1) return;
    std::vector<RankProcess> places;
    for (const std::string& text : gather_texts(*ranks_, fmt::format("{} {}", ::getpid(), host_name()))) {
        const size_t blank = text.find(' ');
        places.push_back({text.substr(blank + 1), std::atoll(text.substr(0, blank).c_str())});
    }
    watchdog_ = std::make_unique<Watchdog>(rank(), std::move(places), mpi_->mailbox(), *activity_, patience_at_start, [this](const Finding& finding) {
        say(finding.sentence);
        Mpi::abort(static_cast<int>(finding.code));
    });
}

World::~World() = default;

void World::set_limits(double patience, double timeout) {
    if (watchdog_) watchdog_->set_patience(patience);
    if (mpi_) mpi_->set_timeout(timeout);
}

void World::say(const std::string& sentence) { said_({sentence, std::max<int64_t>(0, activity_->step)}); }

void World::give_up(Exit code, const std::string& sentence) {
    if (watchdog_) watchdog_->say_goodbye();
    say(fmt::format("rank {}: {}", rank(), sentence));
    Mpi::abort(static_cast<int>(code));
}

// Nobody is watched any more once all have come here.
void World::leave() {
    if (size() > 1) ranks_->barrier();
    watchdog_.reset();
    if (size() > 1) ranks_->barrier();
    if (mpi_) mpi_->finish();
}

void World::run(const std::function<void()>& work) {
    const auto alone = [&](Exit code, const std::string& sentence) {
        if (size() > 1) give_up(code, sentence);
    };
    try {
        work();
        leave();
    } catch (const SharedError&) {
        leave();
        throw;
    } catch (const Error& error) {
        alone(error.code, error.what());
        throw;
    } catch (const std::bad_alloc&) {
        alone(Exit::out_of_memory, "out of memory; use a smaller batch or model, or a machine with more memory");
        throw;
    } catch (const std::exception& error) {
        alone(Exit::internal, fmt::format("internal error: {}; please report this", error.what()));
        throw;
    }
}

}  // namespace flanmoe

#include "comm/start_watch.hpp"

#include "comm/watchdog.hpp"
#include "comm/world.hpp"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <mutex>
#include <optional>
#include <thread>

namespace flanmoe {

namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
constexpr auto interval = std::chrono::milliseconds(250);
constexpr std::chrono::seconds own_gap{2};  // as the watchdog's: the whole job was stopped
constexpr double turn = 3;                  // seconds that each rank leaves to those below it, to say it and have the launcher end all

/// What a process was started with; empty if that cannot be seen.
std::string variable_of(const fs::path& process, const std::string& name) {
    std::ifstream file(process / "environ", std::ios::binary);
    const std::string all = '\0' + std::string(std::istreambuf_iterator<char>(file), {}), key = '\0' + name + '=';
    const size_t at = all.find(key);
    return at == std::string::npos ? "" : all.substr(at + key.size(), all.find('\0', at + 1) - at - key.size());
}

struct Sibling {
    int64_t process;
    int rank;
    bool stopped;
};

}  // namespace

struct StartWatch::State {
    const double patience;
    const std::function<void(const std::string&)> found;
    const fs::path proc = "/proc", self = proc / std::to_string(::getpid());
    const fs::path program = fs::read_symlink(self / "exe");
    const std::string run = variable_of(self, "PMIX_NAMESPACE");
    const int rank = std::atoi(variable_of(self, "PMIX_RANK").c_str());

    std::mutex mutex;
    std::condition_variable changed;
    bool stop = false;
    std::thread thread;  // last: it uses what is above

    State(double patience, std::function<void(const std::string&)> found) : patience(patience), found(std::move(found)) {
        if (!run.empty()) thread = std::thread([this] { watch(); });
    }

    std::optional<Sibling> sibling(const fs::path& process) const {
        std::error_code error;
        const int64_t number = std::atoll(process.filename().c_str());
        if (number == 0 || process == self || fs::read_symlink(process / "exe", error) != program || error) return std::nullopt;
        if (variable_of(process, "PMIX_NAMESPACE") != run) return std::nullopt;
        return Sibling{number, std::atoi(variable_of(process, "PMIX_RANK").c_str()), process_state(number) == 'T'};
    }
    std::vector<Sibling> siblings() const {
        std::vector<Sibling> all;
        std::error_code error;
        for (fs::directory_iterator entry(proc, error), end; !error && entry != end; entry.increment(error))
            if (const auto one = sibling(entry->path())) all.push_back(*one);
        return all;
    }

    void watch() {
        struct Stop {
            Clock::time_point since;
            double patience;
        };
        std::map<int64_t, Stop> stops;  // by process
        Clock::time_point before = Clock::now();
        std::unique_lock lock(mutex);
        while (!changed.wait_for(lock, interval, [&] { return stop; })) {
            const Clock::time_point now = Clock::now();
            if (now - std::exchange(before, now) > own_gap) stops.clear();
            const std::vector<Sibling> all = siblings();
            const auto before_us = std::count_if(all.begin(), all.end(), [&](const Sibling& s) { return !s.stopped && s.rank < rank; });
            for (const Sibling& s : all) {
                if (!s.stopped) {
                    stops.erase(s.process);
                    continue;
                }
                const Stop& found_at = stops.try_emplace(s.process, Stop{now, patience + turn * static_cast<double>(before_us)}).first->second;
                const double seconds = std::chrono::duration<double>(now - found_at.since).count();
                if (seconds < found_at.patience) continue;
                return found(fmt::format("rank {} (process {} on {}) has been stopped for {:.0f} s before all ranks had begun; give the command again", s.rank, s.process, host_name(), seconds));
            }
        }
    }
};

StartWatch::StartWatch(double patience, std::function<void(const std::string&)> found) : state_(std::make_unique<State>(patience, std::move(found))) {}

StartWatch::~StartWatch() {
    if (!state_->thread.joinable()) return;
    {
        const std::lock_guard lock(state_->mutex);
        state_->stop = true;
    }
    state_->changed.notify_all();
    state_->thread.join();
}

}  // namespace flanmoe

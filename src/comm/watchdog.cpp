#include "comm/watchdog.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <optional>
#include <thread>

namespace flanmoe {

namespace {

using Clock = std::chrono::steady_clock;
constexpr auto interval = std::chrono::milliseconds(200);
constexpr double own_gap = 2;  // seconds in which this thread did not run: the whole job was stopped, nobody else is to blame

/// A sign of life.
struct Beat {
    int64_t step = -1;
    int32_t layer = -1;
    bool ends = false;  ///< this rank ends the run, and has said why: others need not wonder where it is
    char part[40] = "", collective[24] = "";
};

Beat beat_of(const Activity& activity) {
    Beat beat;
    beat.step = activity.step, beat.layer = activity.layer;
    const char *part = activity.part, *collective = activity.collective;
    std::strncpy(beat.part, part, sizeof beat.part - 1);
    if (collective) std::strncpy(beat.collective, collective, sizeof beat.collective - 1);
    return beat;
}

std::string text_of(const Beat& beat) {
    std::string text = beat.step == no_steps ? "" : beat.step < 0 ? "before the first step, " : fmt::format("step {}, ", beat.step);
    text += beat.part;
    if (beat.layer >= 0) text += fmt::format(", layer {}", beat.layer);
    if (beat.collective[0]) text += fmt::format(", in {}", beat.collective);
    return text;
}

}  // namespace

char process_state(int64_t process) {
    const std::string path = fmt::format("/proc/{}/stat", process);
    const auto of_failure = [] { return errno == ENOENT || errno == ESRCH ? '\0' : '?'; };
    const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (file < 0) return of_failure();
    char text[512];
    const ssize_t length = ::read(file, text, sizeof text - 1);
    const char failure = length < 0 ? of_failure() : '?';
    ::close(file);
    if (length <= 0) return failure;
    text[length] = 0;
    const char* name_end = std::strrchr(text, ')');  // the name may hold anything
    return name_end && name_end[1] == ' ' ? name_end[2] : '?';
}

struct Watchdog::State {
    int rank;
    std::vector<RankProcess> places;
    std::unique_ptr<Mailbox> mailbox;
    const Activity& activity;
    std::function<void(const Finding&)> found;
    std::atomic<double> patience;

    std::vector<int> listeners;                // who gets this rank's beats
    std::vector<std::optional<Beat>> last;     // of those that send theirs here
    std::vector<Clock::time_point> heard;
    int second = -1;                           // the one that listens for silence beside rank 0: the first on another host than its, or rank 1
    int neighbour = -1;                        // the next rank on this host
    bool seen = false;                         // its process
    Clock::time_point running = Clock::now();  // when the neighbour was last seen not stopped

    std::mutex mutex;
    std::condition_variable changed;
    bool stop = false, quiet = false;
    std::thread thread;

    State(int rank, std::vector<RankProcess> all, std::unique_ptr<Mailbox> mailbox, const Activity& activity, double patience, std::function<void(const Finding&)> found)
        : rank(rank), places(std::move(all)), mailbox(std::move(mailbox)), activity(activity), found(std::move(found)), patience(patience), last(places.size()),
          heard(places.size(), Clock::now()) {
        const int n = static_cast<int>(places.size());
        const auto local = [&](int r) { return places[static_cast<size_t>(r)].host == places[static_cast<size_t>(rank)].host; };
        for (int d = 1; d < n && neighbour < 0; ++d)
            if (local((rank + d) % n)) neighbour = (rank + d) % n;
        int before = -1;
        for (int d = 1; d < n && before < 0; ++d)
            if (local((rank - d + n) % n)) before = (rank - d + n) % n;
        second = n > 1 ? 1 : -1;
        for (int r = n - 1; r > 0; --r)
            if (places[static_cast<size_t>(r)].host != places[0].host) second = r;
        for (const int r : {0, second, before})
            if (r >= 0 && r < n && r != rank && std::find(listeners.begin(), listeners.end(), r) == listeners.end()) listeners.push_back(r);
    }

    Finding finding(Exit code, int who, const char* what, double seconds) const {
        const RankProcess& place = places[static_cast<size_t>(who)];
        std::string sentence = fmt::format("rank {} (process {} on {}) {}", who, place.process, place.host, what);
        if (seconds > 0) sentence += fmt::format(" for {:.0f} s", seconds);
        if (last[static_cast<size_t>(who)]) sentence += fmt::format("; it was last at {}", text_of(*last[static_cast<size_t>(who)]));
        sentence += fmt::format("; rank {} is at {}; {}", rank, text_of(beat_of(activity)), activity.step == no_steps ? "give the command again" : "the next start goes on from the last checkpoint");
        return {code, who, sentence};
    }

    static double seconds_since(Clock::time_point start, Clock::time_point now) { return std::chrono::duration<double>(now - start).count(); }

    std::optional<Finding> look(Clock::time_point now) {
        Beat beat = beat_of(activity);
        for (const int r : listeners) mailbox->send(r, std::as_bytes(std::span(&beat, 1)));
        for (;;) {
            const int sender = mailbox->receive(std::as_writable_bytes(std::span(&beat, 1)));
            if (sender < 0) break;
            last[static_cast<size_t>(sender)] = beat, heard[static_cast<size_t>(sender)] = now;
            quiet |= beat.ends;
        }
        if (quiet) return std::nullopt;
        if (neighbour >= 0) {
            const char process = process_state(places[static_cast<size_t>(neighbour)].process);
            seen |= process != 0 && process != '?';
            // Where its process cannot be seen at all (a container of its own under the same name), its silence tells.
            if ((process == 0 && seen) || process == 'Z' || process == 'X') return finding(Exit::rank_failed, neighbour, "has ended", 0);
            if (process != 'T' && process != 't') running = now;
            const double stopped = seconds_since(running, now);
            if (patience > 0 && stopped > patience) return finding(Exit::hang, neighbour, "has been stopped", stopped);
        }
        if ((rank != 0 && rank != second) || patience == 0) return std::nullopt;
        for (int r = 0; r < static_cast<int>(places.size()); ++r) {
            const double silent = seconds_since(heard[static_cast<size_t>(r)], now);
            if (r != rank && silent > patience) return finding(Exit::hang, r, "has given no sign of life", silent);
        }
        return std::nullopt;
    }

    void say_goodbye() {
        Beat beat = beat_of(activity);
        beat.ends = true;
        for (int r = 0; r < static_cast<int>(places.size()); ++r)
            if (r != rank) mailbox->send(r, std::as_bytes(std::span(&beat, 1)));
    }

    void run() {
        Clock::time_point before = Clock::now();
        std::unique_lock lock(mutex);
        while (!stop) {
            lock.unlock();
            const Clock::time_point now = Clock::now();
            if (seconds_since(before, now) > own_gap) {
                running = now;
                std::fill(heard.begin(), heard.end(), now);
            }
            before = now;
            const std::optional<Finding> trouble = look(now);
            if (trouble) {
                say_goodbye();
                return found(*trouble);
            }
            lock.lock();
            changed.wait_for(lock, interval, [&] { return stop; });
        }
    }
};

Watchdog::Watchdog(int rank, std::vector<RankProcess> places, std::unique_ptr<Mailbox> mailbox, const Activity& activity, double patience, std::function<void(const Finding&)> found)
    : state_(std::make_unique<State>(rank, std::move(places), std::move(mailbox), activity, patience, std::move(found))) {
    state_->thread = std::thread([this] { state_->run(); });
}

Watchdog::~Watchdog() { stop(); }

void Watchdog::stop() {
    if (!state_->thread.joinable()) return;
    {
        const std::lock_guard lock(state_->mutex);
        state_->stop = true;
    }
    state_->changed.notify_all();
    state_->thread.join();
}

void Watchdog::say_goodbye() {
    stop();
    state_->say_goodbye();
}

void Watchdog::set_patience(double seconds) { state_->patience = seconds; }

}  // namespace flanmoe

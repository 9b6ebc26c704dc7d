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
#include <tuple>
#include <utility>

namespace flanmoe {

namespace {

using Clock = std::chrono::steady_clock;
constexpr auto interval = std::chrono::milliseconds(200);
constexpr double own_gap = 2;  // seconds in which this thread did not run: the whole job was stopped, nobody else is to blame

/// A sign of life, and what its sender is doing.
struct Beat {
    int64_t step = -1;
    int64_t begun = 0, ended = 0;   ///< collectives of the host and of the device: numbers that only grow, alike on all ranks
    int32_t layer = -1, layer_before = -1;
    bool waits = false;             ///< in a collective
    bool unhurried = false;         ///< it may work for as long as it takes
    bool ends = false;              ///< this rank ends the run, and has said why: others need not wonder where it is
    char part[40] = "", collective[24] = "";
    char part_before[40] = "", collective_before[24] = "";  ///< last collective of a device that is in none

    bool operator==(const Beat&) const = default;
};

template <size_t n>
void copy_text(char (&to)[n], const char* from) {
    if (from) std::strncpy(to, from, n - 1);
}

Beat beat_of(const Activity& activity, const Progress& progress) {
    const DeviceProgress::Reached device = progress.of_device();
    const bool device_waits = device.begun > device.ended;
    const int64_t ended = progress.ended, begun = progress.begun;
    Beat beat;
    beat.step = activity.step, beat.unhurried = activity.unhurried > 0;
    beat.begun = begun + device.begun, beat.ended = ended + device.ended;
    beat.waits = begun > ended || device_waits;
    // What a device does was queued long ago: the host may be at another part.
    const bool told_by_device = device_waits && device.part;
    copy_text(beat.part, told_by_device ? device.part : activity.part.load());
    beat.layer = told_by_device ? device.layer : activity.layer.load();
    copy_text(beat.collective, device_waits ? device.collective : activity.collective.load());
    if (!device_waits) copy_text(beat.part_before, device.part), copy_text(beat.collective_before, device.collective), beat.layer_before = device.layer;
    return beat;
}

std::string part_of(const char* part, int layer) { return layer < 0 ? part : fmt::format("{}, layer {}", part, layer); }

std::string text_of(const Beat& beat) {
    std::string text = beat.step == no_steps ? "" : beat.step < 0 ? "before the first step, " : fmt::format("step {}, ", beat.step);
    text += part_of(beat.part, beat.layer);
    if (beat.collective[0]) {
        text += fmt::format(", in {}", beat.collective);
    } else if (beat.collective_before[0]) {
        text += fmt::format(", its GPU behind {}{}", beat.collective_before, beat.part_before[0] ? " of " + part_of(beat.part_before, beat.layer_before) : "");
    }
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
    const Progress& progress;
    std::function<void(const Finding&)> found;
    std::atomic<double> patience, timeout;

    std::vector<int> listeners;                // who gets this rank's beats
    std::vector<std::optional<Beat>> last;     // of this rank, and of those that send theirs here
    std::vector<Clock::time_point> heard, moved;  // when that came, and when it said something new
    int second = -1;                           // the one that listens for silence beside rank 0: the first on another host than its, or rank 1
    int neighbour = -1;                        // the next rank on this host
    bool seen = false, gone = false;           // its process
    Clock::time_point running = Clock::now();  // when the neighbour was last seen not stopped

    std::mutex mutex;
    std::condition_variable changed;
    bool stop = false, quiet = false;
    std::thread thread;

    State(int rank, std::vector<RankProcess> all, std::unique_ptr<Mailbox> mailbox, const Activity& activity, const Progress& progress, Limits limits,
          std::function<void(const Finding&)> found)
        : rank(rank), places(std::move(all)), mailbox(std::move(mailbox)), activity(activity), progress(progress), found(std::move(found)), patience(limits.patience),
          timeout(limits.timeout), last(places.size()), heard(places.size(), Clock::now()), moved(heard) {
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

    /// `what` rank `who` did, for how long and which option limits that; `witness` is another one, which says what it is at.
    Finding finding(Exit code, int who, const std::string& what, const std::string& how_long, int witness) const {
        const auto beat = [&](int r) { return last[static_cast<size_t>(r)]; };
        const RankProcess& place = places[static_cast<size_t>(who)];
        std::string sentence = fmt::format("rank {} (process {} on {}) {}{}", who, place.process, place.host, what, how_long);
        if (beat(who)) sentence += fmt::format("; it was last at {}", text_of(*beat(who)));
        if (beat(witness)) sentence += fmt::format("; rank {} is at {}", witness, text_of(*beat(witness)));
        sentence += activity.step == no_steps ? "; give the command again" : "; the next start goes on from the last checkpoint";
        return {code, who, sentence};
    }

    static std::string for_seconds(double seconds, const char* limit) { return fmt::format(" for {:.0f} s ({})", seconds, limit); }
    static double seconds_since(Clock::time_point start, Clock::time_point now) { return std::chrono::duration<double>(now - start).count(); }

    void take(int sender, const Beat& beat, Clock::time_point now) {
        const auto s = static_cast<size_t>(sender);
        if (!last[s] || *last[s] != beat) moved[s] = now;
        last[s] = beat, heard[s] = now;
    }

    /// Of ranks that all live: one waits too long in a collective. Only of those that hear all others.
    std::optional<Finding> overdue(Clock::time_point now) const {
        const int n = static_cast<int>(places.size());
        const auto beat = [&](int r) -> const Beat& { return *last[static_cast<size_t>(r)]; };
        const auto still = [&](int r) { return seconds_since(moved[static_cast<size_t>(r)], now); };
        int witness = -1, behind = -1;
        bool hurried = false;
        for (int r = 0; r < n; ++r) {
            if (!last[static_cast<size_t>(r)]) return std::nullopt;
            if (beat(r).unhurried && !beat(r).waits) return std::nullopt;  // the others wait for its work
            hurried |= !beat(r).unhurried;
            if (beat(r).waits && still(r) > timeout && (witness < 0 || still(r) > still(witness))) witness = r;
            const auto place = [&](int q) { return std::tuple(beat(q).waits, beat(q).step, beat(q).begun); };
            if (behind < 0 || place(r) < place(behind)) behind = r;
        }
        if (witness < 0 || !hurried) return std::nullopt;
        if (beat(witness).unhurried && still(behind) <= timeout) return std::nullopt;  // it has time, and the one behind is on its way
        const Beat& stuck = beat(behind);
        const auto name = [](const Beat& b) { return b.collective[0] ? b.collective : "a collective"; };
        const std::string what = stuck.waits ? fmt::format("is stuck in {}", name(stuck)) : fmt::format("has not come to {}", name(beat(witness)));
        const std::string how_long = for_seconds(still(witness), "parallel.timeout");
        if (behind == witness) witness = behind == 0 ? n - 1 : 0;
        return finding(Exit::hang, behind, what, how_long, witness);
    }

    std::optional<Finding> look(Clock::time_point now) {
        Beat beat = beat_of(activity, progress);
        take(rank, beat, now);
        for (const int r : listeners) mailbox->send(r, std::as_bytes(std::span(&beat, 1)));
        for (;;) {
            const int sender = mailbox->receive(std::as_writable_bytes(std::span(&beat, 1)));
            if (sender < 0) break;
            take(sender, beat, now);
            quiet |= beat.ends;
        }
        if (quiet) return std::nullopt;
        if (neighbour >= 0) {
            const char process = process_state(places[static_cast<size_t>(neighbour)].process);
            seen |= process != 0 && process != '?';
            // Where its process cannot be seen at all (a container of its own under the same name), its silence tells. It may have said why it ends: that is looked for once more.
            const bool ended = (process == 0 && seen) || process == 'Z' || process == 'X';
            if (ended && std::exchange(gone, true)) return finding(Exit::rank_failed, neighbour, "has ended", "", rank);
            if (process != 'T' && process != 't') running = now;
            const double stopped = seconds_since(running, now);
            if (patience > 0 && stopped > patience) return finding(Exit::hang, neighbour, "has been stopped", for_seconds(stopped, "parallel.patience"), rank);
        }
        if (rank != 0 && rank != second) return std::nullopt;
        for (int r = 0; patience > 0 && r < static_cast<int>(places.size()); ++r) {
            const double silent = seconds_since(heard[static_cast<size_t>(r)], now);
            if (r != rank && silent > patience) return finding(Exit::hang, r, "has given no sign of life", for_seconds(silent, "parallel.patience"), rank);
        }
        return rank == 0 && timeout > 0 ? overdue(now) : std::nullopt;
    }

    void say_goodbye() {
        Beat beat = beat_of(activity, progress);
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
                std::fill(moved.begin(), moved.end(), now);
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

Watchdog::Watchdog(int rank, std::vector<RankProcess> places, std::unique_ptr<Mailbox> mailbox, const Activity& activity, const Progress& progress, Limits limits,
                   std::function<void(const Finding&)> found)
    : state_(std::make_unique<State>(rank, std::move(places), std::move(mailbox), activity, progress, limits, std::move(found))) {
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

void Watchdog::set_limits(Limits limits) { state_->patience = limits.patience, state_->timeout = limits.timeout; }

}  // namespace flanmoe

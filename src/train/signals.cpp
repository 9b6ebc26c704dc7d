// The handler runs on a thread that does nothing else; the thread that made the Stop, and those it starts later, have the signals blocked. oneDNN's float
// kernels let the stack pointer point into the heap while they run (seen with a debugger in 5 of 11 stops inside their code; oneDNN 2.6): a handler's frame there,
// several kilobytes with AVX-512 state, would be written over other data (measured 2026-11-23: 7 of 12 runs that a signal met at that moment died of it).
#include "train/signals.hpp"

#include "core/error.hpp"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <cstring>

namespace flanmoe {

namespace {

constexpr std::array<int, 5> stop_signals = {SIGUSR1, SIGUSR2, SIGTERM, SIGINT, SIGHUP};
std::array<struct sigaction, 5> previous_actions;
struct sigaction previous_pipe;
sigset_t previous_mask;
std::atomic<int> received = 0, last_signal = 0;
std::atomic<bool> ignoring = false;
static_assert(std::atomic<int>::is_always_lock_free, "a signal handler may take no lock");

// Only what is safe inside a signal handler: flags, write, _exit.
void handle(int signal) {
    if (ignoring) return;
    const int error = errno;
    last_signal = signal;
    const int count = ++received;
    if (count >= 3) ::_exit(128 + signal);
    static constexpr char first[] = "\nflanmoe: stopping after this step, then saving; a third signal leaves at once\n";
    static constexpr char second[] = "\nflanmoe: still saving; the next signal leaves at once, the last checkpoint stays\n";
    const char* text = count == 1 ? first : second;
    if (::write(STDERR_FILENO, text, std::strlen(text)) < 0) {
        // nobody reads; nothing to do
    }
    errno = error;
}

const char* short_name(int signal) {
    switch (signal) {
        case SIGUSR1: return "USR1";
        case SIGUSR2: return "USR2";
        case SIGTERM: return "TERM";
        case SIGINT: return "INT";
        default: return "HUP";
    }
}

}  // namespace

void Stop::limit(double max_minutes) {
    constexpr double never = 60.0 * 24 * 366 * 100;  // a century: much more is beyond the clock's range
    max_minutes_ = max_minutes;
    deadline_ = std::chrono::steady_clock::now() + std::chrono::duration_cast<std::chrono::steady_clock::duration>(std::chrono::duration<double, std::ratio<60>>(std::min(max_minutes, never)));
}

Stop::Stop(double max_minutes) {
    limit(max_minutes);
    received = 0, ignoring = false;
    ended_ = ::eventfd(0, EFD_CLOEXEC);
    if (ended_ < 0) fail(Exit::io, "cannot make an event for signals: {}; close some files", std::strerror(errno));
    struct sigaction action {};
    action.sa_handler = handle;
    action.sa_flags = SA_RESTART;  // a save in progress is not disturbed
    ::sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < stop_signals.size(); ++i) {
        ::sigaction(stop_signals[i], nullptr, &previous_actions[i]);
        if (stop_signals[i] == SIGHUP && previous_actions[i].sa_handler == SIG_IGN) continue;
        ::sigaction(stop_signals[i], &action, nullptr);
    }
    action.sa_handler = SIG_IGN;
    ::sigaction(SIGPIPE, &action, &previous_pipe);
    sigset_t blocked;
    ::sigemptyset(&blocked);
    for (int signal : stop_signals) ::sigaddset(&blocked, signal);
    receiver_ = std::thread([this, blocked] {
        ::pthread_sigmask(SIG_UNBLOCK, &blocked, nullptr);
        pollfd end{ended_, POLLIN, 0};
        while (::poll(&end, 1, -1) < 0 && errno == EINTR) {
        }
    });
    ::pthread_sigmask(SIG_BLOCK, &blocked, &previous_mask);
}

Stop::~Stop() {
    ::eventfd_write(ended_, 1);
    receiver_.join();
    ::close(ended_);
    for (size_t i = 0; i < stop_signals.size(); ++i) {
        if (ignoring) previous_actions[i].sa_handler = SIG_IGN;
        ::sigaction(stop_signals[i], &previous_actions[i], nullptr);
    }
    ::pthread_sigmask(SIG_SETMASK, &previous_mask, nullptr);
    ::sigaction(SIGPIPE, &previous_pipe, nullptr);
}

void Stop::ignore() { ignoring = true; }

// mpirun loses a signal that comes while it starts the ranks; run/launch.sh leaves a file, too.
bool Stop::launcher_asked() const {
    const char* file = std::getenv("FLANMOE_STOP_FILE");
    return file && ::access(file, F_OK) == 0;
}

bool Stop::requested() const { return received > 0 || !own_reason_.empty() || launcher_asked() || (max_minutes_ > 0 && std::chrono::steady_clock::now() >= deadline_); }

std::string Stop::reason() const {
    if (received > 0) return fmt::format("signal {}", short_name(last_signal.load()));
    if (!own_reason_.empty()) return own_reason_;
    if (launcher_asked()) return "a signal to the launcher";
    if (requested()) return fmt::format("the limit of {} minutes (train.max_minutes)", max_minutes_);
    return "";
}

}  // namespace flanmoe

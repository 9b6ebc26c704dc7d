#include "core/progress.hpp"

#include "core/log.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace flanmoe {

namespace {
constexpr double terminal_seconds = 0.1;
constexpr int bar_width = 30;
}  // namespace

std::string clock_text(double seconds) {
    const auto s = static_cast<long>(std::max(0.0, seconds) + 0.5);
    return s < 3600 ? fmt::format("{}:{:02}", s / 60, s % 60) : fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
}

Progress::Progress(std::string label, double plain_seconds)
    : label_(std::move(label)), plain_seconds_(plain_seconds), terminal_(isatty(STDERR_FILENO) != 0) {}

Progress::~Progress() { finish(); }

std::string Progress::line(double fraction, const std::string& note) const {
    const double elapsed = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
    const double gained = fraction - first_fraction_;
    const std::string left = gained > 1e-6 ? clock_text(elapsed * (1 - fraction) / gained) : "-:--";
    const int percent = static_cast<int>(fraction * 100);
    if (!terminal_) return fmt::format("{}: {} %, {}, {} left", label_, percent, note, left);
    const int filled = static_cast<int>(fraction * bar_width);
    return fmt::format("{} [{}{}] {:3} %  {} left  {}", label_, std::string(static_cast<size_t>(filled), '#'),
                       std::string(static_cast<size_t>(bar_width - filled), ' '), percent, left, note);
}

void Progress::update(double fraction, const std::string& note) {
    fraction = std::clamp(fraction, 0.0, 1.0);
    const auto now = std::chrono::steady_clock::now();
    if (!started_) {
        started_ = true;
        start_ = now;
        shown_ = now - std::chrono::hours(terminal_ ? 1 : 0);
        first_fraction_ = fraction;
    }
    if (std::chrono::duration<double>(now - shown_).count() < (terminal_ ? terminal_seconds : plain_seconds_)) return;
    shown_ = now;
    print_to(stderr, "{}{}{}", terminal_ ? "\r\033[K" : "", line(fraction, note), terminal_ ? "" : "\n");
    std::fflush(stderr);
    open_ = terminal_;
}

void Progress::finish() {
    if (open_) print_to(stderr, "\n");
    open_ = false;
}

}  // namespace flanmoe

#include "train/progress.hpp"

#include "core/log.hpp"
#include "core/progress.hpp"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

namespace flanmoe {

namespace {

constexpr int widest = 160;
constexpr double redraw_seconds = 0.1;

// 950 -> "950" and "", 15234 -> "15.2" and "k", 3.1e11 -> "310" and "G".
std::pair<std::string, const char*> scaled(double x) {
    for (const char* unit : {"", "k", "M", "G"}) {
        if (std::abs(x) < 999.5) return {fmt::format("{:.{}f}", x, *unit && std::abs(x) < 99.95 ? 1 : 0), unit};
        x /= 1000;
    }
    return {fmt::format("{:.1f}", x), "T"};
}

int terminal_columns(std::FILE* out) {
    winsize size{};
    if (::ioctl(::fileno(out), TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
    return std::min<int>(size.ws_col - 1, widest);  // the last column would wrap
}

}  // namespace

std::string metrics_line(int64_t step, int64_t steps, const Metrics& metrics, double seconds_left, int columns) {
    namespace name = metric_name;
    std::vector<std::string> parts;
    const auto add = [&](const char* key, auto format) {
        const double value = metric(metrics, key, std::nan(""));
        if (!std::isnan(value)) parts.push_back(format(value));
    };
    // Loss and gradient norm are shown even when they are NaN: that is when they matter most.
    for (const auto& [key, value] : metrics) {
        if (key == name::loss) parts.push_back(fmt::format("loss {:.3f}", value));
        if (key == name::gradient_norm) parts.push_back(fmt::format("grad {:.2g}", value));
    }
    if (seconds_left >= 0) parts.push_back(clock_text(seconds_left) + " left");
    add(name::learning_rate, [](double x) { return fmt::format("lr {:.1e}", x); });
    add(name::tokens_per_second, [](double x) {
        const auto [number, unit] = scaled(x);
        return number + unit + " tok/s";
    });
    add(name::flops_per_second, [&](double x) {
        const double share = metric(metrics, name::peak_share, std::nan(""));
        const auto [number, unit] = scaled(x);
        return fmt::format("{} {}FLOP/s{}", number, unit, std::isnan(share) ? "" : fmt::format(" ({:.0f} %)", 100 * share));
    });
    add(name::expert_load, [](double x) { return fmt::format("load {:.2f}", x); });
    add(name::dropped, [](double x) { return fmt::format("drop {:.1f} %", 100 * x); });
    add(name::skipped, [](double x) { return x > 0 ? fmt::format("skipped {:.0f}", x) : std::string(); });
    add(name::balance, [](double x) { return fmt::format("balance {:.3f}", x); });
    add(name::confidence, [](double x) { return fmt::format("conf {:.2f}", x); });
    std::string line = fmt::format("step {}/{}", step, steps);
    for (const std::string& part : parts)
        if (!part.empty() && line.size() + 3 + part.size() <= static_cast<size_t>(columns)) line += " | " + part;
    return line;
}

TrainingProgress::TrainingProgress(int64_t first_step, int64_t steps, std::FILE* out)
    : first_(first_step), done_(first_step), steps_(steps), out_(out), terminal_(::isatty(::fileno(out)) != 0),
      colour_(terminal_ && std::getenv("NO_COLOR") == nullptr), start_(std::chrono::steady_clock::now()), drawn_(start_) {}

TrainingProgress::~TrainingProgress() { finish(); }

double TrainingProgress::seconds_left() const {
    if (done_ <= first_) return -1;
    const double elapsed = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
    return elapsed / static_cast<double>(done_ - first_) * static_cast<double>(steps_ - done_);
}

void TrainingProgress::step(int64_t done) {
    done_ = done;
    if (!terminal_) return;
    const auto now = std::chrono::steady_clock::now();
    if (open_ && std::chrono::duration<double>(now - drawn_).count() < redraw_seconds) return;
    drawn_ = now;
    draw();
}

void TrainingProgress::record(int64_t done, const Metrics& metrics) {
    done_ = done;
    metrics_ = metrics;
    if (terminal_)
        draw();
    else
        print_to(out_, "{}\n", metrics_line(done_, steps_, metrics_, seconds_left(), widest));
    std::fflush(out_);
}

void TrainingProgress::message(const std::string& text) {
    print_to(out_, "{}{}\n", open_ ? "\r\033[K" : "", text);
    if (open_) draw();
    std::fflush(out_);
}

void TrainingProgress::finish() {
    if (open_) {
        draw();
        print_to(out_, "\n");
    }
    open_ = false;
    std::fflush(out_);
}

void TrainingProgress::draw() {
    constexpr int bar = 20;
    const double fraction = steps_ > 0 ? std::clamp(static_cast<double>(done_) / static_cast<double>(steps_), 0.0, 1.0) : 1.0;
    const int filled = static_cast<int>(fraction * bar);
    const std::string text = metrics_line(done_, steps_, metrics_, seconds_left(), terminal_columns(out_) - bar - 3);
    print_to(out_, "\r\033[K[{}{}{}{}] {}", colour_ ? "\033[32m" : "", std::string(static_cast<size_t>(filled), '#'), colour_ ? "\033[0m" : "",
               std::string(static_cast<size_t>(bar - filled), '.'), text);
    std::fflush(out_);
    open_ = true;
}

}  // namespace flanmoe

// Progress of something that takes long, on standard error: a bar with the time left on a terminal, a plain line now and then elsewhere.
#pragma once

#include <chrono>
#include <string>

namespace flanmoe {

/// "0:07", "12:34", "3:05:09".
std::string clock_text(double seconds);

class Progress {
public:
    /// `label` is what goes on ("tokenising"). `plain_seconds`: between two lines where standard error is no terminal.
    explicit Progress(std::string label, double plain_seconds = 10);
    ~Progress();
    Progress(const Progress&) = delete;

    /// `fraction` in [0, 1] is done; `note` says more ("1.2 M tokens"). Cheap to call often. The time left is estimated from the first call on.
    void update(double fraction, const std::string& note);
    /// Ends the bar; the last state stays on the screen.
    void finish();

private:
    std::string line(double fraction, const std::string& note) const;

    std::string label_;
    double plain_seconds_;
    bool terminal_, started_ = false, open_ = false;
    double first_fraction_ = 0;
    std::chrono::steady_clock::time_point start_, shown_;
};

}  // namespace flanmoe

#include "optim/schedule.hpp"

#include <algorithm>
#include <cmath>

namespace flanmoe {

double learning_rate(const OptimizerConfig& config, int64_t step, int64_t steps) {
    const double t = static_cast<double>(step), warmup = static_cast<double>(config.warmup_steps);
    if (config.schedule == Schedule::inverse_sqrt) return config.learning_rate / std::sqrt(std::max({t, warmup, 1.0}));
    if (t < warmup) return config.learning_rate * (t + 1) / warmup;
    if (config.schedule == Schedule::constant) return config.learning_rate;
    const double length = std::max(1.0, static_cast<double>(steps) - warmup);
    const double done = std::min(1.0, (t - warmup) / length);
    const double remaining = config.schedule == Schedule::linear ? 1.0 - done : 0.5 * (1.0 + std::cos(3.14159265358979323846 * done));
    return config.learning_rate * (config.final_fraction + (1.0 - config.final_fraction) * remaining);
}

}  // namespace flanmoe

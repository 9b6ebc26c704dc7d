#include "train/watch.hpp"

#include "core/log.hpp"

#include <cmath>
#include <limits>

namespace flanmoe {

namespace {
constexpr double memory = 0.98;
constexpr int64_t steps_before_spikes_count = 20;  // the mean must have settled
}  // namespace

double Watch::largest_loss(const TrainConfig& config) const {
    return config.spike_factor > 0 && applied >= steps_before_spikes_count ? config.spike_factor * mean_loss : std::numeric_limits<double>::infinity();
}

Verdict Watch::judge(const TrainConfig& config, const StepGradients& step, int64_t number) {
    const bool finite = step.finite();
    const bool spike = finite && step.loss > largest_loss(config);
    if (finite && !spike) {
        mean_loss = applied == 0 ? step.loss : memory * mean_loss + (1 - memory) * step.loss;
        ++applied;
        skipped_in_row = 0;
        return Verdict::apply;
    }
    const std::string what = finite ? fmt::format("loss {:.4g} is above {} x its running mean {:.4g}", step.loss, config.spike_factor, mean_loss)
                                    : fmt::format("loss {:.4g} or gradient norm {:.4g} is not finite or overflows", std::fabs(step.loss), std::fabs(step.gradient_norm));
    const TroublePolicy policy = finite ? config.spike : config.non_finite;
    const char* key = finite ? "train.spike" : "train.non_finite";
    if (policy == TroublePolicy::stop) fail(Exit::diverged, "step {}: {}; stopped because {} is \"stop\"; lower the learning rate or choose \"skip\" or \"rollback\"", number, what, key);
    if (policy == TroublePolicy::rollback) {
        if (++rollbacks > config.max_rollbacks) {
            fail(Exit::diverged, "step {}: {}, after {} rollbacks (train.max_rollbacks); lower the learning rate or look at the data", number, what, config.max_rollbacks);
        }
        warn("step {}: {}; going back to the last checkpoint and on with the next data", number, what);
        return Verdict::rollback;
    }
    ++skipped;
    if (++skipped_in_row > config.max_skips) {
        fail(Exit::diverged, "step {}: {}, the {}th such step in a row (train.max_skips); lower the learning rate or look at the data", number, what, skipped_in_row);
    }
    warn("step {}: {}; the step is skipped", number, what);
    return Verdict::skip;
}

}  // namespace flanmoe

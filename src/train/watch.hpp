// Judges every step: non-finite values and loss spikes, and how many were passed over in a row. A step is told beforehand which loss is a spike, and applies
// itself only if it is good (train/step.hpp), so that nothing has to wait for the host; here it is counted, and what follows is decided.
#pragma once

#include "config/config.hpp"
#include "train/step.hpp"

namespace flanmoe {

enum class Verdict : uint8_t { apply, skip, rollback };

struct Watch {
    double mean_loss = 0;      ///< exponential mean (0.98) of the losses that were applied
    int64_t applied = 0;       ///< steps applied
    int64_t skipped = 0;       ///< steps passed over, in all
    int64_t skipped_in_row = 0;
    int64_t rollbacks = 0;

    /// Largest loss of a step that is applied.
    double largest_loss(const TrainConfig& config) const;
    /// What became of a step that was made under this limit; counts it. Exit::diverged when the policy is `stop` or its limits are exhausted.
    Verdict judge(const TrainConfig& config, const StepGradients& step, int64_t number);
};

}  // namespace flanmoe

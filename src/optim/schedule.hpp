// Learning-rate schedules.
#pragma once

#include "config/config.hpp"

namespace flanmoe {

/// Rate of step t = 0, 1, ... of `steps`:
///   constant:      rate, after a linear ramp over warmup_steps
///   inverse_sqrt:  rate / sqrt(max(t, warmup_steps)), T5's: constant at first, no ramp
///   linear:        ramp, then a straight line down to rate * final_fraction at the end
///   cosine:        ramp, then half a cosine down to rate * final_fraction
double learning_rate(const OptimizerConfig& config, int64_t step, int64_t steps);

}  // namespace flanmoe

// Operations on a device beside the limits that the same run measures: matrix products and copies of memory (test/gpu/bench.sh prints what comes of it).
#pragma once

#include "core/kinds.hpp"

#include <string>

namespace flanmoe::bench {

/// One JSON line a measurement: {"name", "milliseconds", "spread": [fastest, slowest], "share", "of", "goal", "predicted_milliseconds"}, share being the rate
/// relative to what "of" names. What is compared is measured in turn. `predict` names the device of the predictions (train/step_work.hpp); `small`: sizes that the
/// simulator does in a minute.
void bench_device(Device device, const std::string& predict, bool small);

}  // namespace flanmoe::bench

// `flanmoe inspect RUN --routing`: what the routers of a run last did, layer by layer.
#pragma once

#include <filesystem>

namespace flanmoe::cli {

/// Prints the figures of every sparse layer ("encoder.1/utilization" in metrics.jsonl) of the run's last training and validation records, as tables or JSON.
/// Exit::missing_input if the path is no run that has recorded any.
void print_run_routing(const std::filesystem::path& run, bool json);

}  // namespace flanmoe::cli

// Which model a path given by a user means.
#pragma once

#include <filesystem>

namespace flanmoe {

/// A model directory (one that holds config.json) stands for itself; a run directory for its best checkpoint by the validation metric, or its newest valid one if
/// none is marked. Exit::missing_input with a remedy for anything else.
std::filesystem::path resolve_checkpoint(const std::filesystem::path& path);

}  // namespace flanmoe

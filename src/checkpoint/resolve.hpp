// Which model a path given by a user means.
#pragma once

#include <filesystem>

namespace flanmoe {

/// Exit::bad_checkpoint with the first problem if a directory has a manifest and differs from it; foreign directories, which have none, pass.
void check_intact(const std::filesystem::path& path);

/// A model directory (one that holds config.json) stands for itself; a run directory for its best checkpoint by the validation metric, or its newest valid one if
/// none is marked. Whatever has a manifest is checked against it (Exit::bad_checkpoint). Exit::missing_input with a remedy for anything else.
std::filesystem::path resolve_checkpoint(const std::filesystem::path& path);

/// The folder of a run stands for the checkpoint as above, any other path for itself, looked at by nobody yet.
std::filesystem::path resolve_run(const std::filesystem::path& path);

}  // namespace flanmoe

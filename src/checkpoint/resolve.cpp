#include "checkpoint/resolve.hpp"

#include "checkpoint/checkpoint.hpp"
#include "core/log.hpp"

namespace flanmoe {

void check_intact(const std::filesystem::path& path) {
    std::error_code error;
    if (!std::filesystem::exists(path / "manifest.json", error)) return;
    const std::vector<std::string> problems = verify_checkpoint(path);
    if (!problems.empty()) fail(Exit::bad_checkpoint, "{}; take another checkpoint, or remove {} if this change was meant", problems[0], (path / "manifest.json").string());
}

std::filesystem::path resolve_run(const std::filesystem::path& path) {
    std::error_code error;
    if (!std::filesystem::is_directory(path / "checkpoints", error) || std::filesystem::exists(path / "config.json", error)) return path;
    if (const auto best = read_best(path)) {
        const std::filesystem::path checkpoint = checkpoint_path(path, best->step);
        const std::vector<std::string> problems = verify_checkpoint(checkpoint);
        if (problems.empty()) return checkpoint;
        warn("passing over the best checkpoint {}: {}", checkpoint.string(), problems[0]);
    }
    if (const auto latest = find_latest_valid(path)) return *latest;
    fail(Exit::missing_input, "{} is a run without a checkpoint yet; train it first", path.string());
}

std::filesystem::path resolve_checkpoint(const std::filesystem::path& path) {
    std::error_code error;
    if (!std::filesystem::exists(path, error)) fail(Exit::missing_input, "{} does not exist; give a checkpoint, a Hugging Face model directory or a run directory", path.string());
    if (std::filesystem::exists(path / "config.json", error)) {
        check_intact(path);
        return path;
    }
    if (const std::filesystem::path checkpoint = resolve_run(path); checkpoint != path) return checkpoint;
    fail(Exit::missing_input, "{} holds neither config.json nor checkpoints; give a checkpoint, a Hugging Face model directory or a run directory", path.string());
}

}  // namespace flanmoe

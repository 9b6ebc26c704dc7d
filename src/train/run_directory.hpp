// The directory of a run: config.toml (resolved), metrics.jsonl, event files, checkpoints/, status.json, lock.
//
// One process at a time (a lock on the file `lock` that the kernel drops with the process, so that nothing stale can stay) and one config for ever:
// a run goes on only under the config that it began with, but for options that do not change what is learned (may_change in the option table).
// Before the first checkpoint nothing has been learned, and the config may still be corrected.
#pragma once

#include "config/config.hpp"

#include <filesystem>
#include <mutex>
#include <string>

namespace flanmoe {

struct RunStatus {
    std::string state;    ///< "running", "done", "stopped" (resumable), "failed"
    std::string message;  ///< why, for people
    int64_t step = 0, steps = 0;
    double loss = 0, seconds_left = -1;
    std::string checkpoint;  ///< newest one
};

class RunDirectory {
public:
    /// Creates the directory or takes it up again. Exit::cannot_create if it cannot be made or written, another process works in it (which one is
    /// said), it holds something else, or it belongs to another config (with the keys that differ). Options that may change are taken from `config`
    /// and written to config.toml.
    RunDirectory(const std::filesystem::path& path, const Config& config);
    /// The directory that rank 0 of this run has opened, on another rank: only the status of a failure is written there.
    RunDirectory(const std::filesystem::path& path, int rank);
    RunDirectory(const RunDirectory&) = delete;
    ~RunDirectory();

    const std::filesystem::path& path() const { return path_; }
    bool taken_up() const { return taken_up_; }  ///< the directory was there with the same config
    std::filesystem::path metrics() const { return path_ / "metrics.jsonl"; }
    std::filesystem::path config() const { return path_ / "config.toml"; }

    /// Replaces status.json, whole or not at all; a full disk is warned about once and else ignored. From any thread; "failed", of any rank, is the last word: what comes
    /// after it is not written.
    void write_status(const RunStatus& status);
    /// The status of a failure: loss, steps and checkpoint stay as they stand there.
    void write_failure(const std::string& sentence, int64_t step);

private:
    void lock();
    void take_up(const Config& config);
    bool another_failed() const;

    std::filesystem::path path_;
    int rank_ = 0;
    int lock_ = -1;
    int64_t steps_ = 0;  ///< of the config; 0 on other ranks than 0
    bool taken_up_ = false;
    double started_ = 0;

    std::mutex writing_;  ///< of what follows, and of the file
    bool warned_ = false, failed_ = false, written_ = false;
};

}  // namespace flanmoe

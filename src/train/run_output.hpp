// Where a run's figures go: the terminal, metrics.jsonl, TensorBoard and status.json.
#pragma once

#include "config/config.hpp"
#include "train/metrics.hpp"
#include "train/run_directory.hpp"

#include <filesystem>
#include <memory>
#include <string>

namespace flanmoe {

class RunOutput {
public:
    /// Goes on after `resumed_step` (0 = from the start): later records of an interrupted life are removed. The directory must outlive this.
    RunOutput(RunDirectory& run, const Config& config, int64_t resumed_step);
    ~RunOutput();
    /// A finished step: shown live, recorded every train.log_every steps.
    void step(int64_t step, const Metrics& metrics);
    void validation(int64_t step, const Metrics& metrics);
    void saved(int64_t step, const std::filesystem::path& checkpoint, double seconds, const char* why);
    /// The run went back to an earlier step: its later records are removed.
    void rewind(int64_t step);
    /// state: "done" or "stopped"; why, for people.
    void finish(const std::string& state, const std::string& why);

private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace flanmoe

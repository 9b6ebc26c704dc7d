#include "train/run_output.hpp"

#include "core/error.hpp"
#include "train/progress.hpp"
#include "train/tensorboard.hpp"

namespace flanmoe {

struct RunOutput::State {
    RunDirectory& run;
    int64_t log_every;
    bool tensorboard;
    MetricsLog metrics;
    std::unique_ptr<EventFile> events;
    TrainingProgress progress;
    RunStatus status;

    State(RunDirectory& directory, const Config& config, int64_t resumed_step)
        : run(directory), log_every(std::max<int64_t>(1, config.train.log_every)), tensorboard(config.train.tensorboard), metrics(directory.metrics(), resumed_step),
          progress(resumed_step, config.train.steps) {
        if (tensorboard) events = std::make_unique<EventFile>(run.path(), resumed_step);
        status.state = "running", status.step = resumed_step, status.steps = config.train.steps;
        run.write_status(status);
    }
    void record(std::string_view kind, int64_t step, const Metrics& values) {
        metrics.write(kind, step, values);
        if (events) events->write(kind, step, values);
    }
    void write_status() {
        status.seconds_left = progress.seconds_left();
        run.write_status(status);
    }
};

RunOutput::RunOutput(RunDirectory& run, const Config& config, int64_t resumed_step) : state_(std::make_unique<State>(run, config, resumed_step)) {}
RunOutput::~RunOutput() = default;

void RunOutput::step(int64_t step, const Metrics& metrics) {
    state_->status.step = step;
    if (step % state_->log_every == 0) {
        state_->record("train", step, metrics);
        state_->progress.record(step, metrics);
        state_->status.loss = metric(metrics, metric_name::loss);
        state_->write_status();
    }
    state_->progress.step(step);
}

void RunOutput::validation(int64_t step, const Metrics& metrics) {
    state_->record("validation", step, metrics);
    std::string text = fmt::format("step {}: validation", step);
    for (const auto& [name, value] : metrics) {
        if (name.find('/') != std::string::npos) continue;  // figures of single layers are for files
        text += fmt::format("{} {} {:.4f}", &name == &metrics.front().first ? "" : ",", name, value);
    }
    state_->progress.message(text);
}

void RunOutput::saved(int64_t step, const std::filesystem::path& checkpoint, double seconds, const char* why) {
    state_->progress.message(fmt::format("step {}: saved {} in {:.1f} s ({})", step, checkpoint.string(), seconds, why));
    state_->status.checkpoint = checkpoint.string();
    state_->write_status();
}

void RunOutput::rewind(int64_t step) {
    state_->metrics = MetricsLog(state_->run.metrics(), step);
    if (state_->tensorboard) state_->events = std::make_unique<EventFile>(state_->run.path(), step);
}

void RunOutput::finish(const std::string& state, const std::string& why) {
    state_->progress.finish();
    state_->status.state = state, state_->status.message = why;
    state_->write_status();
}

}  // namespace flanmoe

// The training loop of one stage: steps, validation, checkpoints, and what to do about trouble.
//
// A run lives in one directory and resumes by itself: the newest valid checkpoint gives weights, optimizer, data position and counters, and every number that
// is drawn is a function of the step, so a resumed run repeats the uninterrupted one bit by bit.
//
// On several ranks every one has a trainer, and all decide the same at every step: stops and timed saves are agreed on, sums over ranks are the same bits on
// all. Rank 0 writes checkpoints, metrics and status.
#pragma once

#include "comm/mesh.hpp"
#include "config/config.hpp"
#include "core/activity.hpp"
#include "data/loader.hpp"
#include "model/transformer.hpp"
#include "train/run_directory.hpp"
#include "train/signals.hpp"
#include "train/step.hpp"

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace flanmoe {

/// What a run's status says of early stopping.
inline constexpr const char* stopped_early = "stopped early";
/// Why a run ended.
enum class Ending : uint8_t {
    done,          ///< all steps made
    early,         ///< early stopping
    interrupted,   ///< signal, max_steps or max_minutes; saved, resumable (exit 75)
};

/// Measures the model on the validation set by generating: called with the model, gives named values ("exact_match", ...).
using AnswerMetrics = std::function<std::vector<std::pair<std::string, double>>(Context&, const Transformer&)>;

/// Whether a validation is better than the best one before: a larger value of eval.metric, of the loss a smaller one, by eval.min_delta at least.
bool improves(const EvalConfig& config, double value, double best);

class Trainer {
public:
    /// Opens data and model and resumes the run directory if it holds a checkpoint. `context`, of the config's device, and the others must outlive the
    /// trainer. `activity` is kept up to date with what this rank does.
    Trainer(Context& context, Config config, RunDirectory& run, Stop& stop, AnswerMetrics answer_metrics, const Mesh& mesh, Activity& activity);
    ~Trainer();
    Ending run();
    /// Measures the best checkpoint (by validation; the last one if none is marked) and writes test.json: split, step, values. Behind run() only, for the model then has
    /// that checkpoint's weights; every rank calls it.
    void test(const AnswerMetrics& measure);

private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace flanmoe

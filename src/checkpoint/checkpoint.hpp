// Checkpoints of a run: RUN/checkpoints/step-00001000/ = a Hugging Face model directory + training/ + manifest.json.
//
//   config.json model.safetensors generation_config.json spiece.model ...   the model, which transformers opens
//   training/optimizer.safetensors training/state.json training/config.toml what resuming needs besides
//   manifest.json                                                           format version, size and XXH3-128 of every file; written last
//
// A save goes to checkpoints/.tmp-step-..., everything synced, then one rename and a sync of the parent: at every moment there is either the old or
// the new checkpoint. Any failure discards the temporary directory and leaves the others alone; it is returned as a value, because training goes on.
// After a failed fsync nothing of that attempt is trusted (the kernel marks the pages clean). A directory without a valid manifest does not count;
// order is by step, never by time of modification.
#pragma once

#include "checkpoint/model_directory.hpp"

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace flanmoe {

struct TrainingState {
    std::string state_json;   ///< a JSON object of the caller's: step, stage, tokens_seen, data position, random state ...
    std::string config_toml;  ///< the resolved config
    NamedTensors optimizer;   ///< `<tensor name>.<slot>`
    Engine* engine = &host_engine();  ///< that holds them
};

struct CheckpointOptions {
    SaveModelOptions model;
    int64_t keep_last = 2;   ///< newest checkpoints that are kept (at least 1)
    int64_t keep_every = 0;  ///< checkpoints whose step is a multiple of this are kept for ever; 0 = none
};

struct SaveResult {
    bool saved = false;
    std::filesystem::path path;  ///< the checkpoint, if saved
    std::string problem;         ///< one sentence, if not saved; or, if saved, what went wrong with removing old ones
    int64_t bytes = 0;
    double seconds = 0;
    explicit operator bool() const { return saved; }
};

/// Saves a checkpoint of `step`, then removes those that retention does not keep. Never throws for what the file system does: see SaveResult.
/// A valid checkpoint of that step that is there already is replaced.
///
/// Every rank of the store's mesh calls it. Rank 0 writes, whole tensors, one after the other, to which the others give their parts; the files do not tell the
/// layout, and any other can read them. All ranks return the same result.
SaveResult save_checkpoint(const std::filesystem::path& run, int64_t step, const ModelConfig& config, const ParameterStore& store,
                           const TrainingState& state, const ExtraFiles& extra = {}, const CheckpointOptions& options = {});

/// Step and directory of every checkpoint of a run, ascending, valid or not.
std::vector<std::pair<int64_t, std::filesystem::path>> list_checkpoints(const std::filesystem::path& run);
/// The newest checkpoint whose sizes and hashes all hold; warns about each newer one that is passed over. Empty if the run has none at all;
/// Exit::bad_checkpoint if it has some but none is valid (nothing is restarted silently).
std::optional<std::filesystem::path> find_latest_valid(const std::filesystem::path& run);
/// Problems of a checkpoint, one sentence each; empty if every file has the size and hash of its manifest and no file is missing or unknown.
/// `quick` compares sizes only.
std::vector<std::string> verify_checkpoint(const std::filesystem::path& checkpoint, bool quick = false);
/// Removes what an interrupted save or removal left. To be called once when a run starts, by the process that owns the run directory.
void remove_leftovers(const std::filesystem::path& run);

/// The best checkpoint so far by a validation metric: kept by retention and named in checkpoints/best.json (written atomically).
struct BestMark {
    int64_t step = 0;
    std::string metric;
    double value = 0;
};
void mark_best(const std::filesystem::path& run, const BestMark& mark);
std::optional<BestMark> read_best(const std::filesystem::path& run);
std::filesystem::path checkpoint_path(const std::filesystem::path& run, int64_t step);

/// Exit::io if the disk of a folder has less than `needed` bytes free; passes where the system does not say.
void check_free_space(const std::filesystem::path& folder, int64_t needed);

/// The caller's state and config of a checkpoint; Exit::bad_checkpoint if it has no training state.
struct SavedState {
    std::string state_json, config_toml;
};
SavedState read_training_state(const std::filesystem::path& checkpoint);
/// Fills the views; strict: the same names and shapes, nothing missing, nothing left over (Exit::bad_checkpoint names the tensor).
void load_optimizer(const std::filesystem::path& checkpoint, const NamedTensors& into, Engine& engine = host_engine());
/// The same for another stage, which may train other parts: slots that both have are filled, others are counted and left as they are. Exit::bad_checkpoint if
/// there is no state, if it is another kind of optimizer's, if a shape differs, or if no slot fits.
struct TakenSlots {
    int64_t taken = 0, fresh = 0, unused = 0;  ///< of `into`: filled, not in the checkpoint; of the checkpoint: not in `into`
};
TakenSlots take_over_optimizer(const std::filesystem::path& checkpoint, const NamedTensors& into, Engine& engine = host_engine());

}  // namespace flanmoe

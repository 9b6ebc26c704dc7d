#include "checkpoint/checkpoint.hpp"

#include "checkpoint/hashed_file.hpp"
#include "checkpoint/json_reader.hpp"
#include "checkpoint/manifest.hpp"
#include "comm/agreement.hpp"
#include "core/file.hpp"
#include "core/log.hpp"

#include <fcntl.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <set>

namespace flanmoe {

namespace {

namespace fs = std::filesystem;

constexpr const char* temporary_prefix = ".tmp-";
constexpr const char* deleted_prefix = ".tmp-delete-";
constexpr int64_t best_limit = int64_t{1} << 16;         // bytes of best.json
constexpr int64_t small_files_bytes = int64_t{4} << 20;  // allowance for everything that is not a tensor

fs::path folder_of(const fs::path& run) { return run / "checkpoints"; }
fs::path best_path(const fs::path& run) { return folder_of(run) / "best.json"; }
std::string directory_name(int64_t step) { return fmt::format("step-{:08}", step); }

std::optional<int64_t> step_of_name(const std::string& name) {
    if (!name.starts_with("step-") || name.size() < 13 || name.size() > 23) return {};
    int64_t step = 0;
    for (const char c : name.substr(5)) {
        if (c < '0' || c > '9') return {};
        step = step * 10 + (c - '0');
    }
    return directory_name(step) == name ? std::optional(step) : std::nullopt;
}

void rename_or_fail(const fs::path& from, const fs::path& to) {
    if (std::rename(from.c_str(), to.c_str()) != 0) fail(Exit::io, "renaming {} to {} failed: {}", from.string(), to.string(), std::strerror(errno));
}

// Removes without complaint: what stays is cleared at the next start.
void discard(const fs::path& path) noexcept {
    std::error_code ignored;
    fs::remove_all(path, ignored);
}

// Takes a checkpoint away: first a rename, so that a half-removed one never looks like a checkpoint.
void remove_checkpoint(const fs::path& path) {
    const fs::path doomed = path.parent_path() / (deleted_prefix + path.filename().string());
    discard(doomed);
    rename_or_fail(path, doomed);
    std::error_code error;
    fs::remove_all(doomed, error);
    if (error) fail(Exit::io, "removing the old checkpoint {} failed: {}", path.string(), error.message());
}

int64_t bytes_needed(const ParameterStore& store, const TrainingState& state, const ExtraFiles& extra, DType weights) {
    int64_t bytes = small_files_bytes + store.parameter_count() * size_of(weights);
    for (const NamedTensor& t : state.optimizer) bytes += t.shape().elements() * size_of(store.master_type());
    for (const auto& [name, content] : extra) bytes += static_cast<int64_t>(content.size());
    return bytes + static_cast<int64_t>(state.state_json.size() + state.config_toml.size());
}

SafetensorsWriter optimizer_writer(const ParameterStore& store, const TrainingState& state, Gatherer& gather) {
    SafetensorsWriter writer;
    const bool alone = store.mesh().world().size() == 1;
    for (const NamedTensor& t : state.optimizer) {
        if (alone) writer.add(t.name, t.tensor, t.tensor.dtype, *state.engine);
        else writer.add(t.name, t.shape(), store.master_type(), [&] { return gather(t); });
    }
    return writer;
}

FileHashes save_shared_model(const fs::path& directory, const ModelConfig& config, const ParameterStore& store, Gatherer& gather, const ExtraFiles& extra,
                             const SaveModelOptions& options) {
    if (store.mesh().world().size() == 1) return save_model(directory, config, store, extra, options);
    return save_model_by_tensor(directory, config, store, [&](const Parameter& p, int64_t expert) { return gather(named_master(store, p, expert)); }, extra, options);
}

// What a rank that does not write gives to the one that does: the tensors of write_temporary(), in the same order.
void give_parts(const ModelConfig& config, const ParameterStore& store, const TrainingState& state, Gatherer& gather, SaveModelOptions options) {
    if (store.mesh().world().size() == 1) return;
    options.write = false;
    save_shared_model({}, config, store, gather, {}, options);
    optimizer_writer(store, state, gather).make_all();
}

// Everything of the checkpoint, synced, under a name that does not count.
int64_t write_temporary(const fs::path& temporary, int64_t step, const ModelConfig& config, const ParameterStore& store, const TrainingState& state,
                        Gatherer& gather, const ExtraFiles& extra, const CheckpointOptions& options) {
    discard(temporary);
    FileHashes hashes = save_shared_model(temporary, config, store, gather, extra, options.model);
    const fs::path training = temporary / "training";
    std::error_code error;
    if (!fs::create_directory(training, error)) fail(Exit::cannot_create, "cannot create the folder {}: {}", training.string(), error.message());
    const SafetensorsWriter optimizer = optimizer_writer(store, state, gather);
    hashes["training/optimizer.safetensors"] = optimizer.write(training / "optimizer.safetensors");
    hashes["training/state.json"] = write_hashed(training / "state.json", state.state_json);
    hashes["training/config.toml"] = write_hashed(training / "config.toml", state.config_toml);
    sync_directory(training);
    const int64_t bytes = write_manifest(temporary, step, hashes);
    sync_directory(temporary);
    return bytes;
}

// Gives the temporary directory its name. On failure the old state is restored as far as the file system lets us, and reported.
void commit(const fs::path& temporary, const fs::path& target) {
    const fs::path parent = target.parent_path();
    const bool replaces = fs::exists(fs::symlink_status(target));
    // Exchanging keeps a checkpoint of this step in place at every moment; file systems without it get two renames.
    const bool exchanged = replaces && ::renameat2(AT_FDCWD, temporary.c_str(), AT_FDCWD, target.c_str(), RENAME_EXCHANGE) == 0;
    if (replaces && !exchanged) {
        if (errno != EINVAL && errno != ENOSYS)
            fail(Exit::io, "exchanging {} with {} failed: {}", temporary.string(), target.string(), std::strerror(errno));
        const fs::path aside = parent / (deleted_prefix + target.filename().string());
        discard(aside);
        rename_or_fail(target, aside);
        if (std::rename(temporary.c_str(), target.c_str()) != 0) {
            const int reason = errno;
            std::rename(aside.c_str(), target.c_str());
            fail(Exit::io, "renaming {} to {} failed: {}", temporary.string(), target.string(), std::strerror(reason));
        }
        discard(aside);
    }
    if (!replaces) rename_or_fail(temporary, target);
    try {
        sync_directory(parent);
    } catch (...) {
        // Whether the new name would survive a power loss is unknown: it must not count.
        if (exchanged)
            ::renameat2(AT_FDCWD, temporary.c_str(), AT_FDCWD, target.c_str(), RENAME_EXCHANGE);
        else
            std::rename(target.c_str(), temporary.c_str());
        throw;
    }
    if (exchanged) discard(temporary);  // what was there before
}

// Checkpoints newer than `step` are none of ours: whoever went back behind them will reach their steps again and replace them.
void apply_retention(const fs::path& run, int64_t step, const CheckpointOptions& options) {
    const std::optional<BestMark> best = read_best(run);
    std::vector<std::pair<int64_t, fs::path>> old = list_checkpoints(run);
    std::erase_if(old, [&](const auto& entry) { return entry.first > step; });
    const int64_t keep = std::max<int64_t>(1, options.keep_last);
    for (size_t i = 0; static_cast<int64_t>(i) + keep < static_cast<int64_t>(old.size()); ++i) {
        const auto& [number, path] = old[i];
        if ((options.keep_every > 0 && number % options.keep_every == 0) || (best && best->step == number)) continue;
        remove_checkpoint(path);
    }
}

}  // namespace

void check_free_space(const fs::path& folder, int64_t needed) {
    struct statvfs status {};
    if (::statvfs(folder.c_str(), &status) != 0) return;  // unknown: the writes will tell
    const int64_t available = static_cast<int64_t>(status.f_bavail) * static_cast<int64_t>(status.f_frsize);
    if (available < needed)
        fail(Exit::io, "the disk of {} has {:.1f} MB free but {:.1f} MB are needed; free some space", folder.string(),
             static_cast<double>(available) / 1e6, static_cast<double>(needed) / 1e6);
}

fs::path checkpoint_path(const fs::path& run, int64_t step) { return folder_of(run) / directory_name(step); }

namespace {

// On the rank that writes. What fails before all parts are here is thrown once they are: the others give theirs whatever happens.
void write_checkpoint(const fs::path& run, int64_t step, const ModelConfig& config, const ParameterStore& store, const TrainingState& state, const ExtraFiles& extra,
                      const CheckpointOptions& options, SaveResult& result) {
    const fs::path temporary = folder_of(run) / (temporary_prefix + directory_name(step));
    Gatherer gather(store);
    try {
        fs::create_directories(folder_of(run));
        check_free_space(folder_of(run), bytes_needed(store, state, extra, options.model.weights));
        result.bytes = write_temporary(temporary, step, config, store, state, gather, extra, options);
    } catch (const SharedError&) {
        discard(temporary);
        throw;
    } catch (...) {
        discard(temporary);
        gather.repeat();
        give_parts(config, store, state, gather, options.model);
        throw;
    }
    try {
        commit(temporary, checkpoint_path(run, step));
    } catch (...) {
        discard(temporary);
        throw;
    }
    result.saved = true;
    result.path = checkpoint_path(run, step);
    apply_retention(run, step, options);
}

// Every rank gets what rank 0 found.
void share_result(Communicator& world, SaveResult& result) {
    if (world.size() == 1) return;
    result.saved = broadcast_text(world, result.saved ? "saved" : "") == "saved";
    result.path = broadcast_text(world, result.path.string());
    result.problem = broadcast_text(world, result.problem);
    result.bytes = std::stoll(broadcast_text(world, std::to_string(result.bytes)));
}

}  // namespace

SaveResult save_checkpoint(const fs::path& run, int64_t step, const ModelConfig& config, const ParameterStore& store, const TrainingState& state,
                           const ExtraFiles& extra, const CheckpointOptions& options) {
    require(step >= 0, "a step of zero or more");
    const auto start = std::chrono::steady_clock::now();
    SaveResult result;
    Communicator& world = store.mesh().world();
    if (world.rank() == 0) {
        try {
            write_checkpoint(run, step, config, store, state, extra, options, result);
        } catch (const Error& error) {
            const bool file_system = error.code == Exit::io || error.code == Exit::cannot_create || error.code == Exit::missing_input;
            if (!result.saved && !file_system) throw;
            result.problem = error.what();
        } catch (const fs::filesystem_error& error) {
            result.problem = error.what();
        }
    } else {
        Gatherer gather(store);
        give_parts(config, store, state, gather, options.model);
    }
    share_result(world, result);
    result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return result;
}

std::vector<std::pair<int64_t, fs::path>> list_checkpoints(const fs::path& run) {
    std::vector<std::pair<int64_t, fs::path>> found;
    std::error_code error;
    for (fs::directory_iterator entry(folder_of(run), error), end; !error && entry != end; entry.increment(error))
        if (const std::optional<int64_t> step = step_of_name(entry->path().filename().string())) found.emplace_back(*step, entry->path());
    if (error && error != std::errc::no_such_file_or_directory)
        fail(Exit::io, "reading the folder {} failed: {}", folder_of(run).string(), error.message());
    std::sort(found.begin(), found.end());
    return found;
}

std::optional<fs::path> find_latest_valid(const fs::path& run) {
    const std::vector<std::pair<int64_t, fs::path>> all = list_checkpoints(run);
    for (auto entry = all.rbegin(); entry != all.rend(); ++entry) {
        const std::vector<std::string> problems = verify_checkpoint(entry->second);
        if (problems.empty()) return entry->second;
        warn("passing over the checkpoint {}: {}{}", entry->second.string(), problems[0],
             problems.size() > 1 ? fmt::format(" (and {} more problems)", problems.size() - 1) : "");
    }
    if (all.empty()) return {};
    fail(Exit::bad_checkpoint, "none of the {} checkpoints in {} is valid; remove that folder to start anew", all.size(), folder_of(run).string());
}

void remove_leftovers(const fs::path& run) {
    std::vector<fs::path> leftovers;
    std::error_code error;
    for (fs::directory_iterator entry(folder_of(run), error), end; !error && entry != end; entry.increment(error))
        if (entry->path().filename().string().starts_with(temporary_prefix)) leftovers.push_back(entry->path());
    for (const fs::path& path : leftovers) {
        fs::remove_all(path, error);
        if (error) warn("cannot remove {}, which an interrupted save left: {}", path.string(), error.message());
    }
}

void mark_best(const fs::path& run, const BestMark& mark) {
    Json json;
    json["step"] = mark.step;
    json["metric"] = mark.metric;
    json["value"] = mark.value;
    write_file_atomically(best_path(run), json.dump(2) + "\n");
}

std::optional<BestMark> read_best(const fs::path& run) {
    const fs::path path = best_path(run);
    if (!fs::exists(path)) return {};
    const std::string where = path.string();
    const ParsedJson json = parse_json_object(read_file(path, best_limit), where);
    const JsonReader reader(json, where);
    BestMark mark;
    mark.step = reader.integer("step", 0, int64_t{1} << 60);
    mark.metric = reader.text("metric", "");
    mark.value = reader.number("value", -1e300, 1e300, 0);
    return mark;
}

SavedState read_training_state(const fs::path& checkpoint) {
    const fs::path folder = checkpoint / "training";
    if (!fs::exists(folder / "state.json"))
        fail(Exit::bad_checkpoint, "{} has no training state; it is a model, not a checkpoint that can be resumed", checkpoint.string());
    return {read_file(folder / "state.json"), read_file(folder / "config.toml")};
}

void load_optimizer(const fs::path& checkpoint, const NamedTensors& into, Engine& engine) {
    const SafetensorsFile file(checkpoint / "training" / "optimizer.safetensors");
    std::set<std::string_view> wanted;
    for (const NamedTensor& t : into) {
        read_part(file, file.at(t.name), engine, t);
        wanted.insert(t.name);
    }
    for (const TensorEntry& entry : file.entries())
        if (!wanted.count(entry.name))
            fail(Exit::bad_checkpoint, "{}: the state {:?} belongs to nothing that the optimizer keeps; resume with the optimizer that wrote it",
                 file.path().string(), entry.name);
}

TakenSlots take_over_optimizer(const fs::path& checkpoint, const NamedTensors& into, Engine& engine) {
    const fs::path path = checkpoint / "training" / "optimizer.safetensors";
    if (!fs::exists(path))
        fail(Exit::bad_checkpoint, "{} holds no optimizer state to go on with; set train.reset_optimizer = true, or start from a checkpoint", checkpoint.string());
    const SafetensorsFile file(path);
    const auto tensor_of = [](std::string_view slot) { return slot.substr(0, slot.rfind('.')); };
    std::set<std::string_view> known;  // tensors that have state
    for (const TensorEntry& entry : file.entries()) known.insert(tensor_of(entry.name));
    TakenSlots slots;
    for (const NamedTensor& t : into) {
        const std::string& name = t.name;
        const TensorEntry* entry = file.find(name);
        if (!entry && known.count(tensor_of(name)))
            fail(Exit::bad_checkpoint, "{} holds no {} but other state of that tensor: it is of another kind of optimizer; use that one, or set train.reset_optimizer = true", path.string(), name);
        if (entry) read_part(file, *entry, engine, t);
        ++(entry ? slots.taken : slots.fresh);
    }
    slots.unused = static_cast<int64_t>(file.entries().size()) - slots.taken;
    if (slots.taken == 0)
        fail(Exit::bad_checkpoint, "{} holds no state of any tensor that this run trains; set train.reset_optimizer = true", path.string());
    return slots;
}

}  // namespace flanmoe

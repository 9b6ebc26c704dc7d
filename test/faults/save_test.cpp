// Every file operation of a save is made to fail once, fail from there on, write half, or be the last thing the process did.
//
// For k = 1, 2, ... a child process with the preloaded shim saves steps 2 and 3 over a run whose step 1 is good; the k-th operation is hit. Until k
// is beyond the last operation, afterwards: a valid checkpoint is found, holds the weights of its step, nothing invalid looks like a checkpoint, and
// the next save works. The child is this same program, run for one skipped test case.
#include "checkpoint/checkpoint.hpp"
#include "checkpoint/manifest.hpp"
#include "checkpoint/small_store.hpp"
#include "checkpoint/temporary_folder.hpp"
#include "core/file.hpp"

#include <doctest/doctest.h>

#include <spawn.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>

using namespace flanmoe;
namespace fs = std::filesystem;

namespace {

SaveResult save(const fs::path& run, int64_t step) {
    ParameterStore store;
    fill_small_store(store, 1);
    store.master(store.records()[0]).as<float>()[0] = static_cast<float>(step);
    HostTensor slot(DType::f32, {5});
    std::fill(slot.as<float>(), slot.as<float>() + 5, static_cast<float>(step));
    CheckpointOptions options;
    options.keep_last = 1;  // so that removing the previous one is part of every save
    return save_checkpoint(run, step, small_config(), store, {fmt::format("{}", step), "x = 1\n", {{"a.v", slot.view()}}}, {}, options);
}

// Step of the newest valid checkpoint; its content must be that of its step, and every other checkpoint must be valid too.
int64_t check_run(const fs::path& run) {
    for (const auto& [step, path] : list_checkpoints(run)) CHECK(verify_checkpoint(path).empty());
    const std::optional<fs::path> found = find_latest_valid(run);
    REQUIRE(found);
    const int64_t step = read_manifest(*found).step;
    ParameterStore store;
    fill_small_store(store, 9);
    load_model(*found, store);
    CHECK(store.master(store.records()[0]).as<float>()[0] == static_cast<float>(step));
    CHECK(read_training_state(*found).state_json == std::to_string(step));
    return step;
}

struct Child {
    bool killed = false, fired = false;
    int64_t saved = 0;  // bit s: the save of step s reported success
};

Child run_child(const fs::path& folder, const std::string& kind, int64_t at) {
    const fs::path program = fs::read_symlink("/proc/self/exe"), shim = program.parent_path() / "faults.so";
    REQUIRE_MESSAGE(fs::exists(shim), "build/faults.so is built together with the tests");
    fs::remove(folder / "fired"), fs::remove(folder / "saved");
    const std::vector<std::string> variables = {"LD_PRELOAD=" + shim.string(),
                                                "ASAN_OPTIONS=verify_asan_link_order=0:detect_leaks=0",
                                                "OMP_NUM_THREADS=1",
                                                "FAULT_UNDER=" + (folder / "run").string(),
                                                "FAULT_AT=" + std::to_string(at),
                                                "FAULT_KIND=" + kind,
                                                "FAULT_LOG=" + (folder / "fired").string(),
                                                "FAULT_FOLDER=" + folder.string()};
    std::vector<char*> environment;
    for (const std::string& v : variables) environment.push_back(const_cast<char*>(v.c_str()));
    environment.push_back(nullptr);
    std::vector<std::string> words = {program.string(), "--no-skip", "--test-suite=faults/child", "--minimal"};
    std::vector<char*> arguments;
    for (std::string& w : words) arguments.push_back(w.data());
    arguments.push_back(nullptr);
    pid_t child = 0;
    REQUIRE(posix_spawn(&child, program.c_str(), nullptr, nullptr, arguments.data(), environment.data()) == 0);
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    Child result;
    result.killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    result.fired = fs::exists(folder / "fired");
    if (!result.killed) {
        CHECK(WIFEXITED(status));
        CHECK(WEXITSTATUS(status) == 0);
        result.saved = std::stoll(read_file(folder / "saved"));
    }
    return result;
}

// Every `stride`-th k for one kind of fault; returns how many were hit.
int64_t sweep(const std::string& kind, int64_t stride = 1) {
    // In memory where that is possible: thousands of syncs are made.
    const fs::path parent = ::access("/dev/shm", W_OK) == 0 ? fs::path("/dev/shm") : fs::temp_directory_path();
    int64_t hits = 0;
    for (int64_t at = 1;; at += stride) {
        const TemporaryFolder folder(parent);
        const fs::path run = folder / "run";
        REQUIRE(save(run, 1));
        const Child child = run_child(folder.path(), kind, at);
        CAPTURE(kind);
        CAPTURE(child.fired ? read_file(folder / "fired") : std::string("not fired"));
        const int64_t step = check_run(run);
        const bool saved_2 = child.saved & 4, saved_3 = child.saved & 8;
        if (!child.killed) {
            // If a rename cannot be taken back after its sync failed, the new checkpoint is there although its save was reported as failed.
            const int64_t reported = saved_3 ? 3 : saved_2 ? 2 : 1;
            CHECK((step == reported || (kind == "eio+" && step == reported + 1)));
            if (kind == "half" || !child.fired) CHECK(child.saved == 12);
            if (kind == "eio" || kind == "enospc") CHECK((saved_2 || saved_3));  // a fault once costs at most one save
        }
        CHECK(child.killed == (child.fired && kind.starts_with("kill")));
        remove_leftovers(run);
        REQUIRE(save(run, 4));
        CHECK(check_run(run) == 4);
        CHECK(list_checkpoints(run).size() == 1);
        size_t entries = 0;
        for ([[maybe_unused]] const auto& entry : fs::directory_iterator(run / "checkpoints")) ++entries;
        CHECK(entries == 1);
        if (!child.fired) return hits;
        ++hits;
    }
}

}  // namespace

TEST_SUITE("faults/child") {
    TEST_CASE("saves steps 2 and 3 of a run under the shim" * doctest::skip()) {
        const char* folder = std::getenv("FAULT_FOLDER");
        if (!folder) return;
        int64_t saved = 0;
        for (const int64_t step : {2, 3})
            if (save(fs::path(folder) / "run", step)) saved |= int64_t{1} << step;
        write_file_atomically(fs::path(folder) / "saved", std::to_string(saved));
    }
}

TEST_SUITE("faults/save") {
    TEST_CASE("an operation that fails costs one save at most") {
        const int64_t operations = sweep("eio");
        CHECK(operations > 60);  // two saves: 7 files opened, written and synced, folders, renames, removals
        CHECK(sweep("enospc", 2) == (operations + 1) / 2);  // the same path as eio
        CHECK(sweep("half", 4) == (operations + 3) / 4);    // concerns writes only
    }
    TEST_CASE("a disk that stays full or broken costs no checkpoint that was there") {
        sweep("enospc+", 2);
        sweep("eio+", 3);
    }
    TEST_CASE("a kill at any operation leaves the old or the new checkpoint") {
        const int64_t operations = sweep("kill");
        CHECK(sweep("kill-after", 3) == (operations + 2) / 3);
    }
}

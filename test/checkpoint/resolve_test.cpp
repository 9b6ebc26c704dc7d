// Which model a path means: model directory, checkpoint, run with and without a mark of the best.
#include "checkpoint/resolve.hpp"

#include "checkpoint/checkpoint.hpp"
#include "checkpoint/small_store.hpp"
#include "checkpoint/temporary_folder.hpp"
#include "core/file.hpp"

#include <doctest/doctest.h>

using namespace flanmoe;
namespace fs = std::filesystem;

namespace {

void save(const fs::path& run, int64_t step) {
    ParameterStore store;
    fill_small_store(store, static_cast<uint64_t>(step));
    CheckpointOptions options;
    options.keep_last = 10;
    REQUIRE(save_checkpoint(run, step, small_config(), store, {"{}", "", {}}, {}, options));
}

/// The sentence with which a path is refused.
std::string refusal(const fs::path& path) {
    try {
        resolve_checkpoint(path);
    } catch (const Error& error) {
        CHECK(error.code == Exit::missing_input);
        return error.what();
    }
    return "";
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_SUITE("checkpoint/resolve") {
    TEST_CASE("a model directory and a checkpoint stand for themselves") {
        TemporaryFolder folder;
        ParameterStore store;
        fill_small_store(store, 1);
        save_model(folder / "model", small_config(), store);
        CHECK(resolve_checkpoint(folder / "model") == folder / "model");
        save(folder / "run", 10);
        const fs::path checkpoint = checkpoint_path(folder / "run", 10);
        CHECK(resolve_checkpoint(checkpoint) == checkpoint);
    }

    TEST_CASE("a run stands for its newest checkpoint, or for its best one where one is marked") {
        TemporaryFolder folder;
        const fs::path run = folder / "run";
        for (const int64_t step : {10, 20, 30}) save(run, step);
        CHECK(resolve_checkpoint(run) == checkpoint_path(run, 30));
        mark_best(run, {20, "loss", 1.5});
        CHECK(resolve_checkpoint(run) == checkpoint_path(run, 20));
        CHECK(resolve_run(run) == checkpoint_path(run, 20));
    }

    TEST_CASE("for inspection only a run stands for something else; whatever else there is is looked at as it is") {
        TemporaryFolder folder;
        save(folder / "run", 10);
        const fs::path checkpoint = checkpoint_path(folder / "run", 10);
        fs::resize_file(checkpoint / "model.safetensors", 100);
        CHECK(resolve_run(checkpoint) == checkpoint);
        CHECK(resolve_run(folder / "nothing") == folder / "nothing");
        CHECK_THROWS_AS(resolve_run(folder / "run"), Error);  // its only checkpoint is damaged
    }

    TEST_CASE("a damaged checkpoint is passed over") {
        TemporaryFolder folder;
        const fs::path run = folder / "run";
        for (const int64_t step : {10, 20, 30}) save(run, step);
        mark_best(run, {20, "loss", 1.5});
        fs::resize_file(checkpoint_path(run, 20) / "model.safetensors", 100);
        CHECK(resolve_checkpoint(run) == checkpoint_path(run, 30));
        fs::resize_file(checkpoint_path(run, 30) / "model.safetensors", 100);
        CHECK(resolve_checkpoint(run) == checkpoint_path(run, 10));
    }

    TEST_CASE("anything else is refused with what is expected") {
        TemporaryFolder folder;
        CHECK(contains(refusal(folder / "nothing"), "does not exist"));
        CHECK(contains(refusal(folder.path()), "neither config.json nor checkpoints"));
        fs::create_directories(folder / "run/checkpoints");
        CHECK(contains(refusal(folder / "run"), "without a checkpoint yet"));
        OutputFile file(folder / "file");
        file.write("x");
        file.close(false);
        CHECK(contains(refusal(folder / "file"), "neither config.json nor checkpoints"));
    }
}

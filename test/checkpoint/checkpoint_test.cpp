// Checkpoints: round trip, verification of every byte, fallback, retention, leftovers. Failing system calls are in test/faults/.
#include "checkpoint/checkpoint.hpp"

#include "checkpoint/manifest.hpp"
#include "checkpoint/small_store.hpp"
#include "checkpoint/temporary_folder.hpp"
#include "core/file.hpp"

#include <doctest/doctest.h>

#include <sys/stat.h>

using namespace flanmoe;
namespace fs = std::filesystem;

namespace {

struct Run {
    TemporaryFolder folder;
    ParameterStore store;
    HostTensor slot{DType::f32, {5, 6}}, counter{DType::i64, {}};

    Run() {
        fill_small_store(store, 1);
        for (int i = 0; i < 30; ++i) slot.as<float>()[i] = 0.25f * static_cast<float>(i);
        counter.as<int64_t>()[0] = 12345678901;
    }
    const fs::path& path() const { return folder.path(); }
    TrainingState state(int64_t step) const {
        return {fmt::format(R"({{"step": {}}})", step), "[model]\n", {{"shared.weight.v", slot.view()}, {"step", counter.view()}}};
    }
    SaveResult save(int64_t step, const CheckpointOptions& options = {}) {
        store.master(store.records()[0]).as<float>()[0] = static_cast<float>(step);
        return save_checkpoint(path(), step, small_config(), store, state(step), {{"spiece.model", "x"}}, options);
    }
    std::vector<int64_t> steps() const {
        std::vector<int64_t> found;
        for (const auto& [step, path] : list_checkpoints(path())) found.push_back(step);
        return found;
    }
    int64_t latest() const {
        const auto found = find_latest_valid(path());
        return found ? read_manifest(*found).step : -1;
    }
};

void flip(const fs::path& path, int64_t byte) {
    std::string bytes = read_file(path);
    bytes[static_cast<size_t>(byte)] ^= 4;
    OutputFile file(path);
    file.write(bytes);
    file.close(false);
}

using Steps = std::vector<int64_t>;

}  // namespace

TEST_SUITE("checkpoint/checkpoint") {
    TEST_CASE("what is saved is loaded: weights, optimizer, state") {
        Run run;
        CHECK_FALSE(find_latest_valid(run.path()));
        const SaveResult saved = run.save(7);
        REQUIRE_MESSAGE(saved, saved.problem);
        CHECK(saved.path == checkpoint_path(run.path(), 7));
        CHECK(saved.path.filename() == "step-00000007");
        CHECK(saved.bytes > 0);
        CHECK(find_latest_valid(run.path()) == saved.path);
        ParameterStore store;
        fill_small_store(store, 5);
        load_model(saved.path, store);
        CHECK(equal_weights(run.store, store));
        const SavedState state = read_training_state(saved.path);
        CHECK(state.state_json == run.state(7).state_json);
        CHECK(state.config_toml == "[model]\n");

        HostTensor slot(DType::f32, {5, 6}), counter(DType::i64, {});
        load_optimizer(saved.path, {{"shared.weight.v", slot.view()}, {"step", counter.view()}});
        CHECK(std::equal(slot.as<float>(), slot.as<float>() + 30, run.slot.as<float>()));
        CHECK(counter.as<int64_t>()[0] == 12345678901);
        CHECK_THROWS_AS(load_optimizer(saved.path, {{"shared.weight.v", slot.view()}}), Error);
        CHECK_THROWS_AS(load_optimizer(saved.path, {{"shared.weight.v", slot.view()}, {"step", counter.view()}, {"more", counter.view()}}), Error);
        CHECK_THROWS_AS(load_optimizer(saved.path, {{"shared.weight.v", run.store.master(run.store.records()[0])}, {"step", counter.view()}}), Error);
    }

    TEST_CASE("a changed byte anywhere, a cut, a missing or foreign file: not valid, and the one before is taken") {
        Run run;
        run.save(1);
        const fs::path good = run.save(2).path;
        for (const fs::directory_entry& entry : fs::recursive_directory_iterator(good)) {
            if (!entry.is_regular_file()) continue;
            const int64_t size = static_cast<int64_t>(entry.file_size());
            CAPTURE(entry.path().string());
            const bool manifest = entry.path().filename() == "manifest.json";
            for (int64_t byte = 0; byte < size; byte += std::max<int64_t>(1, size / 40)) {
                flip(entry.path(), byte);
                CHECK(!verify_checkpoint(good).empty());
                CHECK(verify_checkpoint(good, true).empty() != manifest);  // sizes alone do not tell, but the manifest judges itself
                flip(entry.path(), byte);
            }
            fs::resize_file(entry.path(), static_cast<uintmax_t>(size - 1));
            CHECK(!verify_checkpoint(good).empty());
            CHECK(run.latest() == 1);
            REQUIRE(run.save(2));
            fs::rename(entry.path(), good / "aside");
            CHECK(!verify_checkpoint(good).empty());
            fs::rename(good / "aside", entry.path());
            CHECK(run.latest() == 2);
        }
        write_file_atomically(good / "model.safetensors.index.json", "{}");
        CHECK(!verify_checkpoint(good).empty());
        fs::remove(good / "model.safetensors.index.json");
        write_file_atomically(good / "README.md", "notes of the user");
        CHECK(verify_checkpoint(good).empty());
    }

    TEST_CASE("only invalid checkpoints: refused, not restarted") {
        Run run;
        fs::remove(run.save(3).path / "manifest.json");
        CHECK_THROWS_AS(find_latest_valid(run.path()), Error);
    }

    TEST_CASE("a manifest of a newer format, or one that names files elsewhere, is refused") {
        Run run;
        const fs::path path = run.save(3).path / "manifest.json";
        const std::string text = read_file(path);
        const auto with = [&](const std::string& from, const std::string& to) {
            std::string changed = text;
            changed.replace(changed.find(from), from.size(), to);
            write_file_atomically(path, changed);
            return verify_checkpoint(path.parent_path()).size();
        };
        CHECK(with("\"version\": 1", "\"version\": 2") == 1);
        CHECK(with("\"version\": 1", "\"version\": \"1\"") == 1);
        CHECK(with("\"spiece.model\"", "\"../spiece.model\"") == 1);
        CHECK(with("\"spiece.model\"", "\"/etc/passwd\"") == 1);
        CHECK(with("\"format\"", "\"format\"") == 0);
    }

    TEST_CASE("retention: the last, every M-th, the best") {
        Run run;
        CheckpointOptions options;
        options.keep_last = 2, options.keep_every = 40;
        for (int64_t step = 10; step <= 100; step += 10) {
            REQUIRE(run.save(step, options));
            if (step == 30) mark_best(run.path(), {30, "loss", 1.5});
        }
        CHECK(run.steps() == Steps{30, 40, 80, 90, 100});
        CHECK(read_best(run.path())->value == 1.5);
        mark_best(run.path(), {100, "loss", 1.25});
        options.keep_last = 1;
        REQUIRE(run.save(110, options));
        CHECK(run.steps() == Steps{40, 80, 100, 110});
        // Going back: newer checkpoints are not touched, and do not push out the new one.
        REQUIRE(run.save(50, options));
        CHECK(run.steps() == Steps{40, 50, 80, 100, 110});
    }

    TEST_CASE("saving a step again replaces its checkpoint") {
        Run run;
        run.save(5);
        flip(checkpoint_path(run.path(), 5) / "config.json", 3);
        REQUIRE(run.save(5));
        CHECK(run.latest() == 5);
        CHECK(run.steps() == Steps{5});
    }

    TEST_CASE("leftovers count for nothing and are removed") {
        Run run;
        run.save(5);
        const fs::path folder = run.path() / "checkpoints";
        fs::copy(checkpoint_path(run.path(), 5), folder / ".tmp-step-00000009", fs::copy_options::recursive);
        fs::copy(checkpoint_path(run.path(), 5), folder / ".tmp-delete-step-00000004", fs::copy_options::recursive);
        fs::create_directory(folder / "step-9");
        CHECK(run.steps() == Steps{5});
        remove_leftovers(run.path());
        CHECK_FALSE(fs::exists(folder / ".tmp-step-00000009"));
        CHECK_FALSE(fs::exists(folder / ".tmp-delete-step-00000004"));
        CHECK(run.latest() == 5);
    }

    TEST_CASE("a folder that cannot be written is a problem, not the end") {
        Run run;
        run.save(5);
        OutputFile(run.path() / "checkpoints" / ".tmp-step-00000006").close(false);  // a file in the way is cleared
        CHECK(run.save(6));
        Run other;
        OutputFile(other.path() / "checkpoints").close(false);
        const SaveResult result = other.save(1);
        CHECK_FALSE(result);
        CHECK(result.problem.find("checkpoints") != std::string::npos);
    }
}

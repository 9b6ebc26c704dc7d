#include "train/run_directory.hpp"

#include "core/error.hpp"
#include "core/file.hpp"
#include "train/temporary_directory.hpp"

#include <doctest/doctest.h>

#include <unistd.h>

#include <fstream>
#include <thread>
#include <vector>

using namespace flanmoe;

namespace {

std::string refusal(const std::filesystem::path& path, const Config& config) {
    try {
        RunDirectory run(path, config);
    } catch (const Error& error) {
        CHECK(error.code == Exit::cannot_create);
        return error.what();
    }
    return "";
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_SUITE("train/run_directory") {
    TEST_CASE("a run is created, holds its config, and goes on under the same one") {
        test::TemporaryDirectory folder;
        const auto path = folder.path / "runs" / "a b";
        Config config;
        {
            RunDirectory run(path, config);
            CHECK_FALSE(run.taken_up());
            CHECK(to_toml(parse_config(read_file(run.config()), "config.toml")) == to_toml(config));
        }
        config.train.steps = 77;  // may change
        RunDirectory run(path, config);
        CHECK(run.taken_up());
        CHECK(contains(read_file(run.config()), "steps = 77"));
    }

    TEST_CASE("where and how fast it runs, and how much of a step it holds at once, may change: another machine may go on") {
        test::TemporaryDirectory folder;
        Config config;
        { RunDirectory run(folder.path, config); }
        std::filesystem::create_directories(folder.path / "checkpoints" / "step-00000010");
        const std::vector<std::string> changes = {"train.device=cuda", "train.threads=3", "train.cuda_graph=false", "train.recompute=full", "data.micro_batch_rows=16", "data.prefetch=5",
                                                  "data.cache=elsewhere", "parallel.data=2", "parallel.expert=2", "parallel.tensor=2", "parallel.sequence=true", "parallel.exchange_chunks=1",
                                                  "parallel.shard_optimizer=true"};
        for (const std::string& change : changes) {
            CAPTURE(change);
            CHECK(refusal(folder.path, override_config(config, {change})).empty());
        }
    }

    TEST_CASE("another config is refused with the keys that differ, and nothing is written") {
        test::TemporaryDirectory folder;
        Config config;
        { RunDirectory run(folder.path, config); }
        const std::string before = read_file(folder.path / "config.toml");
        std::filesystem::create_directories(folder.path / "checkpoints" / "step-00000010");
        config.model.d_model = 640;
        config.train.steps = 5;
        const std::string sentence = refusal(folder.path, config);
        CHECK(contains(sentence, "model.d_model was 512 and is 640"));
        CHECK_FALSE(contains(sentence, "train.steps"));
        CHECK(read_file(folder.path / "config.toml") == before);
        CHECK(refusal(folder.path, Config{}).empty());  // the refused try left no lock
    }

    TEST_CASE("before the first checkpoint the config may be corrected") {
        test::TemporaryDirectory folder;
        Config config;
        { RunDirectory run(folder.path, config); }
        config.model.d_model = 640;
        RunDirectory run(folder.path, config);
        CHECK_FALSE(run.taken_up());
        CHECK(contains(read_file(run.config()), "d_model = 640"));
    }

    TEST_CASE("two runs in one directory are refused, the owner is named, the lock goes with it") {
        test::TemporaryDirectory folder;
        {
            RunDirectory first(folder.path, Config{});
            CHECK(contains(refusal(folder.path, Config{}), "process " + std::to_string(::getpid())));
        }
        CHECK(refusal(folder.path, Config{}).empty());
    }

    TEST_CASE("a directory with checkpoints but no config, and a file, are refused") {
        test::TemporaryDirectory folder;
        std::filesystem::create_directories(folder.path / "checkpoints");
        CHECK(contains(refusal(folder.path, Config{}), "no config.toml"));
        std::ofstream(folder.path / "file") << "x";
        CHECK(contains(refusal(folder.path / "file", Config{}), "cannot create the run directory"));
    }

    TEST_CASE("a failure is the last word, and keeps what was known") {
        test::TemporaryDirectory folder;
        Config config;
        config.train.steps = 10;
        RunDirectory run(folder.path, config);
        run.write_status({.state = "running", .message = "", .step = 5, .steps = 10, .loss = 1.5, .seconds_left = -1, .checkpoint = "checkpoints/step-00000004"});
        run.write_failure("rank 1 has ended", 7);
        run.write_status({.state = "running", .message = "", .step = 6});
        run.write_failure("rank 2 has ended", 8);
        const std::string text = read_file(folder.path / "status.json");
        for (const char* part : {"\"state\": \"failed\"", "\"message\": \"rank 1 has ended\"", "\"step\": 7", "\"steps\": 10", "\"loss\": 1.5", "\"checkpoint\": \"checkpoints/step-00000004\""}) {
            CAPTURE(part);
            CHECK(contains(text, part));
        }
    }

    TEST_CASE("a failure that another rank tells stays, and the next life begins anew") {
        test::TemporaryDirectory folder;
        const auto is = [&](const char* state) { return contains(read_file(folder.path / "status.json"), fmt::format("\"state\": \"{}\"", state)); };
        {
            RunDirectory run(folder.path, Config{});
            run.write_status({.state = "running", .message = "", .step = 5});
            RunDirectory(folder.path, 1).write_failure("rank 0 has been stopped", 5);
            run.write_status({.state = "running", .message = "", .step = 6});  // rank 0, woken
            CHECK(is("failed"));
        }
        RunDirectory next(folder.path, Config{});
        next.write_status({.state = "running", .message = "", .step = 5});
        CHECK(is("running"));
        next.write_status({.state = "done", .message = "", .step = 10});
        CHECK(is("done"));
    }

    TEST_CASE("threads may write at once") {
        test::TemporaryDirectory folder;
        RunDirectory run(folder.path, Config{});
        std::vector<std::thread> writers;
        for (int t = 0; t < 4; ++t)
            writers.emplace_back([&, t] {
                for (int i = 0; i < 20; ++i) run.write_status({.state = "running", .message = std::string(static_cast<size_t>(1000 * (t + 1)), 'x')});
            });
        for (std::thread& writer : writers) writer.join();
        const std::string text = read_file(folder.path / "status.json");
        CHECK((text.starts_with("{") && text.ends_with("}\n")));
    }

    TEST_CASE("status.json is replaced whole") {
        test::TemporaryDirectory folder;
        RunDirectory run(folder.path, Config{});
        run.write_status({.state = "running", .message = "", .step = 5, .steps = 10, .loss = 1.0 / 0.0, .seconds_left = 12.4, .checkpoint = "checkpoints/\xff"});
        const std::string text = read_file(folder.path / "status.json");
        CHECK(contains(text, "\"state\": \"running\""));
        CHECK(contains(text, "\"loss\": null"));
        CHECK(contains(text, "\"seconds_left\": 12.0"));
        CHECK_FALSE(std::filesystem::exists(folder.path / "status.json.tmp"));
    }
}

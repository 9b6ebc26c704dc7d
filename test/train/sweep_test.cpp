// The grid of a sweep, what may be added to it, and what is read of a cell: from run directories made up for that.
#include "train/sweep.hpp"

#include "core/error.hpp"
#include "core/file.hpp"
#include "core/file_lock.hpp"
#include "failure.hpp"
#include "temporary_directory.hpp"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

using namespace flanmoe;
using flanmoe::test::TemporaryDirectory;
using flanmoe::testing::contains, flanmoe::testing::failure;

namespace {

Config base_config(const std::string& more = "") {
    return parse_config("[data]\ntrain = [\"a\"]\nvalidation = [\"b\"]\ntokenizer = \"v\"\nbatch_rows = 8\n" + more, "base", false);
}

template <class Action>
std::string refusal(Action&& action, Exit code = Exit::usage) {
    return failure(code, action);
}

std::vector<SweepAxis> axes_of(const std::vector<std::string>& texts, const Config& base) {
    std::vector<SweepAxis> axes;
    for (const std::string& text : texts) axes.push_back(parse_axis(text, base));
    return axes;
}

void write(const std::filesystem::path& path, const std::string& text) {
    std::filesystem::create_directories(path.parent_path());
    write_file_atomically(path, text);
}

}  // namespace

TEST_SUITE("train/sweep") {
    TEST_CASE("values of an axis, as the config writes them") {
        const Config base = base_config();
        CHECK(parse_axis("optimizer.learning_rate=1e-3,5e-4", base).values == std::vector<std::string>{"0.001", "0.0005"});
        CHECK(parse_axis("train.reset_optimizer=false,true", base).values == std::vector<std::string>{"false", "true"});
        CHECK(parse_axis("optimizer.kind=adamw,adafactor", base).values == std::vector<std::string>{"\"adamw\"", "\"adafactor\""});
        const SweepAxis lists = parse_axis("train.freeze=[],[\"gate\",\"experts\"]", base);
        REQUIRE(lists.values.size() == 2);
        CHECK(contains(lists.values[1], "\"gate\""));
        CHECK(contains(lists.values[1], "\"experts\""));
        CHECK(override_config(base, {"train.freeze=" + lists.values[1]}).train.freeze == std::vector<std::string>{"gate", "experts"});
        CHECK(override_config(base, {"optimizer.kind=" + std::string("\"adamw\"")}).optimizer.kind == OptimizerKind::adamw);
        for (const char* none : {"train.seed", "=1", "train.seed="}) CHECK(contains(refusal([&] { parse_axis(none, base); }), "is no list of values"));
        CHECK(contains(refusal([&] { parse_axis("train.seed=1,x", base); }), "train.seed"));
    }

    TEST_CASE("cells: the last axis changes fastest; they keep their numbers when a grid is extended") {
        const TemporaryDirectory folder;
        const Config base = base_config();
        const std::filesystem::path path = folder.path / "sweep";
        const Sweep first(path, base, axes_of({"optimizer.learning_rate=1e-3,1e-4", "data.batch_rows=8,16"}, base), false);
        REQUIRE(first.cells().size() == 4);
        CHECK(first.cells()[1].options() == std::vector<std::string>{"optimizer.learning_rate=0.001", "data.batch_rows=16"});
        CHECK(first.cells()[2].options() == std::vector<std::string>{"optimizer.learning_rate=0.0001", "data.batch_rows=8"});
        const auto larger = axes_of({"optimizer.learning_rate=1e-2,1e-3,1e-4", "data.batch_rows=8,16"}, base);
        CHECK(contains(refusal([&] { Sweep(path, base, larger, false); }), "2 of the 6 cells of this grid are not in the sweep"));
        const Sweep extended(path, base, larger, true);
        REQUIRE(extended.cells().size() == 6);
        for (size_t c = 0; c < 4; ++c) CHECK(extended.cells()[c].options() == first.cells()[c].options());
        CHECK(extended.cells()[4].options()[0] == "optimizer.learning_rate=0.01");
        CHECK(contains(refusal([&] { Sweep(path, base, first.axes(), false); }), "has 2 cells besides those of this grid"));
        CHECK(Sweep(path, base, first.axes(), true).cells().size() == 6);
        write_file_atomically(folder.path / "notes.txt", "x");
        CHECK(contains(refusal([&] { Sweep(folder.path, base, larger, false); }, Exit::cannot_create), "is not empty and holds no sweep"));
        CHECK(contains(refusal([&] { Sweep(path, base, axes_of({"data.batch_rows=8"}, base), true); }), "holds a sweep over optimizer.learning_rate, data.batch_rows, not over data.batch_rows"));
        // Another base is another sweep, but for what does not change what is learned, and for the axes themselves.
        CHECK(Sweep(path, base_config("[train]\nlog_every = 3\n[optimizer]\nlearning_rate = 7\n"), larger, false).cells().size() == 6);
        CHECK(contains(refusal([&] { Sweep(path, base_config("[train]\nseed = 3\n"), larger, true); }), "train.seed was 0 and is 3"));
    }

    TEST_CASE("what came of a cell") {
        const TemporaryDirectory folder;
        const Config base = parse_config("[data]\nobjective = \"instruct\"\nmixture = \"m.toml\"\nvalidation_split = \"v\"\ntokenizer = \"t\"\ndecoder_length = 8\n"
                                         "[train]\nsteps = 6\n[eval]\nmetric = \"f1\"\nsamples = 5\ntest_split = \"test\"\n",
                                         "base", false);
        const Sweep sweep(folder.path / "sweep", base, axes_of({"train.seed=1,2,3,4"}, base), false);
        for (int c : {0, 1, 2}) {
            write(sweep.run(static_cast<size_t>(c)) / "metrics.jsonl", "{\"kind\":\"train\",\"step\":2,\"f1\":0.99}\n{\"kind\":\"validation\",\"step\":2,\"f1\":0.25,\"loss\":1}\n"
                                                                       "{\"kind\":\"validation\",\"step\":4,\"f1\":0.5,\"loss\":2}\n{\"kind\":\"validation\",\"step\":6,\"f1\":0.5}\ntorn");
            write(sweep.run(static_cast<size_t>(c)) / "status.json", "{\"state\": \"done\", \"message\": \"all steps made\", \"step\": 6}");
        }
        write(sweep.run(0) / "test.json", "{\"split\": \"test\", \"step\": 4, \"f1\": 0.75}");
        write_failure(sweep, 2, 78, "the loss is not finite");
        std::vector<CellResult> results;
        for (size_t c = 0; c < 4; ++c) results.push_back(read_result(sweep, c, base));
        CHECK(results[0].state == CellResult::State::done);
        CHECK(results[0].best == 0.5);
        CHECK(results[0].best_step == 4);
        CHECK(results[0].test == 0.75);
        CHECK(results[1].state == CellResult::State::begun);  // its test is missing
        CHECK(results[2].state == CellResult::State::failed);
        CHECK(results[2].message == "the loss is not finite (exit code 78)");
        CHECK(results[3].state == CellResult::State::waiting);
        CHECK(best_cell(results, base) == size_t{0});
        const auto json = nlohmann::json::parse(sweep_json(sweep, results, base));
        CHECK(json.at("best") == 0);
        CHECK(json.at("cells").at(0).at("settings").at("train.seed") == "1");
        CHECK(json.at("cells").at(2).at("state") == "failed");
        CHECK(sweep_csv(sweep, results, base) == "cell,train.seed,state,f1,best_step,step,test,best,message\n0,1,done,0.5,4,6,0.75,1,all steps made\n1,2,begun,0.5,4,6,,0,all steps made\n"
                                                 "2,3,failed,0.5,4,6,,0,the loss is not finite (exit code 78)\n3,4,waiting,,,0,,0,\n");
        // What the config asks for now is not done: more steps, unless it stopped early, or another test.
        const Config longer = override_config(base, {"train.steps=8"}), other = override_config(base, {"eval.test_split=exam"});
        CHECK(read_result(sweep, 0, longer).state == CellResult::State::begun);
        CHECK(read_result(sweep, 0, other).state == CellResult::State::begun);
        CHECK(!read_result(sweep, 0, other).test);
        write(sweep.run(0) / "status.json", "{\"state\": \"done\", \"message\": \"stopped early\", \"step\": 6}");
        CHECK(read_result(sweep, 0, longer).state == CellResult::State::done);
        forget_failure(sweep, 2);
        CHECK(read_result(sweep, 2, base).state == CellResult::State::begun);
    }

    TEST_CASE("of the loss the least is best, of equal cells the first, of those that are not done none") {
        const Config base = base_config();
        std::vector<CellResult> results(4);
        const double losses[] = {2, 1, 1, 0.5};
        for (size_t c = 0; c < 4; ++c) results[c].best = losses[c], results[c].state = c == 3 ? CellResult::State::begun : CellResult::State::done;
        CHECK(best_cell(results, base) == size_t{1});
        CHECK(!best_cell({CellResult{}}, base));
    }

    TEST_CASE("a lock is one holder's at a time") {
        const TemporaryDirectory folder;
        auto first = std::make_unique<FileLock>(folder.path / "lock");
        FileLock second(folder.path / "lock");
        CHECK(first->try_lock());
        CHECK(!second.try_lock());
        first.reset();
        CHECK(second.try_lock());
    }
}

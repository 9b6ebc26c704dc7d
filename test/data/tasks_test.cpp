// Which task files are trained on: nested choices that depend on seed and names alone, and what the stream of rows reads of them.
#include "data/tasks.hpp"

#include "data/rows.hpp"
#include "fixtures.hpp"

#include <algorithm>
#include <map>
#include <set>

using namespace flanmoe;
using namespace flanmoe::testing;

namespace {

// Twelve tasks in two folders; the inputs of task k are sentences of k + 1 "the".
struct Tasks {
    TemporaryFolder folder;
    std::vector<std::string> paths;

    Tasks() {
        for (int k = 0; k < 12; ++k) {
            std::string line, words;
            for (int i = 0; i <= k; ++i) words += "the ";
            for (int i = 0; i < 5; ++i) line += "{\"inputs\": \"" + words + "\", \"targets\": \"old\"}\n";
            write_bytes(folder / ((k < 8 ? "a/t" : "b/deep/t") + std::to_string(k) + ".jsonl"), line);
        }
        paths = {(folder / "a").string(), (folder / "b").string()};
    }
};

std::set<std::string> names(const std::vector<TaskFile>& tasks) {
    std::set<std::string> result;
    for (const TaskFile& task : tasks) result.insert(task.name);
    return result;
}

DataConfig config(const std::vector<std::string>& train) {
    DataConfig c;
    c.objective = Objective::instruct;
    c.train = train;
    c.encoder_length = 64, c.decoder_length = 16, c.batch_rows = 4;
    c.packing = false;
    return resolve_data_config(c, *small_tokenizer());
}

// How many different tasks an epoch shows, by the lengths of their inputs.
std::map<size_t, int> lengths_of_epoch(RowStream& stream) {
    std::map<size_t, int> seen;
    Row row;
    while (stream.next(row, stream.epoch_size())) ++seen[row.encoder_ids.size()];
    return seen;
}

}  // namespace

TEST_SUITE("data/tasks") {
    TEST_CASE("every JSONL file is a task, named by its path below the folder") {
        const Tasks data;
        const std::vector<TaskFile> found = find_tasks(data.paths);
        REQUIRE(found.size() == 12);
        CHECK(found[0].name == "t0");
        CHECK(found[0].entry == 0);
        CHECK(found[8].name == "deep/t10");  // byte order
        CHECK(found[8].entry == 1);
        CHECK(find_tasks({(data.folder / "b/deep/t9.jsonl").string()})[0].name == "t9");
    }

    TEST_CASE("choices are nested, keep the order, differ by seed, and do not depend on where the files lie") {
        const Tasks data, elsewhere;
        const std::vector<TaskFile> all = find_tasks(data.paths);
        std::set<std::string> before;
        for (int64_t count = 1; count <= 12; ++count) {
            const std::vector<TaskFile> chosen = choose_tasks(all, count, 3);
            const std::set<std::string> now = names(chosen);
            CHECK(static_cast<int64_t>(now.size()) == count);
            CHECK(std::includes(now.begin(), now.end(), before.begin(), before.end()));
            CHECK(std::is_sorted(chosen.begin(), chosen.end(), [](const TaskFile& x, const TaskFile& y) { return x.entry < y.entry || (x.entry == y.entry && x.path < y.path); }));
            CHECK(now == names(choose_tasks(find_tasks(elsewhere.paths), count, 3)));
            before = now;
        }
        std::set<std::set<std::string>> by_seed;
        for (int64_t seed = 0; seed < 10; ++seed) by_seed.insert(names(choose_tasks(all, 4, seed)));
        CHECK(by_seed.size() > 7);
        CHECK(names(choose_tasks(all, 0, 3)).size() == 12);
        const std::string sentence = failure(Exit::usage, [&] { choose_tasks(all, 13, 3); });
        CHECK(contains(sentence, "data.tasks is 13, but data.train names 12 task files"));
    }

    TEST_CASE("the stream reads the chosen tasks and no other; validation is not restricted") {
        const Tasks data;
        DataConfig c = config(data.paths);
        c.tasks = 5, c.tasks_seed = 3;
        RowStream stream(c.train, c, *small_tokenizer(), true);
        CHECK(std::set<std::string>(stream.tasks().begin(), stream.tasks().end()) == names(choose_tasks(find_tasks(data.paths), 5, 3)));
        CHECK(stream.tasks().size() == 5);
        const std::map<size_t, int> seen = lengths_of_epoch(stream);
        CHECK(seen.size() == 5);
        for (const auto& [length, count] : seen) CHECK(count == 5);
        RowStream validation(c.train, c, *small_tokenizer(), false);
        CHECK(lengths_of_epoch(validation).size() == 12);
        DataConfig other = c;
        other.tasks_seed = 4;
        CHECK(RowStream(other.train, other, *small_tokenizer(), true).hash() != stream.hash());  // a run does not go on with other tasks
    }

    TEST_CASE("weights and caps compose with a choice: an entry without a chosen task takes its weight with it") {
        const Tasks data;
        std::vector<std::string> files;
        for (const TaskFile& task : find_tasks(data.paths)) files.push_back(task.path.string());
        DataConfig c = config(files);
        c.tasks = 2, c.tasks_seed = 1;
        c.weights.assign(12, 1.0);
        const std::vector<TaskFile> chosen = choose_tasks(find_tasks(files), 2, 1);
        c.weights[chosen[0].entry] = 9;
        RowStream weighted(c.train, c, *small_tokenizer(), true);
        CHECK(weighted.epoch_size() == 10);
        const std::map<size_t, int> seen = lengths_of_epoch(weighted);
        REQUIRE(seen.size() == 2);
        const auto [less, more] = std::minmax(seen.begin()->second, seen.rbegin()->second);
        CHECK(less == 1);
        CHECK(more == 9);
        c.weights.clear(), c.cap = 3;
        RowStream capped(c.train, c, *small_tokenizer(), true);
        CHECK(capped.epoch_size() == 6);
    }
}

// eval and generate end to end on a tiny random model written as a model directory.
#include "checkpoint/model_directory.hpp"
#include "cli/commands.hpp"
#include "core/file.hpp"
#include "data/fixtures.hpp"
#include "model/small_models.hpp"

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include <sstream>

using namespace flanmoe;
using namespace flanmoe::testing;

namespace {

struct Outcome {
    int code = 0;
    std::string out;  // standard output
};

// Runs the program with its standard output in a file.
Outcome flanmoe_run(const TemporaryFolder& folder, std::vector<std::string> words) {
    CLI::App program("test", "flanmoe");
    cli::add_eval(program);
    cli::add_generate(program);
    words.insert(words.begin(), "flanmoe");
    std::vector<char*> arguments;
    for (std::string& word : words) arguments.push_back(word.data());
    const std::string path = (folder / "stdout").string();
    std::fflush(stdout);
    const int saved = ::dup(STDOUT_FILENO);
    std::FILE* file = std::fopen(path.c_str(), "w");
    ::dup2(::fileno(file), STDOUT_FILENO);
    Outcome outcome;
    outcome.code = cli::run(program, static_cast<int>(arguments.size()), arguments.data());
    std::fflush(stdout);
    ::dup2(saved, STDOUT_FILENO);
    ::close(saved);
    std::fclose(file);
    outcome.out = read_file(path);
    return outcome;
}

std::string write_model(const TemporaryFolder& folder, const std::string& name, int64_t vocabulary) {
    ModelConfig config = test::small_switch();
    config.vocab_size = vocabulary;
    Transformer model(config);
    model.parameters().allocate(DType::f32, false);
    model.parameters().initialise(5);
    const std::string path = (folder / name).string();
    save_model(path, config, model.parameters());
    return path;
}

std::string write_model_with_vocabulary(const TemporaryFolder& folder) {
    const std::string path = write_model(folder, "model", small_tokenizer()->vocabulary_rows());
    small_tokenizer()->save_tokenizer_files(path);
    return path;
}

std::vector<std::string> lines_of(const std::string& text) {
    std::vector<std::string> lines;
    std::istringstream stream(text);
    for (std::string line; std::getline(stream, line);) lines.push_back(line);
    return lines;
}

}  // namespace

TEST_SUITE("cli/eval") {
    TEST_CASE("eval writes a table, a summary and every answer") {
        const TemporaryFolder folder;
        const std::string model = write_model_with_vocabulary(folder);
        write_bytes(folder / "tasks/one.jsonl", R"({"question":"the old miller","answer":"bread","options":["bread","sheep"]})" "\n" R"({"question":"rain","answer":["hill","far"]})" "\n");
        write_bytes(folder / "tasks/two.jsonl", R"({"question":"the young","answer":"basket"})" "\n");
        const std::string tasks = (folder / "tasks").string(), out = (folder / "results").string();
        const std::vector<std::string> keys = {"--inputs-key", "question", "--targets-key", "answer", "--max-new-tokens", "4", "--threads", "2"};
        std::vector<std::string> words = {"eval", model, tasks, "--out", out};
        words.insert(words.end(), keys.begin(), keys.end());
        const Outcome table = flanmoe_run(folder, words);
        REQUIRE(table.code == 0);
        CHECK(contains(table.out, "mean of 2 tasks"));
        CHECK(table.out == read_file(out + "/table.txt"));
        CHECK(lines_of(read_file(out + "/answers.jsonl")).size() == 3);
        const auto summary = nlohmann::json::parse(read_file(out + "/summary.json"));
        CHECK(summary.at("tasks")[0].at("task") == "one");
        CHECK(summary.at("tasks")[0].at("with_options") == 1);
        CHECK(summary.at("checkpoint") == model);

        words.push_back("--json");
        CHECK(nlohmann::json::parse(flanmoe_run(folder, words).out) == summary);
        words.insert(words.end(), {"--beams", "2", "--dtype", "f64"});
        CHECK(flanmoe_run(folder, words).code == 0);
        CHECK(flanmoe_run(folder, {"eval", model, tasks}).code == static_cast<int>(Exit::bad_data));  // no field "inputs"
    }

    TEST_CASE("generate from prompts and files") {
        const TemporaryFolder folder;
        const std::string model = write_model_with_vocabulary(folder), prompts = (folder / "prompts.txt").string();
        write_bytes(prompts, "the old miller\n\nrain on the hill\r\nbread");
        const std::vector<std::string> base = {"generate", model, "--max-new-tokens", "5"};
        const auto with = [&](std::vector<std::string> more) {
            more.insert(more.begin(), base.begin(), base.end());
            return flanmoe_run(folder, more);
        };
        const Outcome plain = with({"--file", prompts});
        REQUIRE(plain.code == 0);
        REQUIRE(lines_of(plain.out).size() == 3);
        CHECK(with({"--file", prompts, "--batch", "1"}).out == plain.out);
        CHECK(with({"--prompt", "the old miller", "--prompt", "rain on the hill", "--prompt", "bread"}).out == plain.out);

        const std::vector<std::string> json = lines_of(with({"--file", prompts, "--jsonl"}).out);
        REQUIRE(json.size() == 3);
        for (size_t i = 0; i < 3; ++i) {
            const auto object = nlohmann::json::parse(json[i]);
            CHECK(object.at("output") == lines_of(plain.out)[i]);
            CHECK(object.at("score").get<double>() < 0);
        }
        CHECK(nlohmann::json::parse(json[1]).at("prompt") == "rain on the hill");

        const Outcome sampled = with({"--file", prompts, "--temperature", "2", "--seed", "3"});
        CHECK(sampled.code == 0);
        CHECK(with({"--file", prompts, "--temperature", "2", "--seed", "3", "--batch", "2"}).out == sampled.out);  // prompt i always draws the same
        CHECK(with({"--file", prompts, "--temperature", "2", "--seed", "4"}).out != sampled.out);
        CHECK(with({"--file", prompts, "--beams", "3"}).code == 0);
    }

    TEST_CASE("mistakes have the exit code of their kind") {
        const TemporaryFolder folder;
        const std::string model = write_model_with_vocabulary(folder), bare = write_model(folder, "bare", small_tokenizer()->vocabulary_rows()), narrow = write_model(folder, "narrow", 128);
        write_bytes(folder / "task.jsonl", R"({"inputs":"a","targets":"b"})" "\n");
        write_bytes(folder / "latin.txt", "caf\xe9\n");
        write_bytes(folder / "empty.txt", "\n");
        std::filesystem::create_directory(folder / "folder");
        const std::string task = (folder / "task.jsonl").string();
        const auto code = [&](std::vector<std::string> words) { return static_cast<Exit>(flanmoe_run(folder, std::move(words)).code); };
        CHECK(code({"eval", (folder / "nothing").string(), task}) == Exit::missing_input);
        CHECK(code({"eval", (folder / "folder").string(), task}) == Exit::missing_input);
        CHECK(code({"eval", bare, task}) == Exit::missing_input);  // no vocabulary
        CHECK(code({"eval", bare, task, "--tokenizer", model}) == Exit::done);
        CHECK(code({"eval", narrow, task, "--tokenizer", model}) == Exit::usage);
        CHECK(code({"eval", model, (folder / "missing.jsonl").string()}) == Exit::missing_input);
        CHECK(code({"eval", model, (folder / "folder").string()}) == Exit::bad_data);
        CHECK(code({"eval", model, task, "--batch", "0"}) == Exit::usage);
        CHECK(code({"generate", model, "--prompt", "a", "--file", task}) == Exit::usage);
        CHECK(code({"generate", model, "--prompt", "a", "--top-k", "3"}) == Exit::usage);
        CHECK(code({"generate", model, "--prompt", "a", "--beams", "2", "--temperature", "1"}) == Exit::usage);
        CHECK(code({"generate", model, "--file", (folder / "latin.txt").string()}) == Exit::bad_data);
        CHECK(code({"generate", model, "--file", (folder / "empty.txt").string()}) == Exit::bad_data);
        CHECK(code({"generate", model, "--file", (folder / "missing.txt").string()}) == Exit::missing_input);
        std::filesystem::resize_file(model + "/model.safetensors", 1000);
        CHECK(code({"generate", model, "--prompt", "a"}) == Exit::bad_checkpoint);
    }
}

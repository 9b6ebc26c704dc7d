// JSONL examples: fields, alternatives of names, lists of answers, options, malformed lines.
#include "data/examples.hpp"

#include "fixtures.hpp"

using namespace flanmoe;
using flanmoe::testing::contains;
using flanmoe::testing::failure;
using flanmoe::testing::write_bytes;

TEST_SUITE("data/examples") {
    TEST_CASE("fields") {
        TemporaryFolder folder;
        write_bytes(folder / "d/b.jsonl", "{\"inputs\": \"q\", \"targets\": [\"a\", \"b\"], \"options\": [\"a\", \"c\"], \"task\": \"t\"}\n");
        write_bytes(folder / "d/a.jsonl", "\xef\xbb\xbf{\"prompt\": \"p\", \"completion\": \"c<end>\", \"options\": null}\r\n\n");
        write_bytes(folder / "d/readme.txt", "not an example");
        ExampleKeys keys;
        keys.inputs = {"inputs", "prompt"};
        keys.targets = {"targets", "completion"};
        keys.remove_suffix = "<end>";
        const auto examples = read_examples({(folder / "d").string()}, keys);
        REQUIRE(examples.size() == 2);
        CHECK(examples[0].inputs == "p");
        CHECK(examples[0].targets == std::vector<std::string>{"c"});
        CHECK(examples[0].options.empty());
        CHECK(examples[0].line == 1);
        CHECK(examples[1].targets == std::vector<std::string>{"a", "b"});
        CHECK(examples[1].options == std::vector<std::string>{"a", "c"});
        CHECK(examples[1].task == "t");
    }

    TEST_CASE("malformed lines: file, line and reason, or counted") {
        TemporaryFolder folder;
        const std::vector<std::pair<std::string, std::string>> lines = {
            {"{\"inputs\": \"q\"}", "has no field 'targets' (it has: inputs)"},
            {"{\"inputs\": 3, \"targets\": \"a\"}", "has a field 'inputs' that is a number, not a text"},
            {"{\"inputs\": \"q\", \"targets\": []}", "has a field 'targets' without a text in its list"},
            {"{\"inputs\": \"q\", \"targets\": [1]}", "has a field 'targets' that holds a number, not only texts"},
            {"{\"inputs\": \"q\", \"targets\": \"a\", \"options\": \"a\"}", "'options' that is a text, not a list"},
            {"{\"inputs\": \"q\", \"targets\": \"a\", \"task\": 7}", "'task' that is a number, not a text"},
            {"{\"inputs\": \"q\", \"targets\": \"a\"", "is not valid JSON"},
            {"[\"inputs\"]", "is not a JSON object"},
            {"{\"inputs\": \"q\xff\", \"targets\": \"a\"}", "is not valid UTF-8 at byte 13"},
        };
        std::string all = "{\"inputs\": \"q\", \"targets\": \"a\"}\n";
        for (const auto& [line, reason] : lines) {
            write_bytes(folder / "x.jsonl", "\n" + line + "\n");
            const std::string sentence = failure(Exit::bad_data, [&] { read_examples({(folder / "x.jsonl").string()}); });
            CHECK_MESSAGE(contains(sentence, "x.jsonl:2 "), sentence);
            CHECK_MESSAGE(contains(sentence, reason), sentence);
            all += line + "\n";
        }
        write_bytes(folder / "x.jsonl", all);
        ExampleCounts counts;
        CHECK(read_examples({(folder / "x.jsonl").string()}, {}, MalformedPolicy::skip, &counts).size() == 1);
        CHECK(counts.malformed == static_cast<int64_t>(lines.size()));
    }

    TEST_CASE("nothing to read") {
        TemporaryFolder folder;
        write_bytes(folder / "x.jsonl", "\n");
        CHECK(contains(failure(Exit::bad_data, [&] { read_examples({(folder / "x.jsonl").string()}); }), "holds no examples"));
        failure(Exit::missing_input, [&] { read_examples({(folder / "y.jsonl").string()}); });
        write_bytes(folder / "d/x.txt", "text");
        CHECK(contains(failure(Exit::bad_data, [&] { read_examples({(folder / "d").string()}); }), "no files ending in .jsonl"));
    }
}

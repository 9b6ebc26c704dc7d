// The tokenizer against the recorded case, seqio's rule for sentinels, T5's id arithmetic, and a vocabulary trained here.
#include "data/tokenizer.hpp"

#include "core/file.hpp"
#include "data/vocabulary.hpp"
#include "fixtures.hpp"

#include <nlohmann/json.hpp>

using namespace flanmoe;
using flanmoe::testing::contains;
using flanmoe::testing::failure;

TEST_SUITE("data/tokenizer") {
    TEST_CASE("recorded encodings") {
        const auto record = nlohmann::json::parse(read_file("test/oracle/tokenizer/case.json"));
        const auto tokenizer = Tokenizer::load("test/oracle/tokenizer");
        for (const auto& row : record["rows"]) {
            const auto ids = tokenizer->encode(row["text"].get<std::string>());
            CAPTURE(row.dump());
            CHECK(ids == row["ids"].get<std::vector<int32_t>>());
            CHECK(tokenizer->decode(ids) == row["decoded"].get<std::string>());
            CHECK(tokenizer->encode_with_sentinels(row["text"].get<std::string>()) == ids);
        }
        for (const auto& [name, id] : record["sentinels"].items())
            CHECK(tokenizer->encode_with_sentinels(name) == std::vector<int32_t>{id.get<int32_t>()});
        CHECK(tokenizer->pieces() == 1000);
        CHECK(tokenizer->size() == 1100);
        CHECK(tokenizer->vocabulary_rows() == 1152);
        CHECK(tokenizer->sentinel(0) == 1099);
        CHECK(tokenizer->sentinel(99) == 1000);
    }

    TEST_CASE("sentinels inside text are one piece and do not start a new word after them") {
        const auto tokenizer = Tokenizer::load("test/oracle/tokenizer");
        const auto ids = [&](const char* text) { return tokenizer->encode_with_sentinels(text); };
        std::vector<int32_t> expected = tokenizer->encode("the dog");
        expected.push_back(1099);
        for (int32_t id : tokenizer->encode("the fox")) expected.push_back(id);
        expected.push_back(1098);
        CHECK(ids("the dog <extra_id_0> the fox <extra_id_1>") == expected);
        CHECK(ids("the dog<extra_id_0> the fox<extra_id_1>") == expected);
        // As seqio: "." after a sentinel is the piece ".", without a word mark before it.
        const auto dotted = ids("<extra_id_0>. the");
        REQUIRE(dotted.size() >= 2);
        CHECK(dotted[0] == 1099);
        CHECK(tokenizer->piece(dotted[1]) == ".");
        CHECK(tokenizer->decode(expected) == "the dog <extra_id_0> the fox <extra_id_1>");
        // As ordinary text, names of sentinels are spelt.
        for (int32_t id : tokenizer->encode("<extra_id_0>")) CHECK(id < 1000);
    }

    TEST_CASE("decoding leaves out padding, end marks and ids that do not exist") {
        const auto tokenizer = Tokenizer::load("test/oracle/tokenizer");
        std::vector<int32_t> ids = tokenizer->encode("the dog");
        ids.insert(ids.begin(), 0);
        for (int32_t id : {1, 0, 1120, -1}) ids.push_back(id);
        CHECK(tokenizer->decode(ids) == "the dog");
    }

    TEST_CASE("training: T5's special ids, the same bytes each time, byte fallback, sampling") {
        const std::string text = flanmoe::testing::synthetic_text(400, 1);
        flanmoe::testing::TemporaryFolder folder;
        flanmoe::testing::write_bytes(folder / "text.txt", text);
        const auto sentences = [&](int64_t count) {
            DocumentReader reader(find_input_files({(folder / "text.txt").string()}), {});
            return sample_sentences(reader, count, 3);
        };
        CHECK(sentences(0).size() == 58);
        CHECK(sentences(10).size() == 10);
        CHECK(sentences(10) == sentences(10));
        VocabularyOptions options;
        options.size = 100;
        const std::string model = train_vocabulary(sentences(0), options);
        CHECK(model == train_vocabulary(sentences(0), options));
        const Tokenizer tokenizer(model);
        CHECK(tokenizer.pieces() == 100);
        CHECK(tokenizer.pad_id() == 0);
        CHECK(tokenizer.eos_id() == 1);
        CHECK(tokenizer.unk_id() == 2);
        CHECK(tokenizer.vocabulary_rows() == 256);
        CHECK(tokenizer.decode(tokenizer.encode("the miller counts sheep.")) == "the miller counts sheep.");
        CHECK(tokenizer.hash() != Tokenizer(model, 50).hash());

        options.size = 340;
        options.byte_fallback = true;
        const Tokenizer bytes(train_vocabulary(sentences(0), options));
        CHECK(bytes.decode(bytes.encode("Größe 東京")) == "Größe 東京");
        options.byte_fallback = false;
        options.size = 30000;
        CHECK(contains(failure(Exit::usage, [&] { train_vocabulary(sentences(0), options); }),
                       "too small for a vocabulary of 30000 pieces; choose a size of at most"));
        options.size = 16;
        CHECK(contains(failure(Exit::usage, [&] { train_vocabulary(sentences(0), options); }), "cannot hold the characters"));
    }

    TEST_CASE("long lines are cut at white space, none is lost") {
        std::string line;
        while (line.size() < 20000) line += "river stars ";
        flanmoe::testing::TemporaryFolder folder;
        flanmoe::testing::write_bytes(folder / "long.txt", line);
        DocumentReader reader(find_input_files({folder.path().string()}), {});
        const auto sentences = sample_sentences(reader, 0, 0);
        size_t words = 0;
        for (const std::string& sentence : sentences) {
            CHECK(sentence.size() <= 4000);
            for (size_t at = 0; (at = sentence.find("river", at)) != std::string::npos; ++at) ++words;
        }
        CHECK(words == line.size() / 12);
    }

    TEST_CASE("files for transformers") {
        const auto tokenizer = Tokenizer::load("test/oracle/tokenizer");
        flanmoe::testing::TemporaryFolder folder;
        tokenizer->save_tokenizer_files(folder.path());
        CHECK(read_file(folder / "spiece.model") == read_file("test/oracle/tokenizer/spiece.model"));
        const auto config = nlohmann::json::parse(read_file(folder / "tokenizer_config.json"));
        CHECK(config["tokenizer_class"] == "T5Tokenizer");
        CHECK(config["extra_ids"] == 100);
        CHECK(config["additional_special_tokens"][99] == "<extra_id_99>");
        const auto special = nlohmann::json::parse(read_file(folder / "special_tokens_map.json"));
        CHECK(special["eos_token"] == "</s>");
        CHECK(special["pad_token"] == "<pad>");
        CHECK(Tokenizer::load(folder.path())->hash() == tokenizer->hash());
    }

    TEST_CASE("what is no vocabulary, and what does not fit") {
        flanmoe::testing::TemporaryFolder folder;
        CHECK(contains(failure(Exit::missing_input, [&] { Tokenizer::load(folder.path()); }), "flanmoe tokenizer train"));
        flanmoe::testing::write_bytes(folder / "spiece.model", "this is no vocabulary");
        CHECK(contains(failure(Exit::bad_data, [&] { Tokenizer::load(folder.path()); }), "spiece.model is not a SentencePiece model"));
        const std::string model = read_file("test/oracle/tokenizer/spiece.model");
        flanmoe::testing::write_bytes(folder / "spiece.model", model.substr(0, 1001));
        failure(Exit::bad_data, [&] { Tokenizer::load(folder.path()); });
        const Tokenizer tokenizer(model);
        tokenizer.check_fits(1152, 0, 1);
        CHECK(contains(failure(Exit::usage, [&] { tokenizer.check_fits(1024, 0, 1); }), "set model.vocab_size to 1152"));
        failure(Exit::usage, [&] { tokenizer.check_fits(1152, 0, 2); });
    }
}

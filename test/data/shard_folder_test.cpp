// Token shards: round trip, independence of cutting, damage, resuming after a kill, and the sentences that errors give.
#include "data/shard_folder.hpp"

#include "core/file.hpp"
#include "fixtures.hpp"

#include <csignal>
#include <map>
#include <omp.h>
#include <sys/wait.h>
#include <unistd.h>

using namespace flanmoe;
using flanmoe::testing::contains;
using flanmoe::testing::failure;
using flanmoe::testing::small_tokenizer;
using flanmoe::testing::synthetic_text;
using flanmoe::testing::write_bytes;

namespace {

// Twelve files of different sizes; some 25 shards at 2 kB each.
void write_corpus(const TemporaryFolder& folder) {
    for (uint64_t i = 0; i < 12; ++i)
        write_bytes(folder / ("corpus/" + std::to_string(10 + i) + ".txt"), synthetic_text(10 + static_cast<int64_t>(i * 7 % 60), 100 + i));
}

ShardOptions small_shards() {
    ShardOptions options;
    options.text.boundaries = Boundaries::line;
    options.shard_bytes = 2000;
    options.batch_bytes = 500;
    return options;
}

ShardSummary build(const TemporaryFolder& folder, const std::string& out, const ShardOptions& options = small_shards()) {
    return build_shards({(folder / "corpus").string()}, *small_tokenizer(), folder / out, options);
}

std::map<std::string, std::string> contents(const std::filesystem::path& folder) {
    std::map<std::string, std::string> files;
    for (const auto& entry : std::filesystem::directory_iterator(folder)) files[entry.path().filename().string()] = read_file(entry.path());
    return files;
}

void flip(const std::filesystem::path& path, size_t byte) {
    std::string bytes = read_file(path);
    bytes[byte] = static_cast<char>(bytes[byte] ^ 4);
    write_bytes(path, bytes);
}

}  // namespace

TEST_SUITE("data/shard_folder") {
    TEST_CASE("shards hold the tokens of all documents in order") {
        TemporaryFolder folder;
        write_corpus(folder);
        const ShardSummary summary = build(folder, "out");
        CHECK(summary.shards > 10);
        const ShardFolder shards(folder / "out", true);
        CHECK(shards.tokens() == summary.tokens);
        CHECK(shards.documents() == summary.documents);
        shards.check_tokenizer(*small_tokenizer());

        TextOptions text;
        text.boundaries = Boundaries::line;
        DocumentReader reader(find_input_files({(folder / "corpus").string()}), text);
        std::string document;
        std::vector<int32_t> ids;
        for (const TokenShard& shard : shards.shards()) {
            for (int64_t d = 0; d < shard.documents(); ++d) {
                REQUIRE(reader.next(document));
                const auto [begin, end] = shard.document(d);
                shard.read(begin, end - begin, ids);
                CHECK(ids == small_tokenizer()->encode(document));
            }
        }
        CHECK_FALSE(reader.next(document));
    }

    TEST_CASE("cutting a long document into pieces changes no token; 32-bit tokens") {
        TemporaryFolder folder;
        const std::string text = synthetic_text(3000, 8);
        write_bytes(folder / "corpus/long.txt", text);
        build(folder, "out", {});
        const ShardFolder shards(folder / "out", true);
        REQUIRE(shards.shards().size() == 1);
        std::vector<int32_t> ids;
        shards.shards()[0].read(0, shards.tokens(), ids);
        CHECK(ids == small_tokenizer()->encode(text));

        ShardContent content{{1, 70000, 2}, {2, 3}};
        write_shard(folder / "wide", content, 5, 100000);
        const TokenShard wide(folder / "wide");
        wide.verify();
        wide.read(0, 3, ids);
        CHECK(ids == content.tokens);
        CHECK(wide.document(1) == std::pair<int64_t, int64_t>{2, 3});
    }

    TEST_CASE("damage is found: every byte of a small shard flipped, and every length") {
        TemporaryFolder folder;
        write_shard(folder / "shard", {{5, 6, 7, 8, 9}, {2, 5}}, 77, 100);
        const std::string good = read_file(folder / "shard");
        const auto refused = [&] {
            try {
                TokenShard shard(folder / "shard");
                shard.verify();
            } catch (const Error& error) {
                return error.code == Exit::corruption || error.code == Exit::bad_data;
            }
            return false;
        };
        CHECK_FALSE(refused());
        for (size_t byte = 0; byte < good.size(); ++byte) {
            std::string bad = good;
            bad[byte] = static_cast<char>(bad[byte] ^ (1 << byte % 8));
            write_bytes(folder / "shard", bad);
            CHECK_MESSAGE(refused(), "byte ", byte);
        }
        for (size_t length = 0; length < good.size(); ++length) {
            write_bytes(folder / "shard", good.substr(0, length));
            CHECK_MESSAGE(refused(), "length ", length);
        }
        write_bytes(folder / "shard", good + "x");
        CHECK(refused());
    }

    TEST_CASE("running again keeps what is there and makes only what is missing or damaged") {
        TemporaryFolder folder;
        write_corpus(folder);
        const ShardSummary first = build(folder, "out");
        const auto good = contents(folder / "out");
        const ShardSummary again = build(folder, "out");
        CHECK(again.reused == first.shards);
        CHECK(again.tokens == first.tokens);
        CHECK(contents(folder / "out") == good);

        std::filesystem::remove(folder / "out/shard-00003.tokens");
        flip(folder / "out/shard-00007.tokens", 80);
        write_bytes(folder / "out/shard-00009.tokens", good.at("shard-00009.tokens").substr(0, 100));
        CHECK(contains(failure(Exit::corruption, [&] { ShardFolder(folder / "out"); }), "shard-00003.tokens is missing"));
        CHECK(build(folder, "out").reused == first.shards - 3);
        CHECK(contents(folder / "out") == good);
        flip(folder / "out/shard-00007.tokens", 80);
        ShardFolder unverified(folder / "out");  // only hashing the content can see it
        CHECK(contains(failure(Exit::corruption, [&] { ShardFolder(folder / "out", true); }), "shard-00007.tokens is damaged"));
    }

    TEST_CASE("killed at any moment, it goes on and ends with the same files") {
        TemporaryFolder folder;
        write_corpus(folder);
        const ShardSummary whole = build(folder, "whole");
        auto expected = contents(folder / "whole");
        RandomStream random(RandomKey{12, 0, 0, Purpose::sampling});
        int killed = 0;
        for (int kill = 0; kill < 8; ++kill) {
            const pid_t child = ::fork();
            REQUIRE(child >= 0);
            if (child == 0) {
                omp_set_num_threads(1);  // threads of the parent do not exist here
                int64_t calls = 2 + static_cast<int64_t>(random.below(25));
                try {
                    build_shards({(folder / "corpus").string()}, *small_tokenizer(), folder / "out", small_shards(), [&](const ShardProgress& p) {
                        if (!p.reused && --calls == 0) ::raise(SIGKILL);
                    });
                } catch (...) {
                    ::_exit(2);
                }
                ::_exit(0);
            }
            random.below(25);  // the child drew its number from a copy
            int status = 0;
            ::waitpid(child, &status, 0);
            if (WIFEXITED(status)) CHECK(WEXITSTATUS(status) == 0);
            killed += WIFSIGNALED(status);
            if (WIFSIGNALED(status) && kill == 0) CHECK(contains(failure(Exit::bad_data, [&] { ShardFolder(folder / "out"); }), "are not finished"));
            // A torn write that was never renamed must not count either.
            write_bytes(folder / "out/shard-00099.tokens.tmp", "torn");
        }
        CHECK(killed > 2);
        const ShardSummary last = build(folder, "out");
        CHECK(last.reused > 0);
        CHECK(last.tokens == whole.tokens);
        CHECK(last.documents == whole.documents);
        CHECK(last.empty == whole.empty);
        auto found = contents(folder / "out");
        found.erase("shard-00099.tokens.tmp");
        CHECK(found == expected);
    }

    TEST_CASE("sentences for what does not fit") {
        TemporaryFolder folder;
        write_corpus(folder);
        build(folder, "out");
        const auto other = Tokenizer::load("test/oracle/tokenizer");
        CHECK(contains(failure(Exit::usage, [&] { build_shards({(folder / "corpus").string()}, *other, folder / "out", small_shards()); }),
                       "with another tokenizer"));
        CHECK(contains(failure(Exit::usage, [&] { ShardFolder(folder / "out").check_tokenizer(*other); }), "spiece.model"));
        CHECK(contains(
            failure(Exit::usage, [&] { build_shards({(folder / "corpus/10.txt").string()}, *small_tokenizer(), folder / "out", small_shards()); }),
            "other inputs"));
        CHECK(contains(failure(Exit::usage, [&] { build(folder, "out", {}); }), "other settings"));
        CHECK(contains(failure(Exit::cannot_create, [&] { build(folder, "corpus"); }), "something else than token shards"));
        CHECK(contains(failure(Exit::missing_input, [&] { ShardFolder(folder / "nowhere"); }), "there is no shard folder"));
        CHECK(contains(failure(Exit::missing_input, [&] { ShardFolder(folder / "corpus"); }), "no manifest.json"));
        write_bytes(folder / "blank/x.txt", " \n\n");
        CHECK(contains(failure(Exit::bad_data, [&] { build_shards({(folder / "blank").string()}, *small_tokenizer(), folder / "none", {}); }),
                       "holds no text"));
        write_bytes(folder / "blank/x.txt", "now there is some text\n");  // and the same command works once there is text
        CHECK(build_shards({(folder / "blank").string()}, *small_tokenizer(), folder / "none", {}).documents == 1);
        failure(Exit::missing_input, [&] { build_shards({(folder / "gone").string()}, *small_tokenizer(), folder / "none2", {}); });
        write_bytes(folder / "out/manifest.json", "{\"format\": 1");
        CHECK(contains(failure(Exit::corruption, [&] { ShardFolder(folder / "out"); }), "manifest.json is damaged"));
    }

    TEST_CASE("malformed and empty documents are counted, also over several shards and a resume") {
        TemporaryFolder folder;
        std::string lines;
        for (int i = 0; i < 100; ++i) lines += i % 10 == 3 ? "bad \xff\n" : i % 10 == 5 ? "\n" : "the river comes to market\n";
        write_bytes(folder / "corpus/x.txt", lines);
        ShardOptions options = small_shards();
        options.text.malformed = MalformedPolicy::skip;
        options.shard_bytes = 300;
        for (int run = 0; run < 3; ++run) {
            if (run == 2) std::filesystem::remove(folder / "out/shard-00003.tokens");
            const ShardSummary summary = build(folder, "out", options);
            CHECK(summary.documents == 80);
            CHECK(summary.malformed == 10);
            CHECK(summary.empty == 10);
        }
    }
}

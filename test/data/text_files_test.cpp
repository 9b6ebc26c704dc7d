// Reading raw text: formats, compression, encodings, document boundaries, order of folders, and what malformed input gets.
#include "data/text_files.hpp"

#include "fixtures.hpp"

#include <zlib.h>
#include <zstd.h>

using namespace flanmoe;
using flanmoe::testing::contains;
using flanmoe::testing::failure;
using flanmoe::testing::write_bytes;

namespace {

std::string gzip(const std::string& text) {
    std::string packed(compressBound(text.size()) + 64, '\0');
    z_stream stream{};
    REQUIRE(deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) == Z_OK);
    stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
    stream.avail_in = static_cast<uInt>(text.size());
    stream.next_out = reinterpret_cast<Bytef*>(packed.data());
    stream.avail_out = static_cast<uInt>(packed.size());
    REQUIRE(deflate(&stream, Z_FINISH) == Z_STREAM_END);
    packed.resize(stream.total_out);
    deflateEnd(&stream);
    return packed;
}

std::string zstandard(const std::string& text) {
    std::string packed(ZSTD_compressBound(text.size()), '\0');
    packed.resize(ZSTD_compress(packed.data(), packed.size(), text.data(), text.size(), 3));
    return packed;
}

std::vector<std::string> documents(const std::vector<std::string>& inputs, TextOptions options = {}, TextCounts* counts = nullptr) {
    DocumentReader reader(find_input_files(inputs), std::move(options));
    std::vector<std::string> all;
    for (std::string document; reader.next(document);) all.push_back(document);
    if (counts) *counts = reader.counts();
    return all;
}

}  // namespace

TEST_SUITE("data/text_files") {
    TEST_CASE("plain, gz and zst give the same text, several members too") {
        TemporaryFolder folder;
        std::string text = flanmoe::testing::synthetic_text(20000, 4);  // larger than the buffers
        write_bytes(folder / "a.txt", text);
        write_bytes(folder / "b.gz", gzip(text));
        write_bytes(folder / "c.zst", zstandard(text));
        write_bytes(folder / "d.txt.gz", gzip(text.substr(0, 1000)) + gzip(text.substr(1000)));
        write_bytes(folder / "e.zst", zstandard(text.substr(0, 1000)) + zstandard(text.substr(1000)));
        for (const char* name : {"a.txt", "b.gz", "c.zst", "d.txt.gz", "e.zst"})
            CHECK(documents({(folder / name).string()}) == std::vector<std::string>{text});
    }

    TEST_CASE("damaged and cut compressed files are refused") {
        TemporaryFolder folder;
        const std::string text = flanmoe::testing::synthetic_text(2000, 5);
        for (const auto& [name, packed] : {std::pair<std::string, std::string>{"x.gz", gzip(text)}, {"x.zst", zstandard(text)}}) {
            write_bytes(folder / name, packed.substr(0, packed.size() / 2));
            CHECK(contains(failure(Exit::bad_data, [&] { documents({(folder / name).string()}); }), "ends early"));
        }
        std::string packed = gzip(text);
        packed[packed.size() - 6] ^= 1;  // inside the checksum
        write_bytes(folder / "x.gz", packed);
        CHECK(contains(failure(Exit::bad_data, [&] { documents({(folder / "x.gz").string()}); }), "is damaged"));
    }

    TEST_CASE("folders are read in byte order of the paths, hidden files left out") {
        TemporaryFolder folder;
        write_bytes(folder / "b.txt", "second");
        write_bytes(folder / "a/z.text", "first");
        write_bytes(folder / "c.xyz", "third");
        write_bytes(folder / ".hidden", "no");
        write_bytes(folder / ".git/config", "no");
        CHECK(documents({folder.path().string()}) == std::vector<std::string>{"first", "second", "third"});
        CHECK(documents({(folder / "c.xyz").string(), (folder / "b.txt").string()}) == std::vector<std::string>{"third", "second"});
    }

    TEST_CASE("document boundaries") {
        TemporaryFolder folder;
        write_bytes(folder / "t.txt", "\xef\xbb\xbfone\r\ntwo\n\n \n\nthree\n");
        const std::vector<std::string> path = {(folder / "t.txt").string()};
        CHECK(documents(path) == std::vector<std::string>{"one\r\ntwo\n\n \n\nthree\n"});
        TextOptions options;
        options.boundaries = Boundaries::blank_line;
        CHECK(documents(path, options) == std::vector<std::string>{"one\ntwo", "three"});
        options.boundaries = Boundaries::line;
        TextCounts counts;
        CHECK(documents(path, options, &counts) == std::vector<std::string>{"one", "two", "three"});
        CHECK(counts.empty == 3);
        CHECK(counts.documents == 3);
        failure(Exit::usage, [] { parse_boundaries("page"); });
    }

    TEST_CASE("encodings") {
        TemporaryFolder folder;
        write_bytes(folder / "l.txt", "caf\xe9 \x93quoted\x94");
        const std::vector<std::string> path = {(folder / "l.txt").string()};
        const std::string sentence = failure(Exit::bad_data, [&] { documents(path); });
        CHECK(contains(sentence, "l.txt is not valid UTF-8 at byte 3"));
        CHECK(contains(sentence, "--encoding latin-1"));
        TextOptions options;
        options.encoding = parse_encoding("cp1252");
        CHECK(documents(path, options) == std::vector<std::string>{"café “quoted”"});
        options.encoding = parse_encoding("Latin-1");
        CHECK(documents(path, options)[0].starts_with("café \xc2\x93"));
        failure(Exit::usage, [] { parse_encoding("utf-16"); });
        write_bytes(folder / "u.txt", "x\x81y");
        options.encoding = Encoding::cp1252;
        CHECK(contains(failure(Exit::bad_data, [&] { documents({(folder / "u.txt").string()}, options); }), "not valid cp1252 at byte 1"));
    }

    TEST_CASE("the first invalid byte of UTF-8 is found") {
        CHECK(find_invalid_utf8("plain é 東 \xf0\x9f\x98\x80") == -1);
        const std::vector<std::pair<std::string, int64_t>> cases = {
            {"ab\xff", 2},    {"\xc0\x80", 0},         {"a\xe0\x80\x80", 1},       {"\xed\xa0\x80", 0},
            {"é\xe2\x82", 2}, {"\xf4\x90\x80\x80", 0}, {"abc\xf0\x8f\xbf\xbf", 3}, {"\x80", 0}};
        for (const auto& [bytes, place] : cases) CHECK(find_invalid_utf8(bytes) == place);
    }

    TEST_CASE("invalid text in the middle: place in the decompressed file, or skipped and counted") {
        TemporaryFolder folder;
        write_bytes(folder / "m.gz", gzip("good\n\nbad \xff line\nof two\n\nfine\n"));
        TextOptions options;
        options.boundaries = Boundaries::blank_line;
        const std::vector<std::string> path = {(folder / "m.gz").string()};
        CHECK(contains(failure(Exit::bad_data, [&] { documents(path, options); }), "at byte 10"));
        options.malformed = MalformedPolicy::skip;
        TextCounts counts;
        CHECK(documents(path, options, &counts) == std::vector<std::string>{"good", "fine"});
        CHECK(counts.malformed == 1);
    }

    TEST_CASE("JSONL: keys, malformed lines by policy") {
        TemporaryFolder folder;
        write_bytes(
            folder / "x.jsonl",
            "{\"text\": \"one\"}\n\n{\"text\": \"two\", \"title\": \"T\"}\n{\"text\": 3}\n{oops\n[1]\n{\"body\": \"x\"}\n{\"text\": \"last\"}");
        const std::vector<std::string> path = {(folder / "x.jsonl").string()};
        CHECK(contains(failure(Exit::bad_data, [&] { documents(path); }), "x.jsonl:4 has a field 'text' that is a number, not a text"));
        TextOptions options;
        options.malformed = MalformedPolicy::skip;
        options.json_keys = {"title", "text"};
        TextCounts counts;
        CHECK(documents(path, options, &counts) == std::vector<std::string>{"one", "T\ntwo", "last"});
        CHECK(counts.malformed == 4);
        write_bytes(folder / "y.jsonl.zst", zstandard("{\"body\": \"b\"}\n"));
        CHECK(contains(failure(Exit::bad_data, [&] { documents({(folder / "y.jsonl.zst").string()}); }),
                       "y.jsonl.zst:1 has no field 'text' (it has: body)"));
    }

    TEST_CASE("what does not exist or holds nothing") {
        TemporaryFolder folder;
        CHECK(contains(failure(Exit::missing_input, [&] { find_input_files({(folder / "none.txt").string()}); }), "none.txt does not exist"));
        CHECK(contains(failure(Exit::bad_data, [&] { find_input_files({folder.path().string()}); }), "holds no files"));
        failure(Exit::missing_input, [&] { ByteSource source(folder.path()); });
        failure(Exit::usage, [] { find_input_files({}); });
    }
}

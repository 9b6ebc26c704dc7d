// safetensors: golden bytes of the reference implementation, every rule broken once, and damage at every byte of a header.
#include "checkpoint/safetensors.hpp"

#include "checkpoint/temporary_folder.hpp"
#include "core/file.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <set>

using namespace flanmoe;

namespace {

// File of a header text and its data.
std::string file_of(const std::string& header, const std::string& data) {
    std::string bytes;
    for (int i = 0; i < 8; ++i) bytes += static_cast<char>(header.size() >> (8 * i) & 255);
    return bytes + header + data;
}

void put(const std::filesystem::path& path, const std::string& bytes) {
    OutputFile file(path);
    file.write(bytes);
    file.close(false);
}

// "" if the file is accepted, else the sentence it is refused with.
std::string refusal(const std::string& bytes) {
    const TemporaryFolder folder;
    put(folder / "x", bytes);
    try {
        const SafetensorsFile file(folder / "x");
        for (const TensorEntry& entry : file.entries()) file.bytes(entry);
    } catch (const Error& error) {
        CHECK(error.code == Exit::bad_checkpoint);
        const std::string text = error.what();
        CHECK(text.find((folder / "x").string()) == 0);  // names the file
        CHECK(text.find(';') != std::string::npos);      // and a remedy
        return text;
    }
    return "";
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

HostTensor tensor_of(Shape shape, std::vector<float> values) {
    HostTensor tensor(DType::f32, shape);
    std::copy(values.begin(), values.end(), tensor.as<float>());
    return tensor;
}

const std::string golden_header =
    R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"BF16","shape":[2,1],"data_offsets":[8,12]}}  )";
const std::string golden_data("\x00\x00\x80\x3f\x00\x00\x00\xc0\x80\x3f\x00\xc0", 12);

}  // namespace

TEST_SUITE("checkpoint/safetensors") {
    TEST_CASE("the writer's bytes are those of the reference") {
        const TemporaryFolder folder;
        HostTensor a = tensor_of({2}, {1, -2}), b = tensor_of({2, 1}, {1, -2});
        SafetensorsWriter writer;
        writer.add("b", b.view(), DType::bf16);
        writer.add("a", a.view());
        writer.write(folder / "x");
        const std::string bytes = read_file(folder / "x");
        CHECK(bytes.size() == 164);
        CHECK(bytes == file_of(golden_header, golden_data));

        SafetensorsWriter(std::map<std::string, std::string>{}).write(folder / "empty");
        CHECK(read_file(folder / "empty") == file_of("{}      ", ""));
    }

    TEST_CASE("what is written is read back: types, empty tensors, scalars, strides, odd names") {
        const TemporaryFolder folder;
        HostTensor matrix = tensor_of({3, 4}, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}), empty(DType::f64, {0, 7}), scalar(DType::f64, {}),
                   whole(DType::i64, {3});
        scalar.as<double>()[0] = 1.0 / 3;
        whole.as<int64_t>()[0] = -100, whole.as<int64_t>()[1] = (int64_t{1} << 62) + 1, whole.as<int64_t>()[2] = 7;
        SafetensorsWriter writer;
        writer.add("columns", matrix.view().columns(1, 2));
        writer.add("empty", empty.view());
        writer.add("scalar", scalar.view());
        writer.add("whole", whole.view());
        writer.add("quote\" \\ \n \xc3\xa9", matrix.view(), DType::bf16);
        writer.write(folder / "x");
        const SafetensorsFile file(folder / "x");
        CHECK(file.entries().size() == 5);
        CHECK(file.metadata().at("format") == "pt");
        const HostTensor columns = file.load(file.at("columns"));
        CHECK(columns.shape == Shape{3, 2});
        CHECK(columns.as<float>()[3] == 6);
        CHECK(file.at("empty").bytes() == 0);
        CHECK(file.load(file.at("scalar")).as<double>()[0] == 1.0 / 3);
        CHECK(file.load(file.at("whole")).as<int64_t>()[1] == (int64_t{1} << 62) + 1);
        CHECK(file.find("quote\" \\ \n \xc3\xa9") != nullptr);

        HostTensor wide(DType::f64, {3, 5});
        file.read_as(file.at("columns"), wide.view().columns(2, 2));
        CHECK(wide.as<double>()[5 + 2] == 5);
        CHECK_THROWS_AS(file.read_as(file.at("columns"), matrix.view()), Error);         // another shape
        CHECK_THROWS_AS(file.load(file.at("whole"), DType::i32), Error);                 // does not fit
        CHECK_THROWS_AS(file.load(file.at("columns"), DType::i64), Error);               // floats as integers
        CHECK_THROWS_AS(file.at("nothing"), Error);

        std::map<std::string, HostTensor> all = load_all(folder / "x");
        save_all(folder / "y", all);
        CHECK(read_file(folder / "x") == read_file(folder / "y"));
    }

    TEST_CASE("half precision is converted exactly, subnormals and infinities included") {
        const TemporaryFolder folder;
        const std::string header = R"({"h":{"dtype":"F16","shape":[6],"data_offsets":[0,12]}})";
        put(folder / "x", file_of(header, std::string("\x00\x3c\x00\xc0\x01\x00\xff\x7b\x00\x7c\x01\x82", 12)));
        const SafetensorsFile file(folder / "x");
        const HostTensor h = file.load(file.at("h"));
        const std::vector<float> expected = {1, -2, 0x1p-24f, 65504, std::numeric_limits<float>::infinity(), -513 * 0x1p-24f};
        for (size_t i = 0; i < expected.size(); ++i) CHECK(h.as<float>()[i] == expected[i]);
    }

    TEST_CASE("every rule of the format is enforced") {
        CHECK(refusal(file_of(golden_header, golden_data)) == "");
        CHECK(refusal(file_of(" \t\r\n{}\n", "")) == "");
        CHECK(refusal(file_of(R"({"a":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}})", "x")) == "");
        CHECK(refusal(file_of(R"({"a":{"dtype":"U8","shape":[0,9],"data_offsets":[0,0]},"b":{"data_offsets":[0,1],"shape":[],"dtype":"U8"}})",
                              "x")) == "");
        const auto entry = [](const std::string& fields) { return fmt::format(R"({{"a":{{{}}}}})", fields); };
        const std::vector<std::pair<std::string, std::string>> broken = {
            {"", "less than the 8"},
            {"1234567", "less than the 8"},
            {std::string(8, '\xff'), "above the limit"},
            {std::string("\x00\x00\x00\x00\x00\x00\x00\x80{}", 10), "above the limit"},
            {std::string("\x09\0\0\0\0\0\0\0{}", 10), "past the end"},
            {file_of("", ""), "start with an object"},
            {file_of("[]", ""), "start with an object"},
            {file_of("\xef\xbb\xbf{}", ""), "start with an object"},
            {file_of("{}x", ""), "not JSON"},
            {file_of(std::string("{}\0", 3), ""), "zero byte"},
            {file_of("{", ""), "not JSON"},
            {file_of("{\"\xff\":1}", ""), "not JSON"},
            {file_of("{\"\xc0\xaf\":1}", ""), "not JSON"},
            {file_of(R"({"a":[]})", ""), "an array"},
            {file_of(R"({"a":null})", ""), "null"},
            {file_of(R"({"a":{"dtype":"F99","shape":[1],"data_offsets":[0,1]}})", "x"), "unknown dtype"},
            {file_of(R"({"a":{"dtype":"f32","shape":[1],"data_offsets":[0,4]}})", "xxxx"), "unknown dtype"},
            {file_of(entry(R"("dtype":"U8","shape":[1])"), "x"), "lacks one"},
            {file_of(entry(R"("dtype":"U8","shape":[1],"data_offsets":[0,1],"more":[1])"), "x"), "unknown field"},
            {file_of(entry(R"("dtype":"U8","shape":[1],"shape":[1],"data_offsets":[0,1])"), "x"), "twice"},
            {file_of(entry(R"("dtype":"U8","shape":[-1],"data_offsets":[0,1])"), "x"), "negative"},
            {file_of(entry(R"("dtype":"U8","shape":[1.0],"data_offsets":[0,1])"), "x"), "not an integer"},
            {file_of(entry(R"("dtype":"U8","shape":[1e0],"data_offsets":[0,1])"), "x"), "not an integer"},
            {file_of(entry(R"("dtype":"U8","shape":[01],"data_offsets":[0,1])"), "x"), "not JSON"},
            {file_of(entry(R"("dtype":"U8","shape":["1"],"data_offsets":[0,1])"), "x"), "a string"},
            {file_of(entry(R"("dtype":"U8","shape":[[1]],"data_offsets":[0,1])"), "x"), "an array"},
            {file_of(entry(R"("dtype":"U8","shape":1,"data_offsets":[0,1])"), "x"), "a number"},
            {file_of(entry(R"("dtype":"U8","shape":[true],"data_offsets":[0,1])"), "x"), "true or false"},
            {file_of(entry(R"("dtype":"U8","shape":[1],"data_offsets":[0])"), "x"), "not two numbers"},
            {file_of(entry(R"("dtype":"U8","shape":[1],"data_offsets":[0,1,1])"), "x"), "too long"},
            {file_of(entry(R"("dtype":"U8","shape":[1],"data_offsets":[1,0])"), "x"), "before it begins"},
            {file_of(entry(R"("dtype":"U8","shape":[18446744073709551615],"data_offsets":[0,1])"), "x"), "2^63"},
            {file_of(entry(R"("dtype":"U8","shape":[99999999999999999999],"data_offsets":[0,1])"), "x"), "2^63"},
            {file_of(entry(R"("dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0])"), ""), "overflows"},
            {file_of(entry(R"("dtype":"U64","shape":[2305843009213693952],"data_offsets":[0,0])"), ""), "overflows"},
            {file_of(entry(R"("dtype":"F4","shape":[3],"data_offsets":[0,1])"), "x"), "whole bytes"},
            {file_of(entry(R"("dtype":"U16","shape":[1],"data_offsets":[0,1])"), "x"), "needs 2 bytes"},
            {file_of(entry(R"("dtype":"U8","shape":[1],"data_offsets":[1,2])"), "xx"), "a hole"},
            {file_of(entry(R"("dtype":"U8","shape":[1],"data_offsets":[0,1])"), "xx"), "appended"},
            {file_of(entry(R"("dtype":"U8","shape":[2],"data_offsets":[0,2])"), "x"), "truncated"},
            {file_of(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})", "xxx"),
             "an overlap"},
            {file_of(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})", "xx"), "twice"},
            {file_of(R"({"__metadata__":{"a":"b","a":"c"}})", ""), "twice"},
            {file_of(R"({"__metadata__":{},"__metadata__":{}})", ""), "twice"},
            {file_of(R"({"__metadata__":{"a":1}})", ""), "a number"},
            {file_of(R"({"__metadata__":{"a":{}}})", ""), "a nested object"},
            {file_of(R"({"__metadata__":[]})", ""), "an array"},
            {file_of(fmt::format(R"({{"{}":{{}}}})", std::string(513, 'n')), ""), "more than 512 bytes"},
            {file_of(fmt::format(R"({{"a":{})", std::string(100000, '[')), ""), "an array"},
        };
        for (const auto& [bytes, reason] : broken) {
            CAPTURE(reason);
            CAPTURE(bytes.substr(0, 120));
            const std::string text = refusal(bytes);
            CAPTURE(text);
            CHECK(contains(text, reason));
        }
    }

    TEST_CASE("limits on entries and header") {
        const TemporaryFolder folder;
        std::string header = "{";
        for (int i = 0; i < 20; ++i) header += fmt::format(R"({}"{}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})", i ? "," : "", i);
        put(folder / "x", file_of(header + "}", ""));
        SafetensorsLimits limits;
        limits.entries = 20;
        CHECK(SafetensorsFile(folder / "x", limits).entries().size() == 20);
        limits.entries = 18;
        CHECK_THROWS_AS(SafetensorsFile(folder / "x", limits), Error);
        limits.entries = 20, limits.header_bytes = 64;
        CHECK_THROWS_AS(SafetensorsFile(folder / "x", limits), Error);
        CHECK_THROWS_AS(SafetensorsFile(folder.path()), Error);
        CHECK_THROWS_AS(SafetensorsFile(folder / "missing"), Error);
    }

    TEST_CASE("a file cut anywhere is refused") {
        const std::string good = file_of(golden_header, golden_data);
        for (size_t size = 0; size < good.size(); ++size) CHECK(refusal(good.substr(0, size)) != "");
    }

    TEST_CASE("a flipped bit of the header is refused, or leaves a header that keeps every rule") {
        const std::string good = file_of(golden_header, golden_data);
        int accepted = 0;
        for (size_t i = 0; i < 8 + golden_header.size(); ++i)
            for (int bit = 0; bit < 8; ++bit) {
                std::string bytes = good;
                bytes[i] = static_cast<char>(bytes[i] ^ (1 << bit));
                if (refusal(bytes) != "") continue;
                ++accepted;
                // Only a name, a metadata text or white space may change; sizes, types of the same width aside, may not.
                const TemporaryFolder folder;
                put(folder / "x", bytes);
                const SafetensorsFile file(folder / "x");
                REQUIRE(file.entries().size() == 2);
                CHECK(file.entries()[0].elements() == 2);
                CHECK(file.entries()[0].bytes() == 8);
                CHECK(file.entries()[1].bytes() == 4);
            }
        CHECK(accepted > 0);
        CHECK(accepted < 200);  // of 1216 flips: names (2 letters), metadata key and value (8 letters), U32/F32-like type letters, spaces
    }

    TEST_CASE("a flipped bit in the data leaves the header good: only a hash finds it") {
        std::string bytes = file_of(golden_header, golden_data);
        bytes.back() ^= 1;
        CHECK(refusal(bytes) == "");
    }
}

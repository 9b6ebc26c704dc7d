#include "train/tensorboard.hpp"

#include "core/file.hpp"
#include "train/temporary_directory.hpp"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

using namespace flanmoe;

namespace {

std::string hex(const std::string& bytes) {
    std::string text;
    for (const char c : bytes) text += fmt::format("{:02x}", static_cast<unsigned char>(c));
    return text;
}

// Payloads of a file of records; every checksum is verified.
std::vector<std::string> payloads(const std::string& file) {
    std::vector<std::string> found;
    for (size_t at = 0; at < file.size();) {
        uint64_t length = 0;
        uint32_t crc = 0;
        REQUIRE(at + 12 <= file.size());
        std::memcpy(&length, file.data() + at, 8);
        std::memcpy(&crc, file.data() + at + 8, 4);
        CHECK(crc == masked_crc32c(file.substr(at, 8)));
        REQUIRE(at + 16 + length <= file.size());
        found.push_back(file.substr(at + 12, length));
        std::memcpy(&crc, file.data() + at + 12 + length, 4);
        CHECK(crc == masked_crc32c(found.back()));
        at += 16 + length;
    }
    return found;
}

}  // namespace

TEST_SUITE("train/tensorboard") {
    TEST_CASE("checksums give the known answers") {
        CHECK(crc32c("123456789") == 0xe3069283u);
        CHECK(crc32c(std::string(32, '\0')) == 0x8a9136aau);
        CHECK(masked_crc32c("\x1a\x11" "CRC test, one two") == 0x5794d08au);
    }

    TEST_CASE("records are the recorded bytes") {
        CHECK(hex(event_file_version(0.0)) == "1800000000000000a37f4b220900000000000000001a0d627261696e2e4576656e743a32eedf28a3");
        CHECK(hex(event_scalar(1.5, 7, "loss", 0.5f)) == "1a00000000000000129bd82d09000000000000f83f10072a0d0a0b0a046c6f7373150000003f79e18fbb");
    }

    TEST_CASE("a resumed run's file starts with a session mark that hides the steps after the resumed one") {
        test::TemporaryDirectory folder;
        EventFile first(folder.path, 0), second(folder.path, 300);
        first.write("train", 5, {{"loss", 1.0}, {"gradient_norm", std::nan("")}});
        std::vector<std::filesystem::path> files;
        for (const auto& entry : std::filesystem::directory_iterator(folder.path)) files.push_back(entry.path());
        REQUIRE(files.size() == 2);
        std::sort(files.begin(), files.end());
        CHECK(files[0].filename().string().starts_with("events.out.tfevents."));
        const auto fresh = payloads(read_file(files[0])), resumed = payloads(read_file(files[1]));
        REQUIRE(fresh.size() == 3);
        CHECK(hex(fresh[1]).substr(18) == "3a020801");  // the mark at step 0, which is left out
        CHECK(fresh[2].find("train/loss") != std::string::npos);
        REQUIRE(resumed.size() == 2);
        // step 301 as a varint, then session_log { status: START }
        CHECK(hex(resumed[1]).substr(18) == "10ad02" "3a020801");
    }
}

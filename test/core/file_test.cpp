// Files: whole contents, atomic replacement, and one error with its exit code for every failure.
#include "core/file.hpp"

#include "core/error.hpp"

#include <doctest/doctest.h>
#include <unistd.h>

#include <fstream>

using namespace flanmoe;
namespace fs = std::filesystem;

namespace {

// A folder of its own, removed at the end.
struct Folder {
    fs::path path;
    Folder() {
        std::string name = (fs::temp_directory_path() / "flanmoe-file-XXXXXX").string();
        REQUIRE(mkdtemp(name.data()) != nullptr);
        path = name;
    }
    ~Folder() { fs::remove_all(path); }
};

template <class Action>
void check_fails(Exit code, const std::string& part, Action&& action) {
    try {
        action();
        FAIL_CHECK("no error, expected one that names " << part);
    } catch (const Error& error) {
        CHECK(static_cast<int>(error.code) == static_cast<int>(code));
        CHECK_MESSAGE(std::string(error.what()).find(part) != std::string::npos, error.what());
    }
}

int64_t entries(const fs::path& folder) { return std::distance(fs::directory_iterator(folder), fs::directory_iterator()); }

}  // namespace

TEST_SUITE("core/file") {
    TEST_CASE("what is written is read, mapped, appended to") {
        const Folder folder;
        const fs::path path = folder.path / "a.bin";
        std::string bytes(3'000'001, '\0');  // several buffers, bytes of every value
        for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 31 + i / 256);
        {
            OutputFile file(path);
            file.write(std::string_view(bytes).substr(0, 10));
            file.write(std::string_view(bytes).substr(10));
            CHECK(file.size() == static_cast<int64_t>(bytes.size()));
            file.close();
        }
        CHECK(read_file(path) == bytes);
        CHECK(MappedFile(path).bytes() == bytes);
        {
            OutputFile file(path, true);
            CHECK(file.size() == static_cast<int64_t>(bytes.size()));
            file.write("end");
            file.flush();
            CHECK(fs::file_size(path) == bytes.size() + 3);
            file.close(false);
        }
        CHECK(read_file(path) == bytes + "end");
        {
            OutputFile file(path);  // without append: from the start
            file.close(false);
        }
        CHECK(read_file(path).empty());
        CHECK(MappedFile(path).bytes().empty());
    }

    TEST_CASE("a mapping moves") {
        const Folder folder;
        write_file_atomically(folder.path / "a", "hello");
        write_file_atomically(folder.path / "b", "world");
        MappedFile a(folder.path / "a"), b(folder.path / "b");
        MappedFile moved(std::move(a));
        CHECK(moved.bytes() == "hello");
        moved = std::move(b);
        CHECK(moved.bytes() == "world");
    }

    TEST_CASE("write_file_atomically replaces and leaves nothing else behind") {
        const Folder folder;
        const fs::path path = folder.path / "state.json";
        write_file_atomically(path, "old");
        write_file_atomically(path, "new");
        CHECK(read_file(path) == "new");
        CHECK(entries(folder.path) == 1);
        check_fails(Exit::cannot_create, "missing", [&] { write_file_atomically(folder.path / "missing" / "x", "new"); });
    }

    TEST_CASE("errors name the path and carry their exit code") {
        const Folder folder;
        const fs::path missing = folder.path / "missing.bin", small = folder.path / "small.bin";
        write_file_atomically(small, "12345");
        check_fails(Exit::missing_input, "missing.bin", [&] { read_file(missing); });
        check_fails(Exit::missing_input, "missing.bin", [&] { MappedFile file(missing); });
        check_fails(Exit::missing_input, folder.path.string(), [&] { read_file(folder.path); });
        check_fails(Exit::missing_input, folder.path.string(), [&] { MappedFile file(folder.path); });
        check_fails(Exit::bad_data, "small.bin", [&] { read_file(small, 4); });
        CHECK(read_file(small, 5) == "12345");
        check_fails(Exit::cannot_create, "missing", [&] { OutputFile file(folder.path / "missing" / "x"); });
        check_fails(Exit::io, "missing", [&] { sync_directory(folder.path / "missing"); });
    }

    TEST_CASE("a full disk is an error, not a short file") {
        if (!fs::exists("/dev/full")) return;
        check_fails(Exit::io, "/dev/full", [&] {
            OutputFile file("/dev/full");
            file.write("x");
            file.close();
        });
    }
}

// Files: reading whole, mapping, and writing so that a crash leaves either the old file or the new one. Every error names path and remedy.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace flanmoe {

/// Whole file as bytes; Exit::missing_input if it is missing, unreadable or a directory; Exit::bad_data above `limit` bytes.
std::string read_file(const std::filesystem::path& path, int64_t limit = int64_t{1} << 40);

/// Read-only mapping of a file, unmapped on destruction. Same errors as read_file.
class MappedFile {
public:
    MappedFile() = default;
    explicit MappedFile(const std::filesystem::path& path);
    MappedFile(MappedFile&& other) noexcept { swap(other); }
    MappedFile& operator=(MappedFile&& other) noexcept {
        swap(other);
        return *this;
    }
    ~MappedFile();
    std::string_view bytes() const { return {data_, static_cast<size_t>(size_)}; }

private:
    void swap(MappedFile& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
    }
    const char* data_ = nullptr;
    int64_t size_ = 0;
};

/// Output file that reports every failure (Exit::io, with path and reason; Exit::cannot_create on opening). close() syncs to disk.
class OutputFile {
public:
    explicit OutputFile(const std::filesystem::path& path, bool append = false);
    OutputFile(const OutputFile&) = delete;
    ~OutputFile();
    void write(std::string_view bytes);
    void flush();  ///< hand buffered bytes to the operating system
    void close(bool sync = true);
    int64_t size() const { return size_; }

private:
    std::filesystem::path path_;
    int descriptor_ = -1;
    std::string buffer_;
    int64_t size_ = 0;
};

/// Writes to a temporary file beside `path`, syncs, renames over it and syncs the directory.
void write_file_atomically(const std::filesystem::path& path, std::string_view bytes);
/// fsync of a directory, so that a rename inside it survives a power loss.
void sync_directory(const std::filesystem::path& path);

}  // namespace flanmoe

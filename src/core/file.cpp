#include "core/file.hpp"

#include "core/error.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace flanmoe {

namespace {

// Opens for reading and returns the descriptor with the size; refuses directories, which open() would accept.
int open_input(const std::filesystem::path& path, int64_t& size) {
    const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) fail(Exit::missing_input, "cannot read {}: {}; check the path and its permissions", path.string(), std::strerror(errno));
    struct stat status {};
    if (::fstat(descriptor, &status) != 0 || S_ISDIR(status.st_mode)) {
        ::close(descriptor);
        fail(Exit::missing_input, "{} is a directory where a file is expected; name a file inside it", path.string());
    }
    size = status.st_size;
    return descriptor;
}

constexpr size_t buffer_bytes = size_t{1} << 20;

}  // namespace

std::string read_file(const std::filesystem::path& path, int64_t limit) {
    int64_t size = 0;
    const int descriptor = open_input(path, size);
    if (size > limit) {
        ::close(descriptor);
        fail(Exit::bad_data, "{} has {} bytes, more than the {} that are allowed for such a file", path.string(), size, limit);
    }
    std::string bytes;
    bytes.reserve(static_cast<size_t>(size));
    char block[65536];
    for (;;) {
        const ssize_t got = ::read(descriptor, block, sizeof block);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) {
            const int reason = errno;
            ::close(descriptor);
            fail(Exit::io, "reading {} failed: {}", path.string(), std::strerror(reason));
        }
        if (got == 0) break;
        bytes.append(block, static_cast<size_t>(got));
    }
    ::close(descriptor);
    return bytes;
}

MappedFile::MappedFile(const std::filesystem::path& path) {
    const int descriptor = open_input(path, size_);
    if (size_ > 0) {
        void* data = ::mmap(nullptr, static_cast<size_t>(size_), PROT_READ, MAP_PRIVATE, descriptor, 0);
        const int reason = errno;
        ::close(descriptor);
        if (data == MAP_FAILED) fail(Exit::io, "cannot map {}: {}", path.string(), std::strerror(reason));
        data_ = static_cast<const char*>(data);
    } else {
        ::close(descriptor);
    }
}

MappedFile::~MappedFile() {
    if (data_) ::munmap(const_cast<char*>(data_), static_cast<size_t>(size_));
}

OutputFile::OutputFile(const std::filesystem::path& path, bool append) : path_(path) {
    descriptor_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | (append ? O_APPEND : O_TRUNC), 0666);
    if (descriptor_ < 0) fail(Exit::cannot_create, "cannot create {}: {}; check that its folder exists and is writable", path.string(), std::strerror(errno));
    if (append) size_ = ::lseek(descriptor_, 0, SEEK_END);
    buffer_.reserve(buffer_bytes);
}

OutputFile::~OutputFile() {
    if (descriptor_ >= 0) ::close(descriptor_);
}

void OutputFile::write(std::string_view bytes) {
    size_ += static_cast<int64_t>(bytes.size());
    buffer_.append(bytes);
    if (buffer_.size() >= buffer_bytes) flush();
}

void OutputFile::flush() {
    size_t done = 0;
    while (done < buffer_.size()) {
        const ssize_t wrote = ::write(descriptor_, buffer_.data() + done, buffer_.size() - done);
        if (wrote < 0 && errno == EINTR) continue;
        if (wrote < 0) fail(Exit::io, "writing {} failed: {}; free some space and run the same command again", path_.string(), std::strerror(errno));
        done += static_cast<size_t>(wrote);
    }
    buffer_.clear();
}

void OutputFile::close(bool sync) {
    flush();
    if (sync && ::fsync(descriptor_) != 0) fail(Exit::io, "syncing {} to disk failed: {}", path_.string(), std::strerror(errno));
    const int result = ::close(descriptor_);
    descriptor_ = -1;
    if (result != 0) fail(Exit::io, "closing {} failed: {}", path_.string(), std::strerror(errno));
}

void sync_directory(const std::filesystem::path& path) {
    const std::filesystem::path folder = path.empty() ? "." : path;
    const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor < 0) fail(Exit::io, "cannot open folder {}: {}", folder.string(), std::strerror(errno));
    const int result = ::fsync(descriptor);
    const int reason = errno;
    ::close(descriptor);
    if (result != 0) fail(Exit::io, "syncing folder {} to disk failed: {}", folder.string(), std::strerror(reason));
}

void write_file_atomically(const std::filesystem::path& path, std::string_view bytes) {
    std::filesystem::path temporary = path;
    temporary += ".tmp";
    OutputFile file(temporary);
    file.write(bytes);
    file.close();
    std::error_code error;
    std::filesystem::rename(temporary, path, error);
    if (error) fail(Exit::io, "renaming {} to {} failed: {}", temporary.string(), path.string(), error.message());
    sync_directory(path.parent_path());
}

}  // namespace flanmoe

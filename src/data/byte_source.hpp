// Files as a stream of bytes or lines, decompressed on the way.
//
// Gzip and Zstandard are recognised by their first bytes, not by the name; several compressed members in a row are one stream. A file whose
// compressed data is damaged or ends early is refused (Exit::bad_data).
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

namespace flanmoe {

class ByteSource {
public:
    /// Exit::missing_input if the file is missing, unreadable or a directory.
    explicit ByteSource(const std::filesystem::path& path);
    ~ByteSource();
    ByteSource(const ByteSource&) = delete;

    /// Up to `size` decompressed bytes; 0 only at the end.
    size_t read(char* bytes, size_t size);
    /// Bytes of the file itself read so far, for progress.
    int64_t consumed() const;

private:
    struct State;
    std::unique_ptr<State> state_;
};

/// Everything that is left of a stream.
std::string read_all(ByteSource& source);

/// Lines of a stream, without their ends (\n or \r\n). A last line without an end counts.
class LineReader {
public:
    explicit LineReader(const std::filesystem::path& path) : source_(path) {}
    bool next(std::string& line);
    int64_t line_number() const { return line_; }    ///< of the last line returned, from 1
    int64_t byte_offset() const { return begin_; }   ///< where it begins, in decompressed bytes
    int64_t consumed() const { return source_.consumed(); }

private:
    ByteSource source_;
    std::string buffer_;
    size_t position_ = 0;
    int64_t line_ = 0, begin_ = 0, next_begin_ = 0;
    bool ended_ = false;
};

}  // namespace flanmoe

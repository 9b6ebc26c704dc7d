// Files with XXH3-128 hashes: an output that hashes what passes through it, and the hash of a file that exists.
//
// The hash is of what was meant to be written, not of what the disk gives back: whatever happens to the bytes on their way is found by comparing.
#pragma once

#include "core/file.hpp"

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

namespace flanmoe {

class HashedFile {
public:
    explicit HashedFile(const std::filesystem::path& path);
    ~HashedFile();
    void write(std::string_view bytes);
    /// Syncs and closes; returns the hash as 32 hex digits.
    std::string close();
    int64_t size() const { return file_.size(); }

private:
    struct State;
    OutputFile file_;
    std::unique_ptr<State> state_;
};

/// Hash of a file's content, read in pieces.
std::string hash_file(const std::filesystem::path& path);
std::string hash_bytes(std::string_view bytes);
/// Writes, syncs and closes a file; returns its hash.
std::string write_hashed(const std::filesystem::path& path, std::string_view bytes);

}  // namespace flanmoe

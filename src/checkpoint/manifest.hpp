// manifest.json of a checkpoint: format version, step, size and XXH3-128 of every file. A checkpoint counts only if it has one and all of it holds.
#pragma once

#include "checkpoint/model_directory.hpp"

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

namespace flanmoe {

struct Manifest {
    struct File {
        int64_t bytes = 0;
        std::string hash;
    };
    int64_t version = 0, step = 0;
    std::map<std::string, File> files;  ///< by path relative to the checkpoint
};

/// Writes and syncs manifest.json for the files whose hashes are given; returns the bytes of all files.
int64_t write_manifest(const std::filesystem::path& directory, int64_t step, const FileHashes& hashes);
/// Exit::bad_checkpoint if it is missing, malformed, of a newer version, or names files outside of the checkpoint.
Manifest read_manifest(const std::filesystem::path& directory);

}  // namespace flanmoe

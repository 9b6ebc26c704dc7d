// A lock between processes on a file, which the kernel drops with the process, so that none can stay behind.
#pragma once

#include <filesystem>

namespace flanmoe {

class FileLock {
public:
    /// Makes the file if it is not there; Exit::cannot_create if it cannot.
    explicit FileLock(const std::filesystem::path& path);
    FileLock(const FileLock&) = delete;
    ~FileLock();
    /// Whether it is held now; false if another process holds it.
    bool try_lock();
    /// From now on processes that this one starts hold it too, until they end.
    void share();
    /// Waits until it is held. Exit::cannot_create where the file system has no locks.
    void lock();

private:
    bool hold(int how);

    std::filesystem::path path_;
    int descriptor_ = -1;
};

}  // namespace flanmoe

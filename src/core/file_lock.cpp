#include "core/file_lock.hpp"

#include "core/error.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace flanmoe {

FileLock::FileLock(const std::filesystem::path& path) : path_(path), descriptor_(::open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0666)) {
    if (descriptor_ < 0) fail(Exit::cannot_create, "cannot create {}: {}; check the path and its permissions", path.string(), std::strerror(errno));
}

FileLock::~FileLock() { ::close(descriptor_); }

bool FileLock::try_lock() {
    int result = 0;
    do result = ::flock(descriptor_, LOCK_EX | LOCK_NB);
    while (result != 0 && errno == EINTR);
    if (result != 0 && errno != EWOULDBLOCK) fail(Exit::cannot_create, "{} cannot be locked: {}; choose a file system that has locks", path_.string(), std::strerror(errno));
    return result == 0;
}

void FileLock::share() { ::fcntl(descriptor_, F_SETFD, 0); }

void FileLock::lock() {
    int result = 0;
    do result = ::flock(descriptor_, LOCK_EX);
    while (result != 0 && errno == EINTR);
    if (result != 0) fail(Exit::cannot_create, "{} cannot be locked: {}; choose a file system that has locks", path_.string(), std::strerror(errno));
}

}  // namespace flanmoe

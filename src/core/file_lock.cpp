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

// false: another process holds it, and `how` says not to wait.
bool FileLock::hold(int how) {
    int result = 0;
    do result = ::flock(descriptor_, how);
    while (result != 0 && errno == EINTR);
    if (result != 0 && errno != EWOULDBLOCK) fail(Exit::cannot_create, "{} cannot be locked: {}; choose a file system that has locks", path_.string(), std::strerror(errno));
    return result == 0;
}

bool FileLock::try_lock() { return hold(LOCK_EX | LOCK_NB); }

void FileLock::lock() { hold(LOCK_EX); }

void FileLock::share() { ::fcntl(descriptor_, F_SETFD, 0); }

}  // namespace flanmoe

// A library to preload (LD_PRELOAD) that makes one file operation of a process fail, or ends the process there.
//
// It counts the operations that change files under one folder: creating, writing, syncing, renaming, removing, truncating, making folders. The k-th
// of them fails with an error, writes only half, never returns, or kills or stops the process; opening for reading counts too if asked for. A signal can be given the same meaning: what it meets never
// goes on. How to use it: README.md here. No C++ run-time is needed, so that it can be preloaded into anything.
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

namespace {

enum class Kind { none, fail, half, kill_before, kill_after, stop, hang };

struct Plan {
    char folder[PATH_MAX] = "";
    size_t folder_length = 0;
    const char* log = nullptr;
    long at = 0;
    Kind kind = Kind::none;
    int error = 0;
    bool persistent = false;  // every operation from the k-th on
    bool reads = false;       // opening for reading counts

    Plan() {
        const char *under = getenv("FAULT_UNDER"), *number = getenv("FAULT_AT"), *what = getenv("FAULT_KIND");
        if (!under || !number || !what || !realpath(under, folder)) return;
        folder_length = strlen(folder);
        log = getenv("FAULT_LOG");
        at = atol(number);
        reads = getenv("FAULT_READS") != nullptr;
        const size_t length = strlen(what);
        persistent = length > 0 && what[length - 1] == '+';
        const auto is = [&](const char* name) { return strncmp(what, name, strlen(name)) == 0; };
        kind = is("enospc") || is("eio") ? Kind::fail
               : is("half")              ? Kind::half
               : is("kill-after")        ? Kind::kill_after
               : is("kill")              ? Kind::kill_before
               : is("stop")              ? Kind::stop
               : is("hang")              ? Kind::hang
                                         : Kind::none;
        error = is("enospc") ? ENOSPC : EIO;
    }
};

// Constructed at the first operation, which may come before our static initialisers.
Plan& plan() {
    static Plan the_plan;
    return the_plan;
}

long counter = 0;

template <class Function>
Function next(const char* name) {
    return reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
}

bool under_folder(const char* path) {
    const Plan& p = plan();
    return p.kind != Kind::none && strncmp(path, p.folder, p.folder_length) == 0 && (path[p.folder_length] == '/' || path[p.folder_length] == '\0');
}

// Path of an open file; "" if there is none.
const char* path_of(int descriptor, char* buffer) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    const ssize_t length = readlink(link, buffer, PATH_MAX - 1);
    buffer[length > 0 ? length : 0] = '\0';
    return buffer;
}

// Absolute path of a name relative to an open folder.
const char* absolute(int folder, const char* name, char* buffer) {
    if (name[0] == '/') return name;
    if (folder == AT_FDCWD) {
        if (!getcwd(buffer, PATH_MAX)) return "";
    } else {
        path_of(folder, buffer);
    }
    const size_t length = strlen(buffer);
    snprintf(buffer + length, static_cast<size_t>(PATH_MAX) - length, "/%s", name);
    return buffer;
}

void report(const char* operation, const char* path, long number) {
    if (!plan().log) return;
    const int descriptor = next<int (*)(const char*, int, ...)>("open")(plan().log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (descriptor < 0) return;
    char line[PATH_MAX + 64];
    const int length = snprintf(line, sizeof line, "%ld %s %s\n", number, operation, path);
    if (next<ssize_t (*)(int, const void*, size_t)>("write")(descriptor, line, static_cast<size_t>(length)) < 0) abort();
    next<int (*)(int)>("close")(descriptor);
}

// The calling thread goes no further; the others do.
[[noreturn]] void hang() {
    for (;;) pause();
}

// The main thread gets a process's signals, wherever it is.
__attribute__((constructor)) void begin() {
    if (const char* number = getenv("FAULT_HANG_SIGNAL")) signal(atoi(number), [](int) { hang(); });
    const char *at = getenv("FAULT_AT"), *kind = getenv("FAULT_KIND");
    if (at && kind && strcmp(at, "0") == 0 && strcmp(kind, "stop") == 0) kill(getpid(), SIGSTOP);
}

enum class Verdict { go_on, fail, half, die_after };

// Counts an operation and says what is to become of it. `needs_space`: it is one that a full disk refuses.
Verdict judge(const char* operation, const char* path, bool needs_space) {
    if (!under_folder(path)) return Verdict::go_on;
    const Plan& p = plan();
    const long number = __atomic_add_fetch(&counter, 1, __ATOMIC_SEQ_CST);
    if (number < p.at || (number > p.at && !p.persistent)) return Verdict::go_on;
    if (number > p.at && p.error == ENOSPC && !needs_space) return Verdict::go_on;
    if (number == p.at) report(operation, path, number);
    if (p.kind == Kind::kill_before) kill(getpid(), SIGKILL);
    if (p.kind == Kind::stop) {
        kill(getpid(), SIGSTOP);
        return Verdict::go_on;
    }
    if (p.kind == Kind::hang) hang();
    if (p.kind == Kind::kill_after) return Verdict::die_after;
    if (p.kind == Kind::half) return Verdict::half;
    errno = p.error;
    return Verdict::fail;
}

// Runs a judged operation that cannot be done by halves.
template <class Operation>
auto guarded(Verdict verdict, Operation operation) -> decltype(operation()) {
    if (verdict == Verdict::fail) return -1;
    const auto result = operation();
    if (verdict == Verdict::die_after) kill(getpid(), SIGKILL);
    return result;
}

int open_file(const char* symbol, int folder, const char* name, int flags, mode_t mode) {
    char buffer[PATH_MAX];
    const Verdict verdict = flags & (O_CREAT | O_TRUNC) || plan().reads ? judge("open", absolute(folder, name, buffer), true) : Verdict::go_on;
    return guarded(verdict, [&] { return next<int (*)(int, const char*, int, ...)>(symbol)(folder, name, flags, mode); });
}

mode_t mode_argument(int flags, va_list list) { return flags & (O_CREAT | O_TMPFILE) ? va_arg(list, mode_t) : 0; }

}  // namespace

extern "C" {

#define OPEN_WITH_MODE            \
    va_list list;                 \
    va_start(list, flags);        \
    const mode_t mode = mode_argument(flags, list); \
    va_end(list)

int open(const char* name, int flags, ...) {
    OPEN_WITH_MODE;
    return open_file("openat", AT_FDCWD, name, flags, mode);
}
int open64(const char* name, int flags, ...) {
    OPEN_WITH_MODE;
    return open_file("openat", AT_FDCWD, name, flags, mode);
}
int openat(int folder, const char* name, int flags, ...) {
    OPEN_WITH_MODE;
    return open_file("openat", folder, name, flags, mode);
}
int openat64(int folder, const char* name, int flags, ...) {
    OPEN_WITH_MODE;
    return open_file("openat", folder, name, flags, mode);
}

ssize_t write(int descriptor, const void* data, size_t count) {
    static const auto real = next<ssize_t (*)(int, const void*, size_t)>("write");
    if (plan().kind == Kind::none) return real(descriptor, data, count);
    char buffer[PATH_MAX];
    const Verdict verdict = judge("write", path_of(descriptor, buffer), true);
    return guarded(verdict, [&] { return real(descriptor, data, verdict == Verdict::half ? (count + 1) / 2 : count); });
}
ssize_t pwrite(int descriptor, const void* data, size_t count, off_t offset) {
    static const auto real = next<ssize_t (*)(int, const void*, size_t, off_t)>("pwrite");
    char buffer[PATH_MAX];
    const Verdict verdict = judge("pwrite", path_of(descriptor, buffer), true);
    return guarded(verdict, [&] { return real(descriptor, data, verdict == Verdict::half ? (count + 1) / 2 : count, offset); });
}
ssize_t writev(int descriptor, const struct iovec* pieces, int count) {
    char buffer[PATH_MAX];
    return guarded(judge("writev", path_of(descriptor, buffer), true),
                   [&] { return next<ssize_t (*)(int, const struct iovec*, int)>("writev")(descriptor, pieces, count); });
}
int fsync(int descriptor) {
    char buffer[PATH_MAX];
    return guarded(judge("fsync", path_of(descriptor, buffer), true), [&] { return next<int (*)(int)>("fsync")(descriptor); });
}
int fdatasync(int descriptor) {
    char buffer[PATH_MAX];
    return guarded(judge("fdatasync", path_of(descriptor, buffer), true), [&] { return next<int (*)(int)>("fdatasync")(descriptor); });
}
int ftruncate(int descriptor, off_t size) {
    char buffer[PATH_MAX];
    return guarded(judge("ftruncate", path_of(descriptor, buffer), false), [&] { return next<int (*)(int, off_t)>("ftruncate")(descriptor, size); });
}
int truncate(const char* name, off_t size) {
    char buffer[PATH_MAX];
    return guarded(judge("truncate", absolute(AT_FDCWD, name, buffer), false),
                   [&] { return next<int (*)(const char*, off_t)>("truncate")(name, size); });
}
int rename(const char* from, const char* to) {
    char buffer[PATH_MAX];
    return guarded(judge("rename", absolute(AT_FDCWD, to, buffer), false),
                   [&] { return next<int (*)(const char*, const char*)>("rename")(from, to); });
}
int renameat(int from_folder, const char* from, int to_folder, const char* to) {
    char buffer[PATH_MAX];
    return guarded(judge("renameat", absolute(to_folder, to, buffer), false),
                   [&] { return next<int (*)(int, const char*, int, const char*)>("renameat")(from_folder, from, to_folder, to); });
}
int renameat2(int from_folder, const char* from, int to_folder, const char* to, unsigned flags) {
    char buffer[PATH_MAX];
    return guarded(judge("renameat2", absolute(to_folder, to, buffer), false),
                   [&] { return next<int (*)(int, const char*, int, const char*, unsigned)>("renameat2")(from_folder, from, to_folder, to, flags); });
}
int unlink(const char* name) {
    char buffer[PATH_MAX];
    return guarded(judge("unlink", absolute(AT_FDCWD, name, buffer), false), [&] { return next<int (*)(const char*)>("unlink")(name); });
}
int unlinkat(int folder, const char* name, int flags) {
    char buffer[PATH_MAX];
    return guarded(judge("unlinkat", absolute(folder, name, buffer), false),
                   [&] { return next<int (*)(int, const char*, int)>("unlinkat")(folder, name, flags); });
}
int rmdir(const char* name) {
    char buffer[PATH_MAX];
    return guarded(judge("rmdir", absolute(AT_FDCWD, name, buffer), false), [&] { return next<int (*)(const char*)>("rmdir")(name); });
}
int remove(const char* name) {
    char buffer[PATH_MAX];
    return guarded(judge("remove", absolute(AT_FDCWD, name, buffer), false), [&] { return next<int (*)(const char*)>("remove")(name); });
}
int mkdir(const char* name, mode_t mode) {
    char buffer[PATH_MAX];
    return guarded(judge("mkdir", absolute(AT_FDCWD, name, buffer), true), [&] { return next<int (*)(const char*, mode_t)>("mkdir")(name, mode); });
}

}  // extern "C"

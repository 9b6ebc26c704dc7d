#include "train/rank_log.hpp"

#include "core/error.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace flanmoe {

namespace {

void write_line(int file, const std::string& sentence) {
    const std::string line = "flanmoe: " + sentence + "\n";
    if (::write(file, line.data(), line.size()) < 0) {
        // nobody reads; nothing to do
    }
}

}  // namespace

RankLog::RankLog(int rank) : rank_(rank) {
    if (rank == 0) return;
    terminal_ = ::fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
    const int nowhere = ::open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (terminal_ >= 0 && nowhere >= 0) ::dup2(nowhere, STDERR_FILENO);
    if (nowhere >= 0) ::close(nowhere);
}

RankLog::~RankLog() {
    if (terminal_ < 0) return;
    ::dup2(terminal_, STDERR_FILENO);
    ::close(terminal_);
}

void RankLog::open(const std::filesystem::path& run) {
    if (rank_ == 0) return;
    const std::filesystem::path folder = run / "logs", path = folder / fmt::format("rank-{:04}.log", rank_);
    std::error_code error;
    std::filesystem::create_directories(folder, error);
    const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (file < 0) fail(Exit::cannot_create, "cannot write {}: {}", path.string(), std::strerror(errno));
    ::dup2(file, STDERR_FILENO);
    ::close(file);
    open_ = true;
}

void RankLog::say(const std::string& sentence) const {
    write_line(terminal_ >= 0 ? terminal_ : STDERR_FILENO, sentence);
    if (open_) write_line(STDERR_FILENO, sentence);
}

}  // namespace flanmoe

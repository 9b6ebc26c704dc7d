#include "train/run_directory.hpp"

#include "checkpoint/checkpoint.hpp"
#include "core/error.hpp"
#include "core/file.hpp"
#include "core/log.hpp"

#include <nlohmann/json.hpp>

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>

namespace flanmoe {

namespace {

namespace fs = std::filesystem;

// Tells a run's own config from one that somebody wrote.
const std::string config_head = "# The whole config of this run, as flanmoe train took it; compared when the run goes on.\n\n";

double now() { return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count(); }

std::string host() {
    char name[256] = "";
    ::gethostname(name, sizeof name - 1);
    return name;
}

std::string owner() {
    const char* job = std::getenv("SLURM_JOB_ID");
    return fmt::format("process {} on {}{}", ::getpid(), host(), job ? fmt::format(", job {}", job) : "");
}

}  // namespace

RunDirectory::RunDirectory(const fs::path& path, const Config& config) : path_(path), steps_(config.train.steps), started_(now()) {
    std::error_code error;
    fs::create_directories(path_, error);
    if (error || !fs::is_directory(path_))
        fail(Exit::cannot_create, "cannot create the run directory {}: {}; name another one", path_.string(), error ? error.message() : "a file has that name");
    lock();
    try {
        take_up(config);
        write_file_atomically(this->config(), config_head + to_toml(config));
    } catch (...) {
        ::close(lock_);
        throw;
    }
}

RunDirectory::RunDirectory(const fs::path& path, int rank) : path_(path), rank_(rank), started_(now()) {
    if (!fs::is_directory(path_)) fail(Exit::missing_input, "the run directory {} that rank 0 has opened is not there; put it on a file system that all machines share", path_.string());
}

RunDirectory::~RunDirectory() {
    if (lock_ >= 0) ::close(lock_);
}

void RunDirectory::lock() {
    const fs::path file = path_ / "lock";
    lock_ = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (lock_ < 0) fail(Exit::cannot_create, "cannot write in the run directory {}: {}", path_.string(), std::strerror(errno));
    struct flock region {};
    region.l_type = F_WRLCK;
    region.l_whence = SEEK_SET;
    // A lock of the open file: works over NFS, and between two runs of one process too.
    if (::fcntl(lock_, F_OFD_SETLK, &region) != 0) {
        const int reason = errno;
        ::close(lock_);
        if (reason != EAGAIN && reason != EACCES) fail(Exit::cannot_create, "cannot lock {}: {}", file.string(), std::strerror(reason));
        const std::string who = read_file(file, 4096);
        fail(Exit::cannot_create, "{} works in the run directory {}; wait for it, or name another directory", who.empty() ? "another process" : who, path_.string());
    }
    const std::string who = owner();
    if (::ftruncate(lock_, 0) != 0 || ::pwrite(lock_, who.data(), who.size(), 0) != static_cast<ssize_t>(who.size())) {
        const int reason = errno;
        ::close(lock_);
        fail(Exit::cannot_create, "cannot write {}: {}; free some space", file.string(), std::strerror(reason));
    }
}

void RunDirectory::take_up(const Config& config) {
    if (!fs::exists(this->config())) {
        for (const char* ours : {"checkpoints", "metrics.jsonl"})
            if (fs::exists(path_ / ours))
                fail(Exit::cannot_create, "{} holds {} but no config.toml, so it is not a run that can go on; name another directory", path_.string(), ours);
        return;
    }
    const std::string text = read_file(this->config(), int64_t{1} << 20);
    if (!text.starts_with(config_head) && list_checkpoints(path_).empty())
        fail(Exit::cannot_create, "{} holds a config.toml that no run has written and would overwrite; name another directory", path_.string());
    const Config before = parse_config(text, this->config().string(), false);
    std::vector<std::string> refused, changed;
    for (const Difference& d : differences(before, config)) (d.may_change ? changed : refused).push_back(fmt::format("{} was {} and is {}", d.key, d.old_value, d.new_value));
    if (!refused.empty() && list_checkpoints(path_).empty()) {  // a first try that failed before it saved: the corrected config begins anew
        info("{} holds no checkpoint yet; beginning with the changed config ({})", path_.string(), fmt::join(refused, "; "));
        return;
    }
    if (!refused.empty())
        fail(Exit::cannot_create, "{} belongs to a run with another config ({}); name another directory, or take the values back", path_.string(), fmt::join(refused, "; "));
    if (!changed.empty()) info("changed since this run began: {}", fmt::join(changed, "; "));
    taken_up_ = true;
}

void RunDirectory::write_failure(const std::string& sentence, int64_t step) {
    RunStatus status;
    status.state = "failed", status.message = sentence, status.step = step, status.steps = steps_;
    status.loss = std::numeric_limits<double>::quiet_NaN();
    const fs::path file = path_ / "status.json";
    if (std::error_code error; fs::exists(file, error)) {
        try {
            const nlohmann::json before = nlohmann::json::parse(read_file(file, int64_t{1} << 20));
            // The first sentence of this life stands: a rank that was stopped and is woken at the end finds the others gone.
            if (before.at("state") == "failed" && before.at("updated").get<double>() >= std::round(started_)) return;
            if (steps_ == 0) status.steps = before.at("steps").get<int64_t>();
            status.checkpoint = before.at("checkpoint").get<std::string>();
            if (before.at("loss").is_number()) status.loss = before.at("loss").get<double>();
        } catch (const std::exception&) {
            // Nothing of it can be kept; the failure is what matters.
        }
    }
    write_status(status);
}

// This rank has not, so that another one has: since this life's first status stands there, failures of earlier lives do not.
bool RunDirectory::another_failed() const {
    try {
        return nlohmann::json::parse(read_file(path_ / "status.json", int64_t{1} << 20)).at("state") == "failed";
    } catch (const std::exception&) {
        return false;  // not there, or damaged: written anew
    }
}

void RunDirectory::write_status(const RunStatus& status) {
    nlohmann::ordered_json json = {{"state", status.state}, {"message", status.message}, {"step", status.step}, {"steps", status.steps}};
    json["loss"] = std::isfinite(status.loss) ? nlohmann::ordered_json(status.loss) : nlohmann::ordered_json();
    json["seconds_left"] = status.seconds_left >= 0 ? nlohmann::ordered_json(std::round(status.seconds_left)) : nlohmann::ordered_json();
    json["checkpoint"] = status.checkpoint;
    if (rank_ != 0) json["rank"] = rank_;
    json["host"] = host();
    json["process"] = ::getpid();
    if (const char* job = std::getenv("SLURM_JOB_ID")) json["job"] = job;
    json["started"] = std::round(started_);  // seconds since 1970
    json["updated"] = std::round(now());
    const std::lock_guard lock(writing_);
    if (failed_ || (written_ && status.state != "failed" && another_failed())) return;
    failed_ = status.state == "failed", written_ = true;
    try {
        // Text that is not UTF-8 (a path) must not end a run: replaced.
        const std::string text = json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
        const fs::path own = path_ / (rank_ == 0 ? "status.json" : fmt::format("status-{}.json", rank_));  // several ranks may find the same trouble at once
        write_file_atomically(own, text);
        if (rank_ != 0) fs::rename(own, path_ / "status.json");
    } catch (const Error& error) {
        if (!warned_) warn("{} (training goes on)", error.what());
        warned_ = true;
    } catch (const fs::filesystem_error&) {
        // the other rank's sentence stands
    }
}

}  // namespace flanmoe

// Where a rank's messages go: rank 0's to standard error, the others' to a file each, RUN/logs/rank-0003.log.
#pragma once

#include <filesystem>
#include <string>

namespace flanmoe {

class RankLog {
public:
    /// Rank 0 changes nothing. The messages of the others are rank 0's too until open(), and go nowhere.
    explicit RankLog(int rank);
    /// Gives standard error back.
    ~RankLog();
    RankLog(const RankLog&) = delete;

    /// From now on this rank's messages go to its file, behind those of earlier lives. Exit::cannot_create if that fails.
    void open(const std::filesystem::path& run);
    /// A sentence that people shall see whatever rank says it: to standard error as it was, and to this rank's file.
    void say(const std::string& sentence) const;

private:
    int rank_, terminal_ = -1;
    bool open_ = false;
};

}  // namespace flanmoe

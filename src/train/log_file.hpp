// A file that only grows by whole records (metrics, events). A full disk must not stop training, and a record that was cut short must not spoil the
// file: a failed append is taken back, warned about once, and the next one is tried again.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string_view>

namespace flanmoe {

class LogFile {
public:
    /// Goes on at the end of the file, or creates it. Exit::cannot_create if that fails: at the start a run can still be refused.
    explicit LogFile(std::filesystem::path path);
    /// Appends one record; false if it could not be written.
    bool append(std::string_view record);
    int64_t lost() const { return lost_; }  ///< records that could not be written

private:
    std::filesystem::path path_;
    int64_t size_ = 0;  ///< bytes of complete records
    int64_t lost_ = 0;
};

}  // namespace flanmoe

#include "train/log_file.hpp"

#include "core/error.hpp"
#include "core/file.hpp"
#include "core/log.hpp"

namespace flanmoe {

LogFile::LogFile(std::filesystem::path path) : path_(std::move(path)) {
    OutputFile file(path_, true);
    size_ = file.size();
    file.close(false);
}

bool LogFile::append(std::string_view record) {
    try {
        OutputFile file(path_, true);  // opened for each record: the file may be moved or the disk be remounted while a run lasts
        file.write(record);
        file.close(false);
        size_ += static_cast<int64_t>(record.size());
        return true;
    } catch (const Error& error) {
        if (lost_++ == 0) warn("{} (training goes on, this record is lost)", error.what());
        std::error_code ignored;
        std::filesystem::resize_file(path_, static_cast<uintmax_t>(size_), ignored);
        return false;
    }
}

}  // namespace flanmoe

#include "core/log.hpp"

namespace flanmoe {

void log_line(const char* level, const std::string& text) {
    const std::string line = fmt::format("{}{}\n", level, text);
    std::fwrite(line.data(), 1, line.size(), stderr);
    std::fflush(stderr);
}

}  // namespace flanmoe

// Messages to people go to standard error through these; results go to standard output through fmt::print.
#pragma once

#include <fmt/format.h>

#include <cstdio>
#include <string>

namespace flanmoe {

void log_line(const char* level, const std::string& text);

/// Writes to a terminal or log, and goes on if nobody reads it any more: a closed pipe must not end a run.
template <class... Args>
void print_to(std::FILE* file, fmt::format_string<Args...> format, Args&&... args) {
    const std::string text = fmt::format(format, std::forward<Args>(args)...);
    std::fwrite(text.data(), 1, text.size(), file);
}

template <class... Args>
void info(fmt::format_string<Args...> format, Args&&... args) {
    log_line("", fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void warn(fmt::format_string<Args...> format, Args&&... args) {
    log_line("warning: ", fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace flanmoe

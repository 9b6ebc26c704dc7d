// Errors and exit codes.
//
// A user's mistake is one sentence that says what is wrong, where, and what to do; it carries the exit code of its kind. Code that
// finds one calls fail(); main() prints the sentence and exits with the code. Broken invariants of our own are require(): they print
// the source line and exit with `internal`.
#pragma once

#include <fmt/format.h>

#include <exception>
#include <source_location>
#include <stdexcept>
#include <string>

namespace flanmoe {

/// Process exit codes (sysexits.h where it has one). 75 means "saved, run me again".
enum class Exit : int {
    done = 0,
    out_of_tolerance = 1,  ///< `parity`, `inspect --verify`, `--diff`: the comparison itself came out negative
    usage = 64,            ///< command line or config
    bad_data = 65,         ///< malformed content of an input file
    missing_input = 66,    ///< an input does not exist or cannot be read
    hardware = 69,         ///< no GPU, driver or architecture too old
    internal = 70,         ///< an invariant of ours is broken
    out_of_memory = 71,
    cannot_create = 73,    ///< an output cannot be created
    io = 74,               ///< reading or writing failed (disk full included)
    preempted = 75,        ///< stopped by a signal or time limit after saving; resumable
    rank_failed = 76,
    hang = 77,
    diverged = 78,         ///< non-finite or spiking loss, policy exhausted
    corruption = 79,
    bad_checkpoint = 80,   ///< a checkpoint is truncated, damaged, hostile or of another shape
};

struct Error : std::runtime_error {
    Error(Exit code, const std::string& sentence) : std::runtime_error(sentence), code(code) {}
    Exit code;
};

/// What an exception says to the user, whoever threw it: an Error itself; lack of memory, trouble with files, and what should not happen with their sentences and codes.
Error error_of(const std::exception_ptr& exception);

/// Ends the current work with one sentence for the user.
template <class... Args>
[[noreturn]] void fail(Exit code, fmt::format_string<Args...> format, Args&&... args) {
    throw Error(code, fmt::format(format, std::forward<Args>(args)...));
}

/// Invariant of this program; `what` says what was expected.
inline void require(bool condition, const char* what, std::source_location at = std::source_location::current()) {
    if (!condition) throw Error(Exit::internal, fmt::format("internal error at {}:{}: expected {}; please report this", at.file_name(), at.line(), what));
}

}  // namespace flanmoe

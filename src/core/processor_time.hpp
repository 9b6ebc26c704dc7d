// Time that processors have spent on this program, for measurements that other programs on the machine do not disturb.
#pragma once

#include <ctime>

namespace flanmoe {

/// Of all threads of the process, or of the calling one.
inline double processor_seconds(clockid_t clock = CLOCK_PROCESS_CPUTIME_ID) {
    timespec now{};
    ::clock_gettime(clock, &now);
    return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}
inline double thread_seconds() { return processor_seconds(CLOCK_THREAD_CPUTIME_ID); }

}  // namespace flanmoe

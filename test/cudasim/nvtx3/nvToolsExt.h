// Ranges that a profiler would show, of each host thread: counted, and their names kept.
#pragma once

#include <set>
#include <string>

namespace cudasim {

struct Ranges {
    int depth = 0;
    std::set<std::string> names;
};
inline Ranges& ranges() {
    static thread_local Ranges ranges;
    return ranges;
}

}  // namespace cudasim

inline int nvtxRangePushA(const char* name) {
    cudasim::ranges().names.insert(name);
    return cudasim::ranges().depth++;
}
inline int nvtxRangePop() { return --cudasim::ranges().depth; }

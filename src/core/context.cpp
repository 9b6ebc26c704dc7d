#include "core/context.hpp"

namespace flanmoe {

void PartTimer::add(const char* name, double seconds) {
    for (Entry& entry : entries_) {
        if (entry.name == name) {
            entry.seconds += seconds;
            ++entry.calls;
            return;
        }
    }
    entries_.push_back({name, seconds, 1});
}

}  // namespace flanmoe

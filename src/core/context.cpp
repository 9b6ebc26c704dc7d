#include "core/context.hpp"

#include <algorithm>

namespace flanmoe {

void PartTimer::collect(Engine& engine) {
    for (const Pending& p : pending_) {
        auto entry = std::find_if(entries_.begin(), entries_.end(), [&](const Entry& e) { return e.name == p.name; });
        if (entry == entries_.end()) entry = entries_.insert(entries_.end(), {p.name, 0, 0});
        entry->seconds += engine.seconds_between(p.first, p.last);
        ++entry->calls;
    }
    pending_.clear();
    engine.forget_marks();
}

}  // namespace flanmoe

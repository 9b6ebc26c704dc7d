// A point in the order of a device's work that the host can wait for while the work behind it goes on. On the host work is done when a call returns.
#pragma once

#include "core/context.hpp"

#include <memory>

namespace flanmoe {

class Milestone {
public:
    virtual ~Milestone() = default;
    virtual void set() {}   ///< behind all that was queued so far; once more: moves there
    virtual void wait() {}  ///< until the device has reached it
};
/// Of the context's engine, which it must not outlive.
std::unique_ptr<Milestone> make_milestone(Context& context);

}  // namespace flanmoe

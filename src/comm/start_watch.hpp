// Notices a rank of this host that has been stopped before MPI has begun everywhere: until then MPI's own wait has no limit, and no watchdog gets a sign of life.
//
// Ranks of one run are processes of one program that a launcher gave the same PMIX_NAMESPACE. Of those of other hosts, and of other containers, nothing is seen.
#pragma once

#include <functional>
#include <memory>
#include <string>

namespace flanmoe {

class StartWatch {
public:
    /// Looks until it is destroyed. `found` is called once, on a thread of its own, on the lowest rank of this host that runs (on others later, should that not end
    /// them), with a sentence that names the first one that has been stopped for `patience` seconds. It does nothing without PMIX_NAMESPACE.
    StartWatch(double patience, std::function<void(const std::string&)> found);
    StartWatch(const StartWatch&) = delete;
    ~StartWatch();

private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace flanmoe

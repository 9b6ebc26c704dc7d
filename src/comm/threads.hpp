// Ranks as threads of one process: for tests, and for dry runs of a layout on one machine.
#pragma once

#include "comm/communicator.hpp"

#include <functional>

namespace flanmoe {

/// Runs `body` on n threads at once, each with its rank's communicator of all, and waits for them. An error of one rank reaches all that wait for it, and the
/// caller gets the first one. A rank that has returned, or does not come within `seconds`, while others wait for it is an error of those (Exit::rank_failed,
/// Exit::hang) that names it. The threads share the cores: each computes with its share of the caller's threads, at least one.
void run_ranks(int n, const std::function<void(Communicator& world)>& body, double seconds = 60);

}  // namespace flanmoe

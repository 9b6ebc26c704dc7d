// Forced balanced routing, for measurements: whatever the logits say, experts get tokens in turn, so that every one has the same work.
//   choice r of the i-th token that may be routed in the group: expert (first k + i k + r) mod E, first = number of the group's first token in the step
//   gates are the probabilities of these experts, so that every gradient is computed as in a real step
// It measures speed and memory without the luck of a router; a model trained so has learnt no routing, and every command says so.
#include "config/routers/routers.hpp"

namespace flanmoe::routers {

RoutingConfig balanced(bool) {
    RoutingConfig r;
    r.kind = RouterKind::balanced;
    r.k = 2;
    return r;
}

}  // namespace flanmoe::routers

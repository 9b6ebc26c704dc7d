// Top-k token choice as in T5X (flaxformer's moe/routing.py, TokensChooseMaskedRouter): each token goes to its k most probable experts.
//   gate = p as it is, whatever k; every choice is wanted
//   all first choices of a group claim slots before any second one; slots = factor x tokens / experts, not multiplied by k
//   balance: a token counts for each of its k experts, so the loads sum to k and so does the least balance loss
// Option `prioritized` (batch-prioritised routing): tokens claim slots in order of their largest probability instead of their place. In a causal decoder
// that order depends on later tokens.
// Trap: flaxformer routes padding; we do not unless route_padding says so.
#include "config/routers/routers.hpp"

namespace flanmoe::routers {

RoutingConfig top_k(bool) {
    RoutingConfig r;
    r.k = 2;
    r.density = Density::any;
    return r;
}

}  // namespace flanmoe::routers

// Dropless top-k (MegaBlocks, arXiv 2211.15841; Mixtral, arXiv 2401.04088): no expert has a limit, so no token is ever dropped.
//   Mixtral's settings: k = 2, gates divided by the sum of both (the softmax over the two logits), balance from any of the k choices
// Any other token-choice router becomes dropless with moe.dropless = true; evaluation alone with moe.eval_dropless = true.
// Memory: an expert may get every token, so buffers have room for tokens x k rows, which is also what is computed in all.
#include "config/routers/routers.hpp"

namespace flanmoe::routers {

RoutingConfig dropless(bool) {
    RoutingConfig r;
    r.k = 2;
    r.normalize = true;
    r.density = Density::any;
    r.dropless = true;
    return r;
}

}  // namespace flanmoe::routers

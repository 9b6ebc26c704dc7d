// GShard (Lepikhin et al.; arXiv 2006.16668, algorithm 1): each token goes to its two most probable experts.
//   gates divided by the sum of both, before any is dropped: if one is dropped, the other is not rescaled
//   all first choices of a group claim slots before any second one; slots = 2 x tokens / experts
//   the second choice is sent with probability min(1, 2 g2) in training: a uniform draw < g2 / threshold with threshold 0.5; always in evaluation
//   balance from first choices, before capacity. Ours is the Switch form E sum load p; the paper's is 1/E^2 of it
// Mesh TensorFlow's top-2 is the same rule with second_threshold = 0.2, its factors not multiplied by 2, and the draw in evaluation too
// (second_eval = "random"). Other policies: second_train, second_eval = all, none, threshold.
// Trap: in the paper's algorithm a second choice that the draw rejects still counts a slot; here, as in Mesh TensorFlow, it takes none.
#include "config/routers/routers.hpp"

namespace flanmoe::routers {

RoutingConfig gshard(bool) {
    RoutingConfig r;
    r.k = 2;
    r.normalize = true;
    r.second_train = SecondPolicy::random;
    r.second_eval = SecondPolicy::all;
    r.second_threshold = 0.5;
    r.capacity_factor = r.eval_capacity_factor = 2.0;
    return r;
}

}  // namespace flanmoe::routers

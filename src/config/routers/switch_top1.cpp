// Switch Transformer (Fedus, Zoph, Shazeer; arXiv 2101.03961, equations 1-6): each token goes to its most probable expert.
//   gate = p, not renormalised; tokens claim slots in order; slots = factor x tokens / experts, 1.25 in training and 2.0 in evaluation
//   balance = E sum_e load_e mean p_e over first choices (coefficient 1e-2: train.balance_loss)
//   jitter: in training the router reads x uniform(0.99, 1.01), elementwise; the experts read x itself
// Trap: the paper's printed code (figure 15) adds the noise to the logits and counts a token's own slot; the code behind the results
// (Mesh TensorFlow) multiplies the router's input and does not. We follow the latter. T5X's configurations set the jitter to 0.
#include "config/routers/routers.hpp"

namespace flanmoe::routers {

RoutingConfig switch_top1(bool) {
    RoutingConfig r;
    r.jitter = 0.01;
    return r;
}

}  // namespace flanmoe::routers

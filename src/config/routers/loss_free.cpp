// Loss-free balancing (Wang et al., arXiv 2408.15664; DeepSeek-V3, arXiv 2412.19437, section 2.1.2): experts that got too much become less attractive.
//   a token chooses the k largest p + bias; gates come from p alone; no gradient reaches the bias
//   after each optimizer step, per layer: bias_e += rate x sign(mean load - load_e), load = choices of the whole step; rate 1e-3
//   A step that is skipped leaves it alone; checkpoints hold it among the weights, under the name that DeepSeek-V3's have
// Set train.balance_loss = 0 for balancing by the bias alone (training warns otherwise); balance_bias_rate = 0 keeps the bias as it is, as DeepSeek-V3
// does at the end of pretraining. Any token-choice router takes the bias with moe.balance_bias = true.
// Differs from DeepSeek-V3 in the score: p is the softmax over experts as for all our routers, not a sigmoid of each logit.
#include "config/routers/routers.hpp"

namespace flanmoe::routers {

RoutingConfig loss_free(bool decoder) {
    RoutingConfig r = dropless(decoder);
    r.balance_bias = true;
    return r;
}

}  // namespace flanmoe::routers

// ST-MoE (Zoph et al.; arXiv 2202.08906): top-n with gates over the n chosen, made stable by a loss on the router's logits.
//   gates divided by the sum of the token's n, before drops; the first choice always, others with probability min(1, gate / threshold)
//   threshold 0.2 for n = 2, 0.05 for n = 3 (appendix G); slots: 1.25 x tokens / experts in training, 2.0 in evaluation, not multiplied by n
//   z = mean over tokens of (log sum exp logits)^2, coefficient 1e-3 (train.router_z_loss); balance 1e-2 (train.balance_loss)
// Beside the router: every fourth layer sparse (moe.every = 4), a dense feed-forward after each sparse one (moe.extra_ffn), gated experts with a
// multiplicative bias (moe.multiplicative_bias, appendix C), weights of variance 0.1 / fan-in (model.init_scale = 0.1).
// Trap: Mesh TensorFlow multiplies the z term by the balance coefficient too; here both coefficients stand by themselves.
#include "config/routers/routers.hpp"

namespace flanmoe::routers {

RoutingConfig st_moe(bool) {
    RoutingConfig r;
    r.k = 2;
    r.normalize = true;
    r.second_train = SecondPolicy::random;
    r.second_eval = SecondPolicy::all;
    r.second_threshold = 0.2;
    r.capacity_factor = 1.25;
    r.eval_capacity_factor = 2.0;
    return r;
}

}  // namespace flanmoe::routers

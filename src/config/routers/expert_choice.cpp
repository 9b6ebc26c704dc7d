// Expert choice (Zhou et al.; arXiv 2202.09368, section 3.2): each expert takes its most probable tokens of the group.
//   p = softmax over experts (Mesh TensorFlow's variant over tokens is another rule); gate = p, not renormalised; a token gets 0 to E experts
//   an expert takes max(min_capacity, factor x tokens / experts) tokens, at most all: factor 2 costs what top-2 does. T5X's configurations use 1
//   every slot is used by construction, so there is no balance loss
// An expert compares a token with later ones, which a causal decoder must not: the decoder beside such an encoder is top-2 token choice, as in T5X.
// For study, moe.decoder.router = "expert_choice" with moe.decoder.force_causal = true puts it there all the same.
// At few tokens (short rows, generation) min_capacity keeps each expert at 4 tokens or more.
#include "config/routers/routers.hpp"

namespace flanmoe::routers {

RoutingConfig expert_choice(bool decoder) {
    if (decoder) return top_k(decoder);
    RoutingConfig r;
    r.kind = RouterKind::expert_choice;
    r.capacity_factor = r.eval_capacity_factor = 2.0;
    return r;
}

}  // namespace flanmoe::routers

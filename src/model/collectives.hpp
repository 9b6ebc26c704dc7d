// Where a split layer begins and ends, as in Megatron-LM (Shoeybi et al. 2019, section 3): collectives over tensor ranks in pairs of forward and backward.
//
//   enter_split:  forward the identity: every rank goes on with the whole input; backward the sum of what each rank's part says of it
//   leave_split:  forward the sum of the ranks' shares of the result; backward the identity: every rank takes the whole gradient
//
// Between them a rank has some columns of activations: the rows of a weight made them (q, k, v, wi), the columns of another take them (o, wo). What lies
// outside (residual stream, norms, routers) every tensor rank computes alike, to the bit, since sums over ranks give all of them the same bits.
//
// With pass.sequence_parallel the stack divides the tokens among the ranks between sub-layers (token_shards.hpp): then the sums are its own, sub-layers hand on
// shares, and what every rank has whole enters a sum on one of them only.
#pragma once

#include "model/pass.hpp"

namespace flanmoe {

/// Of a result of which each rank has a share.
inline void sum_over_split(Pass& pass, const Tensor& shares) { pass.mesh().tensor().all_reduce(pass.context, shares); }

/// Inside sub-layers.
inline void enter_split_backward(Pass& pass, const Tensor& d_input) {
    if (!pass.sequence_parallel) sum_over_split(pass, d_input);
}
inline void leave_split(Pass& pass, const Tensor& result) {
    if (!pass.sequence_parallel) sum_over_split(pass, result);
}
/// Whether this rank adds what all have whole to a sub-layer's result or gradient, at the place of a split's sum.
inline bool adds_whole(const Pass& pass) { return !pass.sequence_parallel || pass.mesh().tensor_index() == 0; }

}  // namespace flanmoe

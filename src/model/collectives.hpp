// Where a split layer begins and ends, as in Megatron-LM (Shoeybi et al. 2019, section 3): collectives over tensor ranks in pairs of forward and backward.
//
//   enter_split:  forward the identity: every rank goes on with the whole input; backward the sum of what each rank's part says of it
//   leave_split:  forward the sum of the ranks' shares of the result; backward the identity: every rank takes the whole gradient
//
// Between them a rank has some columns of activations: the rows of a weight made them (q, k, v, wi), the columns of another take them (o, wo). What lies
// outside (residual stream, norms, routers) every tensor rank computes alike, to the bit, since sums over ranks give all of them the same bits.
#pragma once

#include "model/pass.hpp"

namespace flanmoe {

inline void enter_split_backward(Pass& pass, const Tensor& d_input) { pass.mesh().tensor().all_reduce(pass.context, d_input); }
inline void leave_split(Pass& pass, const Tensor& result) { pass.mesh().tensor().all_reduce(pass.context, result); }

}  // namespace flanmoe

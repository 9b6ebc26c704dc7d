#include "model/token_shards.hpp"

#include "ops/elementwise.hpp"

#include <algorithm>

namespace flanmoe {

TokenShards::TokenShards(Pass& pass, int64_t tokens)
    : pass_(pass), tokens_(tokens), ranks_(pass.sequence_parallel ? pass.mesh().tensor().size() : 1), rows_((tokens + ranks_ - 1) / ranks_),
      first_(ranks_ > 1 ? rows_ * pass.mesh().tensor_index() : 0) {}

Tensor TokenShards::own(const Tensor& whole) const {
    if (!divided()) return whole;
    if (first_ + rows_ <= tokens_) return whole.slice_rows(first_, rows_);
    const Tensor copy = pass_.context.zeros(whole.dtype, {rows_, whole.cols()});
    const int64_t here = std::max<int64_t>(0, tokens_ - first_);
    if (here > 0) pass_.context.engine->copy(copy.data, whole.slice_rows(first_, here).data, copy.slice_rows(0, here).bytes());
    return copy;
}

Tensor TokenShards::gather(const Tensor& own, const Tensor& into) const {
    if (!divided()) return own;
    pass_.mesh().tensor().all_gather(pass_.context, own, into);
    return into.slice_rows(0, tokens_);
}

Tensor TokenShards::filled_up(const Tensor& whole) const {
    if (padded() == tokens_) return whole;
    const Tensor copy = pass_.context.zeros(whole.dtype, {padded(), whole.cols()});
    pass_.context.engine->copy(copy.data, whole.data, whole.bytes());
    return copy;
}

Tensor TokenShards::sum(const Tensor& shares, const Tensor& into) const {
    if (!divided()) return shares;
    Arena::Scope scope(pass_.context.arena);
    pass_.mesh().tensor().reduce_scatter(pass_.context, filled_up(shares), into);
    return into;
}

void TokenShards::add_gradient(const Tensor& share, const Tensor& gradient) const {
    pass_.mesh().tensor().all_reduce(pass_.context, share);
    ops::add(pass_.context, share, gradient);
}

}  // namespace flanmoe

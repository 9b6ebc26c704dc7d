#include "model/dispatcher.hpp"

#include "ops/exchange.hpp"

#include <algorithm>
#include <numeric>

namespace flanmoe {

namespace {

int64_t sum(const std::vector<int64_t>& values) { return std::accumulate(values.begin(), values.end(), int64_t{0}); }

// Slots of an expert for the rows of one rank; 0 = no limit.
int64_t slots_of_expert(const ops::RouteArgs& route) {
    const int64_t group_tokens = route.logits.rows() / route.groups, capacity = ops::capacity_of(route.rule, group_tokens, route.logits.cols());
    return capacity < 0 ? 0 : route.groups * std::min(capacity, group_tokens);
}

// Sums over consecutive `each` counts.
std::vector<int64_t> sums_of(const std::vector<int32_t>& counts, int64_t each) {
    std::vector<int64_t> sums(counts.size() / static_cast<size_t>(each));
    for (size_t i = 0; i < counts.size(); ++i) sums[i / static_cast<size_t>(each)] += counts[i];
    return sums;
}

// Buffers for what is sent and received.
Tensor slots_like(Pass& pass, const Tensor& rows, const std::vector<int64_t>& sizes) { return pass.context.allocate(rows.dtype, {sum(sizes), rows.cols()}); }

}  // namespace

Dispatch plan_dispatch(Pass& pass, const ops::RouteArgs& route) {
    Dispatch dispatch;
    dispatch.local_offsets = dispatch.offsets = route.offsets;
    dispatch.row_ids = route.row_id;
    dispatch.rows = route.row_token.elements();
    Communicator& group = pass.mesh().expert();
    if (group.size() == 1) return dispatch;

    Context& context = pass.context;
    dispatch.exchanges = true;
    const int64_t ranks = group.size(), experts = route.logits.cols(), here = experts / ranks, slots = slots_of_expert(route);
    const Tensor sent = context.allocate(DType::i32, {experts, 1}), received = context.allocate(DType::i32, {ranks * here, 1});
    ops::count_rows(context, {route.offsets, sent.view({experts})});
    const std::vector<int64_t> one_each(static_cast<size_t>(ranks), here);
    group.all_to_all(context, sent, one_each, received, one_each);
    if (slots > 0) {
        dispatch.send = dispatch.receive = std::vector<int64_t>(static_cast<size_t>(ranks), here * slots);
        dispatch.send_slots = context.allocate(DType::i32, {dispatch.rows});
        ops::expert_slots(context, {sent.view({1, experts}), slots, context.allocate(DType::i32, {experts + 1}), dispatch.send_slots});
    } else {
        dispatch.send = sums_of(context.download<int32_t>(sent), here);
        dispatch.receive = sums_of(context.download<int32_t>(received), here);
    }
    dispatch.rows = std::max<int64_t>(1, sum(dispatch.receive));
    dispatch.offsets = context.allocate(DType::i32, {here + 1});
    dispatch.receive_slots = context.allocate(DType::i32, {dispatch.rows});
    ops::expert_slots(context, {received.view({ranks, here}), slots, dispatch.offsets, dispatch.receive_slots});
    dispatch.row_ids = context.allocate(DType::i64, {dispatch.rows, 1});
    rows_to_experts(pass, dispatch, route.row_id.view({route.row_id.elements(), 1}), dispatch.row_ids);
    return dispatch;
}

void rows_to_experts(Pass& pass, const Dispatch& dispatch, const Tensor& local, const Tensor& at_experts) {
    Context& context = pass.context;
    Arena::Scope scope(context.arena);
    const Tensor received = slots_like(pass, local, dispatch.receive);
    Tensor sent = local.slice_rows(0, std::min(local.rows(), sum(dispatch.send)));
    if (dispatch.send_slots) {
        sent = slots_like(pass, local, dispatch.send);
        ops::to_slots(context, {local, dispatch.local_offsets, dispatch.send_slots, sent});
    }
    pass.mesh().expert().all_to_all(context, sent, dispatch.send, received, dispatch.receive);
    ops::from_slots(context, {at_experts, dispatch.offsets, dispatch.receive_slots, received});
}

void rows_from_experts(Pass& pass, const Dispatch& dispatch, const Tensor& at_experts, const Tensor& local) {
    Context& context = pass.context;
    Arena::Scope scope(context.arena);
    const Tensor answers = slots_like(pass, local, dispatch.receive);
    Tensor returned = local.slice_rows(0, std::min(local.rows(), sum(dispatch.send)));
    ops::to_slots(context, {at_experts, dispatch.offsets, dispatch.receive_slots, answers});
    if (dispatch.send_slots) returned = slots_like(pass, local, dispatch.send);
    pass.mesh().expert().all_to_all(context, answers, dispatch.receive, returned, dispatch.send);
    if (dispatch.send_slots) ops::from_slots(context, {local, dispatch.local_offsets, dispatch.send_slots, returned});
}

}  // namespace flanmoe

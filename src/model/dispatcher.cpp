#include "model/dispatcher.hpp"

#include "ops/exchange.hpp"

#include <algorithm>

namespace flanmoe {

namespace {

// Slots of an expert for the rows of one rank; 0 = no limit.
int64_t slots_of_expert(const ops::RouteArgs& route) {
    const int64_t group_tokens = route.logits.rows() / route.groups, capacity = ops::capacity_of(route.rule, group_tokens, route.logits.cols());
    return capacity < 0 ? 0 : route.groups * std::min(capacity, group_tokens);
}

// Where the rows of consecutive experts begin, as they lie in slots of a fixed size or, if that is 0, side by side.
std::vector<int64_t> begins_of(const std::vector<int32_t>& counts, int64_t experts, int64_t slots) {
    std::vector<int64_t> begins{0};
    for (int64_t e = 0; e < experts; ++e) begins.push_back(begins.back() + (slots ? slots : counts[static_cast<size_t>(e)]));
    return begins;
}

// The slots of a range of experts at every rank: `begins` of ranks x here experts.
std::vector<RowBlock> blocks_of(const std::vector<int64_t>& begins, int64_t here, const ExpertRange& experts) {
    std::vector<RowBlock> blocks;
    for (size_t e = static_cast<size_t>(experts.first); e + 1 < begins.size(); e += static_cast<size_t>(here))
        blocks.push_back({begins[e], begins[e + static_cast<size_t>(experts.count)] - begins[e]});
    return blocks;
}

ExpertRange range_of(const Tensor& offsets, int64_t first, int64_t count) { return {first, count, offsets.view({offsets.elements(), 1}).slice_rows(first, count + 1).view({count + 1})}; }

// Exchanges a chunk beside what else is queued, if there is a lane for it.
int64_t exchange(Pass& pass, const Tensor& from, const std::vector<RowBlock>& blocks_to, const Tensor& into, const std::vector<RowBlock>& blocks_from) {
    const auto work = [&group = pass.mesh().expert(), from, &blocks_to, into, &blocks_from](Context& context) { group.all_to_all(context, from, blocks_to, into, blocks_from); };
    if (pass.exchange_lane) return pass.exchange_lane->run(work);
    work(pass.context);
    return 0;
}
void wait_for(Pass& pass, int64_t number) {
    if (!pass.exchange_lane) return;
    const WaitingIn waiting(pass.context.activity, name_of(Collective::all_to_all));
    pass.exchange_lane->wait(number);
}

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
    const Tensor sent = context.allocate(DType::i32, {experts, 1}), received = context.allocate(DType::i32, {experts, 1});
    ops::count_rows(context, {route.offsets, sent.view({experts})});
    const std::vector<RowBlock> one_each = side_by_side(std::vector<int64_t>(static_cast<size_t>(ranks), here));
    group.all_to_all(context, sent, one_each, received, one_each);
    std::vector<int32_t> send_counts, receive_counts;
    if (slots > 0) {
        dispatch.send_slots = context.allocate(DType::i32, {dispatch.rows});
        ops::expert_slots(context, {sent.view({1, experts}), slots, context.allocate(DType::i32, {experts + 1}), dispatch.send_slots});
    } else {
        send_counts = context.download<int32_t>(sent), receive_counts = context.download<int32_t>(received);
    }
    const std::vector<int64_t> send_begins = begins_of(send_counts, experts, slots), receive_begins = begins_of(receive_counts, experts, slots);
    dispatch.sent_slots = send_begins.back(), dispatch.received_slots = receive_begins.back();
    dispatch.rows = std::max<int64_t>(1, dispatch.received_slots);
    dispatch.offsets = context.allocate(DType::i32, {here + 1});
    dispatch.receive_slots = context.allocate(DType::i32, {dispatch.rows});
    ops::expert_slots(context, {received.view({ranks, here}), slots, dispatch.offsets, dispatch.receive_slots});
    const int64_t chunks = std::clamp<int64_t>(pass.exchange_lane ? pass.exchange_chunks : 1, 1, here);
    for (int64_t c = 0; c < chunks; ++c) {
        const ExpertRange range = range_of(dispatch.offsets, here * c / chunks, here * (c + 1) / chunks - here * c / chunks);
        dispatch.chunks.push_back({range, blocks_of(send_begins, here, range), blocks_of(receive_begins, here, range)});
    }
    dispatch.row_ids = context.allocate(DType::i64, {dispatch.rows, 1});
    rows_to_experts(pass, dispatch, route.row_id.view({route.row_id.elements(), 1}), dispatch.row_ids, [](const ExpertRange&) {});
    return dispatch;
}

void rows_to_experts(Pass& pass, const Dispatch& dispatch, const Tensor& local, const Tensor& at_experts, const ExpertWork& work) {
    if (!dispatch.exchanges) return work(range_of(dispatch.offsets, 0, dispatch.offsets.elements() - 1));
    Context& context = pass.context;
    Arena::Scope scope(context.arena);
    const Tensor received = context.allocate(local.dtype, {dispatch.rows, local.cols()});
    Tensor sent = local;
    if (dispatch.send_slots) {
        sent = context.allocate(local.dtype, {dispatch.sent_slots, local.cols()});
        ops::to_slots(context, {local, dispatch.local_offsets, dispatch.send_slots, sent});
    }
    std::vector<int64_t> numbers;
    for (const Dispatch::Chunk& chunk : dispatch.chunks) numbers.push_back(exchange(pass, sent, chunk.send, received, chunk.receive));
    for (size_t c = 0; c < numbers.size(); ++c) {
        wait_for(pass, numbers[c]);
        const ExpertRange& experts = dispatch.chunks[c].experts;
        ops::from_slots(context, {at_experts, experts.offsets, dispatch.receive_slots, received});
        work(experts);
    }
}

void rows_from_experts(Pass& pass, const Dispatch& dispatch, const ExpertWork& work, const Tensor& at_experts, const Tensor& local) {
    if (!dispatch.exchanges) return work(range_of(dispatch.offsets, 0, dispatch.offsets.elements() - 1));
    Context& context = pass.context;
    Arena::Scope scope(context.arena);
    const Tensor answers = context.allocate(local.dtype, {dispatch.rows, local.cols()});
    const Tensor returned = dispatch.send_slots ? context.allocate(local.dtype, {dispatch.sent_slots, local.cols()}) : local;
    int64_t last = 0;
    for (const Dispatch::Chunk& chunk : dispatch.chunks) {
        work(chunk.experts);
        ops::to_slots(context, {at_experts, chunk.experts.offsets, dispatch.receive_slots, answers});
        last = exchange(pass, answers, chunk.receive, returned, chunk.send);
    }
    wait_for(pass, last);
    if (dispatch.send_slots) ops::from_slots(context, {local, dispatch.local_offsets, dispatch.send_slots, returned});
}

}  // namespace flanmoe

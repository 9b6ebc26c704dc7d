// The router's decision without a host round trip: four launches, five where claims are prioritised.
//
//   score     a block for 64 tokens of a group: softmax, choices, gates, policy, sums of the block           (route_score.cuh)
//   order     only if prioritised: place of every token among those of its group                             (route_decide.cuh)
//   decide    a warp for every expert and group: who gets a slot; or a block, where experts choose           (route_decide.cuh, route_expert_choice.cuh)
//   lay out   one block: starts of rows and tokens, statistics                                               (route_layout.cuh)
//   emit      a thread for every token: the tables                                                           (route_layout.cuh)
//
// Group sizes and numbers of experts are any; shared memory holds an integer for each expert. Equal decisions on equal logits: exponentials are the CPU's
// roundings (fused multiply-adds included), sums of them are in double and exact unless they span more than 2^29, gates are IEEE quotients of the same numbers.
// Two cases could differ from the CPU: logits of one token more than about 20 apart, whose sum may round at its 53rd bit in another order (it then shows in a
// probability only if that sum's reciprocal lies on a rounding border of float); and a CPU without fused multiply-add.
//
// Bytes for N tokens, E experts, k choices: score 12 N E, decide 8 N k from memory (E N k 4 from the first-level cache), emit 50 N k. At 64 Ki tokens and
// 16 experts, k = 1, 20 MB: 8 us of memory time at 2.7 TB/s, so the launches themselves (4 x 3 us) and the one block of the layout count as much. Not yet
// measured on hardware. Registers: score and decide 64, the others at most 50.
#include "ops/route.hpp"

#include "launch.hpp"

#include "route_decide.cuh"
#include "route_expert_choice.cuh"
#include "route_layout.cuh"
#include "route_score.cuh"

namespace flanmoe::cuda {

namespace {

int64_t pieces_of(int64_t count, int64_t each) { return (count + each - 1) / each; }

template <class T>
T* scratch(Context& context, std::initializer_list<int64_t> sizes) {
    int64_t elements = 1;
    for (const int64_t size : sizes) elements *= size;
    return context.allocate(dtype_of<T>, {elements}).template as<T>();
}

void point_to_arguments(const ops::RouteArgs& args, RouteWork& w) {
    w.rule = args.rule;
    w.tokens = args.logits.rows(), w.experts = args.logits.cols(), w.groups = args.groups, w.size = w.tokens / w.groups;
    w.k = args.rule.kind == RouterKind::expert_choice ? 0 : static_cast<int>(args.rule.k);
    w.logits = args.logits.as<float>(), w.logits_ld = args.logits.ld;
    w.mask = args.mask ? args.mask.as<uint8_t>() : nullptr;
    w.bias = args.bias ? args.bias.as<float>() : nullptr;
    w.scores = args.scores ? args.scores.as<float>() : nullptr;
    w.draws = args.draws ? args.draws.as<float>() : nullptr;
    w.key = args.key, w.first_token = args.first_token;
    w.probabilities = args.probabilities.as<float>();
    w.choices = w.k ? args.choices.as<int32_t>() : nullptr;
    w.offsets = args.offsets.as<int32_t>();
    w.row_token = args.row_token.as<int32_t>(), w.row_gate = args.row_gate.as<float>(), w.row_id = args.row_id.as<int64_t>();
    w.token_offsets = args.token_offsets.as<int32_t>(), w.token_rows = args.token_rows.as<int32_t>();
    w.statistics = args.statistics.as<double>(), w.load = args.load.as<double>(), w.demand = args.demand.as<double>();
}

void allocate_scratch(Context& context, RouteWork& w) {
    const bool prioritized = w.k && w.rule.prioritized;
    w.score_blocks = pieces_of(w.size, score_tokens), w.emit_blocks = pieces_of(w.size, emit_tokens);
    w.decide_blocks = (w.k ? pieces_of(w.experts, decide_experts) : w.experts) * w.groups;
    const int64_t blocks = w.groups * w.score_blocks;
    w.block_probability = scratch<double>(context, {blocks, w.experts});
    w.block_load = scratch<int32_t>(context, {blocks, w.experts});
    w.block_z = scratch<double>(context, {blocks}), w.block_entropy = scratch<double>(context, {blocks});
    w.block_routable = scratch<int32_t>(context, {blocks});
    w.gates = scratch<float>(context, {w.tokens, w.k});
    w.claims = scratch<int32_t>(context, {w.tokens, w.k});
    w.ranks = scratch<int32_t>(context, {w.tokens, w.k ? w.k : w.experts});
    w.priority = prioritized ? scratch<int32_t>(context, {w.tokens}) : nullptr;
    w.order = prioritized ? scratch<int32_t>(context, {w.tokens}) : nullptr;
    w.token_kept = scratch<int32_t>(context, {w.tokens});
    w.block_kept = scratch<int32_t>(context, {w.groups * w.emit_blocks});
    w.rows = scratch<int32_t>(context, {w.experts, w.groups}), w.wanted = scratch<int32_t>(context, {w.experts, w.groups});
    w.pair_sum = scratch<double>(context, {pair_sums, w.decide_blocks}), w.group_sum = scratch<double>(context, {group_sums, w.groups});
}

void decide(Context& context, const RouteWork& w) {
    const unsigned groups = static_cast<unsigned>(w.groups);
    if (w.k == 0) {
        launch(context, "route: expert choice", expert_choice_kernel, dim3(groups, static_cast<unsigned>(w.experts)), expert_choice_threads(w.size),
               shared_bytes<int32_t>(32), w);
        return;
    }
    const unsigned emit_grid = static_cast<unsigned>(w.groups * w.emit_blocks);
    if (w.order) launch(context, "route: order", order_kernel, emit_grid, emit_tokens, shared_bytes<int32_t>(emit_tokens), w);
    launch(context, "route: decide", decide_kernel, dim3(groups, static_cast<unsigned>(pieces_of(w.experts, decide_experts))), 32 * decide_experts,
           shared_bytes<double>(pair_sums * decide_experts), w);
}

}  // namespace

void route(Context& context, const ops::RouteArgs& args) {
    Arena::Scope scope(context.arena);
    RouteWork w{};
    point_to_arguments(args, w);
    allocate_scratch(context, w);
    launch(context, "route: score", score_kernel, static_cast<unsigned>(w.groups * w.score_blocks), 256, score_shared_bytes(w.experts), w);
    decide(context, w);
    launch(context, "route: lay out", layout_kernel, 1, layout_threads, shared_bytes<int32_t>(32), w);
    launch(context, "route: emit", emit_kernel, static_cast<unsigned>(w.groups * w.emit_blocks), emit_tokens, shared_bytes<int32_t>(32), w);
}

}  // namespace flanmoe::cuda

// Capacity, sizes and argument checks of route.hpp.
#include "ops/route.hpp"

#include "ops/run.hpp"

#include <algorithm>
#include <cmath>

namespace flanmoe::cpu {
void route(Context& context, const ops::RouteArgs& args);
void route_backward(Context& context, const ops::RouteBackwardArgs& args);
}  // namespace flanmoe::cpu
namespace flanmoe::cuda {
void route(Context& context, const ops::RouteArgs& args);
void route_backward(Context& context, const ops::RouteBackwardArgs& args);
}  // namespace flanmoe::cuda

namespace flanmoe::ops {

int64_t capacity_of(const RouteRule& rule, int64_t routable_tokens, int64_t experts) {
    if (rule.dropless) return -1;
    if (rule.fixed_capacity > 0) return rule.fixed_capacity;
    // nearbyint rounds halves to even, as the Python and TensorFlow implementations do.
    const double slots = std::nearbyint(rule.capacity_factor * static_cast<double>(routable_tokens) / static_cast<double>(experts));
    return std::max(rule.min_capacity, static_cast<int64_t>(slots));
}

int64_t max_rows(const RouteRule& rule, int64_t tokens, int64_t groups, int64_t experts) {
    const int64_t group_tokens = groups ? tokens / groups : 0, capacity = capacity_of(rule, group_tokens, experts);
    const int64_t slots = groups * experts * (capacity < 0 ? group_tokens : std::min(capacity, group_tokens));
    return rule.kind == RouterKind::expert_choice ? slots : std::min(slots, tokens * rule.k);
}

void allocate_route_outputs(Context& context, RouteArgs& args) {
    const int64_t tokens = args.logits.rows(), experts = args.logits.cols(), rows = max_rows(args.rule, tokens, args.groups, experts);
    const DType type = args.logits.dtype;
    args.probabilities = context.allocate(type, {tokens, experts});
    args.choices = args.rule.kind != RouterKind::expert_choice ? context.allocate(DType::i32, {tokens, args.rule.k}) : Tensor();
    args.offsets = context.allocate(DType::i32, {experts + 1});
    args.row_token = context.allocate(DType::i32, {rows});
    args.row_gate = context.allocate(type, {rows});
    args.row_id = context.allocate(DType::i64, {rows});
    args.token_offsets = context.allocate(DType::i32, {tokens + 1});
    args.token_rows = context.allocate(DType::i32, {rows});
    if (args.statistics) return;
    args.statistics = context.allocate(DType::f64, {static_cast<int64_t>(RouteStatistic::count)});
    args.load = context.allocate(DType::f64, {experts});
    args.demand = context.allocate(DType::f64, {experts});
}

namespace {

void check_rule(const RouteRule& rule, int64_t experts) {
    if (rule.kind == RouterKind::expert_choice) {
        require(!rule.dropless, "a capacity, since experts choose");
    } else {
        require(rule.k >= 1 && rule.k <= experts, "between one choice and as many as there are experts");
        require(rule.second_threshold > 0 || rule.second == SecondPolicy::all || rule.second == SecondPolicy::none, "a positive threshold of the second policy");
    }
}

void check_route(const RouteArgs& args) {
    const int64_t tokens = args.logits.rows(), experts = args.logits.cols();
    const DType type = args.logits.dtype;
    require(type == DType::f32 || type == DType::f64, "router logits of f32 or f64");
    require(experts >= 1 && args.groups >= 1 && tokens % args.groups == 0, "tokens that divide into the groups");
    check_rule(args.rule, experts);
    require(!args.mask || is_vector(args.mask, DType::u8, tokens), "a mask u8 [N]");
    require(!args.bias || (args.rule.kind == RouterKind::token_choice && is_vector(args.bias, type, experts)), "a bias [E] of the logits' type, for token choice");
    require(!args.scores || (args.rule.kind == RouterKind::token_choice && !args.bias && is_vector(args.scores, type, tokens * experts)),
            "scores [N, E] of the logits' type, for token choice without a bias");
    require(!args.draws || is_vector(args.draws, type, tokens * (args.rule.k - 1)), "a draw for every choice after the first [N, k - 1]");
    require(is_vector(args.probabilities, type, tokens * experts), "probabilities [N, E] of the logits' type");
    require(args.rule.kind == RouterKind::expert_choice || is_vector(args.choices, DType::i32, tokens * args.rule.k), "choices i32 [N, k]");
    const int64_t rows = args.row_token.elements();
    require(rows >= max_rows(args.rule, tokens, args.groups, experts) && args.row_token.dtype == DType::i32, "row tokens i32 [max_rows]");
    require(is_vector(args.row_gate, type, rows) && is_vector(args.row_id, DType::i64, rows) && is_vector(args.token_rows, DType::i32, rows),
            "row gates, ids and token rows [max_rows]");
    require(is_vector(args.offsets, DType::i32, experts + 1) && is_vector(args.token_offsets, DType::i32, tokens + 1), "offsets i32 [E + 1] and [N + 1]");
    require(is_vector(args.statistics, DType::f64, static_cast<int64_t>(RouteStatistic::count)) && is_vector(args.load, DType::f64, experts) &&
                is_vector(args.demand, DType::f64, experts),
            "statistics, load and demand f64");
}

}  // namespace

void route(Context& context, const RouteArgs& args) {
    check_route(args);
    dispatch(context, args.logits.dtype, [&] { cpu::route(context, args); }, [&] { cuda::route(context, args); });
}

void route_backward(Context& context, const RouteBackwardArgs& args) {
    check_route(args.forward);
    const Tensor& logits = args.forward.logits;
    require(is_vector(args.d_gate, logits.dtype, args.forward.row_gate.elements()), "gradients of the gates [max_rows]");
    require(is_matrix(args.d_logits, logits.dtype, logits.rows(), logits.cols()), "gradients of the logits [N, E]");
    dispatch(context, args.forward.logits.dtype, [&] { cpu::route_backward(context, args); }, [&] { cuda::route_backward(context, args); });
}

}  // namespace flanmoe::ops

// The router's decision: from logits to weights, rows sorted by expert, losses and statistics; and its backward.
//
// N tokens in `groups` groups of N / groups consecutive tokens; E experts; p = softmax(logits) per token.
// Token choice: each token chooses the k largest p, ties to the lower index; all first choices of a group claim slots in token order
//   (`prioritized`: in order of descending p of the first choice, ties in token order), then all second choices, and so on. Choice r > 0 passes the second policy or
//   takes no slot. A choice is kept while its expert has free slots in the group. gate = p, or p / (sum of the token's k chosen p) if `normalize`.
//   Switch: k = 1. GShard: k = 2, normalize, second random with threshold 0.5 (paper) or 0.2 (Mesh). T5X: k = 2, density any.
//   With a `bias` the choices are the k largest p + bias, with `scores` the k largest of those; everything else is as without (loss-free balancing, sampling).
// Expert choice: each expert takes its `capacity` most probable tokens of the group, ties to the earlier token; gate = p.
// Balanced: token choice whose choices go round the experts, whatever the logits: choice r of the i-th routable token of a group is expert
//   (f k + i k + r) mod E, f = index of the group's first token in the step. For measurements.
// Slots per expert and group: fixed; or max(minimum, round-half-even(factor * routable tokens of the group / E)); or no limit.
// balance (per group) = E * sum_e load_e * mean p_e, both over routable tokens, load before capacity and without gradient; 0 for expert choice.
// z (per group) = mean over routable tokens of (log sum exp logits)^2. Groups without a routable token count in neither.
// Sources: Switch eq. 1-6, GShard algorithm 1, expert choice section 3.2, ST-MoE eq. 5 and appendix G.
//
// Rows of one expert are in ascending token order. Buffers have room for max_rows(); offsets[E] says how many rows are in use, the rest is undefined.
#pragma once

#include "core/context.hpp"
#include "core/kinds.hpp"
#include "core/random.hpp"

namespace flanmoe::ops {

struct RouteRule {
    RouterKind kind = RouterKind::token_choice;
    int64_t k = 1;
    bool normalize = false, prioritized = false;
    Density density = Density::first;
    SecondPolicy second = SecondPolicy::all;
    double second_threshold = 0.2;
    bool dropless = false;       ///< no limit on slots (token choice)
    int64_t fixed_capacity = 0;  ///< slots per expert and group; 0 = from the factor
    double capacity_factor = 1.25;
    int64_t min_capacity = 4;
};
/// Slots per expert of a group with so many routable tokens; -1 = no limit.
int64_t capacity_of(const RouteRule& rule, int64_t routable_tokens, int64_t experts);
/// Upper bound of the rows that `tokens` tokens in `groups` equal groups can give.
int64_t max_rows(const RouteRule& rule, int64_t tokens, int64_t groups, int64_t experts);

/// Sums over a call, in this order in RouteArgs::statistics.
enum class RouteStatistic : int {
    balance,         ///< sum of the groups' balance
    z,               ///< sum of the groups' z
    groups,          ///< groups with at least one routable token
    tokens,          ///< routable tokens
    reached,         ///< tokens that at least one expert takes
    rows,            ///< kept (token, expert) pairs
    slots,           ///< slots offered: experts x capacity of each group that counts (rows if there is no limit)
    gate,            ///< sum of kept gates; / rows = router confidence
    entropy,         ///< sum over routable tokens of -sum p ln p
    later_wanted,    ///< choices after the first that passed the policy
    later_dropped,   ///< of them, those that found no slot
    count
};

struct RouteArgs {
    Tensor logits;  ///< [N, E], accumulation type
    int64_t groups = 1;
    RouteRule rule;
    Tensor mask;    ///< optional u8 [N]: 1 = may be routed
    Tensor bias;    ///< optional [E] accumulation type: added to p where experts are chosen, not in gates, losses or statistics (token choice)
    Tensor scores;  ///< optional [N, E] accumulation type: experts are chosen by these in place of p, likewise (token choice without a bias; sampling_scores)
    Tensor draws;   ///< optional accumulation type [N, k - 1]: uniform numbers of the second policy; without them drawn from `key`, element
                    ///< (first_token + n) (k - 1) + r - 1 for choice r of token n
    RandomKey key;
    uint64_t first_token = 0;  ///< index of token 0 in the step's global batch

    Tensor probabilities;  ///< out [N, E] accumulation type; zeros for a token that may not be routed
    Tensor choices;        ///< out i32 [N, k], best first, whether kept or not; -1 for a token that may not be routed (empty for expert choice)
    Tensor offsets;        ///< out i32 [E + 1]: rows of expert e are [offsets[e], offsets[e+1])
    Tensor row_token;      ///< out i32 [max_rows]
    Tensor row_gate;       ///< out [max_rows] accumulation type
    Tensor row_id;         ///< out i64 [max_rows]: (first_token + token) * E + expert, for dropout inside experts
    Tensor token_offsets;  ///< out i32 [N + 1]: rows of token n are token_rows[token_offsets[n] .. token_offsets[n+1]), by ascending expert
    Tensor token_rows;     ///< out i32 [max_rows]
    Tensor statistics;     ///< out f64 [RouteStatistic::count], overwritten
    Tensor load;           ///< out f64 [E]: rows kept by each expert, overwritten
    Tensor demand;         ///< out f64 [E]: choices of each expert that passed the second policy, kept or not (expert choice: load), overwritten
};
/// Allocates every output in the context's arena; statistics, load and demand only if there are none yet.
void allocate_route_outputs(Context& context, RouteArgs& args);
void route(Context& context, const RouteArgs& args);

struct RouteBackwardArgs {
    RouteArgs forward;
    Tensor d_gate;           ///< [max_rows] accumulation type
    double d_balance = 0;    ///< gradient of the loss by each group's balance
    double d_z = 0;          ///< gradient of the loss by each group's z
    Tensor d_logits;         ///< out [N, E]
};
void route_backward(Context& context, const RouteBackwardArgs& args);

}  // namespace flanmoe::ops

// Rows of experts that other ranks have: where they lie when they are sent and received.
//
// S sources send rows for E experts. A row that has arrived lies in a slot: the rows of source s for expert e are slots [begin(s, e), begin(s, e) +
// counts[s, e]), with begin(s, e) = (s E + e) capacity, or, if capacity is 0, without gaps: the counts of all before, in the order (s, e). Experts want
// their rows side by side: expert_slots() orders them by expert, within one by source, within that as they were sent. The sender is the case S = 1 with all
// experts: its rows are ordered already, and its slots have gaps where the experts' shares have a fixed size.
//
//   count_rows:     counts[e] = offsets[e + 1] - offsets[e]
//   expert_slots:   offsets[e + 1] = rows of experts 0 .. e;  slots[r] = the slot of row r of that order
//   from_slots:     rows[r] = in_slots[slots[r]]      for offsets[0] <= r < offsets[E]; elements of any type
//   to_slots:       in_slots[slots[r]] = rows[r]      the inverse; slots without a row are not written. Either is the other's backward.
#pragma once

#include "core/context.hpp"

namespace flanmoe::ops {

struct CountRowsArgs {
    Tensor offsets;  ///< i32 [E + 1]
    Tensor counts;   ///< i32 [E] out
};
void count_rows(Context& context, const CountRowsArgs& args);

struct ExpertSlotsArgs {
    Tensor counts;         ///< i32 [S, E]
    int64_t capacity = 0;  ///< slots of each source and expert, which no count exceeds; 0 = no gaps
    Tensor offsets;        ///< i32 [E + 1] out
    Tensor slots;          ///< i32 [R] out, R >= the sum of the counts
};
void expert_slots(Context& context, const ExpertSlotsArgs& args);

struct MoveSlotsArgs {
    Tensor rows;      ///< [R, D], compact, or [R]
    Tensor offsets;   ///< i32 [E + 1]
    Tensor slots;     ///< i32 [R]
    Tensor in_slots;  ///< [slots, D], compact, or [slots]; the type of rows
};
void from_slots(Context& context, const MoveSlotsArgs& args);
void to_slots(Context& context, const MoveSlotsArgs& args);

}  // namespace flanmoe::ops

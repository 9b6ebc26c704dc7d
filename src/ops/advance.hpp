// What the chosen tokens do to the sequences being generated, for all rows at once. The host need not know them to go on: it looks at `status` when it likes, and
// puts the sequences together when all is over.
//
// advance_tokens, of a row that has not ended: it takes its id, sum += log-probability, and it ends with the end mark.
//
// advance_beams: a step of the beam search of transformers, with B beams an input. Of its 2B best continuations, in order:
//   - one that ends in the end mark is finished if it is among the first B, otherwise discarded; the first B others run on, each in a row of its own;
//   - in the last step, those of the first B that do not end count as finished too;
//   - score = total / length ^ length_penalty; the best B finished ones are kept, of equal ones those that came first;
//   - done: in the last step; or B are finished, and early_stopping is on or (best running sum) / length ^ length_penalty is no better than the worst score.
// Sequences are not moved: every step tells each row's token and which row it continues, and they are read backwards from there.
//
// follow_rows: the rows that attention finds a sequence's keys in (AttentionArgs::key_rows) after rows have changed places: to[r, p] = from[source[r], p] at
// positions that are written, r at those to come.
#pragma once

#include "core/context.hpp"

namespace flanmoe::ops {

struct AdvanceTokensArgs {
    Tensor ids;                ///< i32 [R], as choose_tokens gives them; -1: the outputs were not finite, and the row stays as it was
    Tensor log_probabilities;  ///< optional f64 [R]
    int64_t end_id = 1;
    Tensor next;    ///< i32 [R] in and out: what each row is fed
    Tensor sums;    ///< f64 [R]: added to
    Tensor ended;   ///< u8 [R] in and out
    Tensor tokens;  ///< i32 [R] out: the token that each row took; -1: none
    Tensor status;  ///< i32 [2], added to: rows that go on, rows whose outputs were not finite
};
void advance_tokens(Context& context, const AdvanceTokensArgs& args);

/// Sequences that are finished, best first, [N, B] each.
struct Finished {
    Tensor scores;   ///< f64
    Tensor lengths;  ///< i32: tokens, end mark included; 0: there is none yet
    Tensor rows;     ///< i32: the row, of the step before, that the last token continues
    Tensor ids;      ///< i32: the last token
};

struct AdvanceBeamsArgs {
    Tensor totals, rows, ids;  ///< [N, 2B], as beam_candidates gives them; ids[n, 0] = -1: the outputs were not finite, and input n stays as it was
    int64_t beams = 1, end_id = 1;
    int64_t length = 1;        ///< tokens of a row, the new one included
    bool last = false, early_stopping = false;
    double length_penalty = 1;
    Tensor fed;         ///< i32 [N * B]: what the rows were fed, and what those of an input that is done are fed again
    Tensor sums;        ///< f64 [N * B] in and out; of rows that run, the best first
    Tensor tokens;      ///< i32 [N * B] out
    Tensor parents;     ///< i32 [N * B] out: the row of all that each row continues; itself where the input is done
    Finished finished;  ///< in and out
    Tensor done;        ///< u8 [N] in and out
    Tensor status;      ///< i32 [2], added to: inputs that go on, inputs whose outputs were not finite
};
void advance_beams(Context& context, const AdvanceBeamsArgs& args);

struct FollowRowsArgs {
    Tensor source;        ///< i32 [R]
    Tensor from;          ///< i32 [R, L]; empty: every row is where it was written
    int64_t written = 0;  ///< positions, at most L
    Tensor to;            ///< i32 [R, L] out, other memory than `from`
};
void follow_rows(Context& context, const FollowRowsArgs& args);

}  // namespace flanmoe::ops

// Choices of generation, for all rows at once: the next token of a sequence, the best continuations of a beam search.
//
// choose_tokens: temperature 0: the most probable id, of equal ones the lowest. Else a draw from p_i ~ exp((x_i - max x) / temperature) over the ids in
// descending order of x (equal ones by id): the first top_k of them, and of those the shortest beginning that holds top_p of their mass; u in [0, 1) stands for the
// first id at which the mass so far exceeds u x (mass of all that are left).
// beam_candidates: of the V continuations of each of an input's `beams` rows, with total = sum of the row + log softmax(x)_i, the best in descending order of
// total; equal ones by row, then by id.
//
// Only the first `valid` ids count. Logits are f32, or f64 on the CPU. A row without a finite result gets -1 for its first id.
#pragma once

#include "core/context.hpp"

namespace flanmoe::ops {

struct ChooseArgs {
    Tensor logits;             ///< [R, V]
    int64_t valid = 0;
    double temperature = 0;
    int64_t top_k = 0;         ///< 0 = all
    double top_p = 1;
    Tensor draws;              ///< f64 [R], uniform in [0, 1); with a temperature
    Tensor ids;                ///< i32 [R] out
    Tensor log_probabilities;  ///< optional f64 [R] out: log softmax(x) of the id, without temperature
};
void choose_tokens(Context& context, const ChooseArgs& args);

struct BeamArgs {
    Tensor logits;     ///< [N * beams, V]
    int64_t beams = 1, valid = 0;
    Tensor sums;       ///< f64 [N * beams]
    Tensor totals;     ///< f64 [N, C] out, C <= beams x V
    Tensor rows, ids;  ///< i32 [N, C] out: which of the input's rows goes on, and by which id
};
void beam_candidates(Context& context, const BeamArgs& args);

}  // namespace flanmoe::ops

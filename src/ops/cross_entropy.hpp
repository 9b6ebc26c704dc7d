// Output layer and loss: logits = scale h w^T, softmax cross-entropy, output z-loss; never the logits of the whole batch.
//
//   lse_n = log sum_v exp(logits_nv);  nll_n = lse_n - logits_n,target
//   loss  = loss_scale * sum_n (nll_n + z_coefficient * lse_n^2)        over rows whose target is not `ignored` (-1)
//   dlogits_nv = loss_scale * ((1 + 2 z lse_n) softmax_nv - [v = target])      (z-loss of T5X losses.py)
//
// Rows that count are gathered and worked on in chunks (about 64 MB of logits at a time), forward and, if a gradient is asked for, backward at once:
// loss_scale (1 / target tokens of the whole step) is known before the forward. Logits and sums in float (double for f64); dlogits are rounded to the
// operands' type. Ignored rows cost nothing. Counts the products it makes in context.flops.
//
// The weight may be rows [first_id, first_id + V) of a larger one, the other rows of which are elsewhere. Then of every row n of a chunk
//   m = largest logit here, s = sum_v exp(logits_nv - m), logits_n,target if it is here, else 0, and the first id with logit m
// are exchanged: `gather` collects those of all parts, and lse_n = log sum_parts s exp(m). d_hidden is this part's share: their sum is the gradient.
#pragma once

#include "core/context.hpp"

#include <functional>

namespace flanmoe::ops {

/// Which part of a vocabulary a weight has.
struct VocabularyPart {
    int64_t parts = 1;       ///< 1: all of it
    int64_t first_id = 0;
    int64_t vocabulary = 0;  ///< of all parts; the largest has ceil(vocabulary / parts) ids
    std::function<void(const Tensor& part, const Tensor& whole)> gather;  ///< whole f64 [parts, R, 4]: the parts' f64 [R, 4], one after the other
};

/// Ids of the largest part, after which chunks are cut: alike in all parts.
inline int64_t largest_part(const VocabularyPart& part, int64_t own) { return part.parts == 1 ? own : (part.vocabulary + part.parts - 1) / part.parts; }

struct LinearCrossEntropyArgs {
    Tensor hidden;   ///< [N, D]
    Tensor weight;   ///< [V, D]
    Tensor targets;  ///< i32 [N]; -1 = ignored
    double scale = 1;           ///< on logits (d_model^-0.5 when outputs are scaled)
    double loss_scale = 1;
    double z_coefficient = 0;
    Tensor d_hidden;  ///< optional [N, D]: overwritten (zero rows where ignored)
    Tensor d_weight;  ///< optional [V, D] in the accumulation type: added to
    Tensor token_nll; ///< optional [N] in the accumulation type: nll per row, 0 where ignored
    Tensor sums;      ///< f64 [4], added to: sum of nll_n, sum of lse_n^2, rows that count, of them those predicted right (see CrossEntropySums)
    int64_t chunk_rows = 0;  ///< rows of a chunk; 0 = as above
    VocabularyPart part;
};
struct CrossEntropySums {
    double nll = 0;       ///< sum of nll_n
    double z = 0;         ///< sum of lse_n^2
    int64_t tokens = 0;   ///< rows that count
    int64_t correct = 0;  ///< of them, those whose largest logit (of equal ones the first) is the target
};
void linear_cross_entropy(Context& context, const LinearCrossEntropyArgs& args);
/// LinearCrossEntropyArgs::sums on the host; waits for the work before.
CrossEntropySums read_sums(const Context& context, const Tensor& sums);

}  // namespace flanmoe::ops

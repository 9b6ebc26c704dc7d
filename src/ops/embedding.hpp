// Embedding lookup: out[n] = table[ids[n]]; backward: d_table[ids[n]] += d_out[n], added in the order of n for every row of the table (rows are
// divided among threads, so there are no atomics and the bits do not depend on scheduling).
//
// The table may be rows [first_id, first_id + V) of a larger one: other ids give zeros and add nothing.
#pragma once

#include "core/context.hpp"

namespace flanmoe::ops {

struct EmbeddingArgs {
    Tensor table;  ///< [V, D]
    Tensor ids;    ///< i32 [N], each in the whole table: the caller has checked them
    Tensor out;    ///< [N, D]
    int64_t first_id = 0;
    int64_t vocabulary = 0;  ///< rows of the larger table; 0 = V, there is none
};
void embedding(Context& context, const EmbeddingArgs& args);

struct EmbeddingBackwardArgs {
    Tensor ids;
    Tensor d_out;    ///< [N, D]
    Tensor d_table;  ///< [V, D] accumulation type: added to
    int64_t first_id = 0;
    int64_t vocabulary = 0;
};
void embedding_backward(Context& context, const EmbeddingBackwardArgs& args);

}  // namespace flanmoe::ops

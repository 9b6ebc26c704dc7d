// Embedding lookup: out[n] = table[ids[n]]; backward: d_table[ids[n]] += d_out[n], added in the order of n for every row of the table (rows are
// divided among threads, so there are no atomics and the bits do not depend on scheduling).
#pragma once

#include "core/context.hpp"

namespace flanmoe::ops {

struct EmbeddingArgs {
    Tensor table;  ///< [V, D]
    Tensor ids;    ///< i32 [N], each in [0, V): the caller has checked them
    Tensor out;    ///< [N, D]
};
void embedding(Context& context, const EmbeddingArgs& args);

struct EmbeddingBackwardArgs {
    Tensor ids;
    Tensor d_out;    ///< [N, D]
    Tensor d_table;  ///< [V, D] accumulation type: added to
};
void embedding_backward(Context& context, const EmbeddingBackwardArgs& args);

}  // namespace flanmoe::ops

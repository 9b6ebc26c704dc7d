// Attention as T5 has it: softmax(scale q k^T + bias) v, forward and backward, without an S x S tensor kept between them.
//
//   score(i, j) = scale * q_i . k_j + table[bucket(j - i), head]        (no 1/sqrt(K) in T5: scale = 1; cross-attention: no table)
//   visible(i, j): key_segment[j] != 0, and query_segment[i] == key_segment[j] or query_segment[i] == 0 (a padded query sees every real
//                  key of its row, as in the published implementations; no answer depends on it), and, if causal, j <= i + query_offset or
//                  j < prefix_end[i] (prefix-LM: i lies in a prefix that ends there), and, with a window, j > i + query_offset - window
//   a query that sees nothing gives zeros.
//
// Buckets (T5, mesh_tensorflow; see bucket_of): distance n = i - j. Bidirectional: R/2 buckets a direction, +R/2
// when the key is to the right; one-directional: n = max(n, 0). n < N/2 has its own bucket, beyond that N/2 + trunc(ln(n / (N/2)) / ln(max_distance / (N/2)) * (N - N/2)),
// at most N - 1.
//
// Dropout acts on probabilities (element ((row * H + h) * Sq + i) * Sk + j of the key's stream, row counted from the step's first row);
// of heads that ranks share, H there is `dropout_heads` and the first head is counted in dropout.first;
// broadcast, length = Sq and features = Sk: all queries of a row and head share one mask.
// Statistics and sums in float (double for f64). Saved for the backward: out and log_sum [B, H, Sq]. Heads of k and v may be fewer than those of q
// (each serves H / Hkv consecutive query heads). context.flops counts two products forward and four backward (not the recomputed one), over the pairs
// that causality allows.
#pragma once

#include "core/context.hpp"
#include "core/random.hpp"

#include <vector>

namespace flanmoe::ops {

struct BucketRule {
    int64_t count = 32;         ///< rows of the table
    int64_t max_distance = 128;
    bool bidirectional = true;
};
/// Bucket of relative position key - query.
int64_t bucket_of(const BucketRule& rule, int64_t relative);

/// The same for many positions: the logarithms of a rule are taken once, as the first distance of each bucket.
class BucketTable {
public:
    explicit BucketTable(const BucketRule& rule);
    int64_t of(int64_t relative) const {
        const bool right = relative > 0;
        const int64_t distance = right ? (bidirectional_ ? relative : 0) : -relative;
        const int64_t last = static_cast<int64_t>(bucket_.size()) - 1;
        return bucket_[static_cast<size_t>(distance < last ? distance : last)] + (right ? right_offset_ : 0);
    }

private:
    std::vector<int32_t> bucket_;  // by distance; the last entry serves all longer ones
    bool bidirectional_;
    int32_t right_offset_ = 0;
};

inline constexpr int64_t few_queries = 4;  ///< up to which attention is made for decoding

struct AttentionArgs {
    Tensor q;     ///< [B, Sq, H*K] (rows may be strided: a slice of a fused product)
    Tensor k, v;  ///< [B, Sk, Hkv*K]
    int64_t heads = 1, kv_heads = 1;
    double scale = 1;
    Tensor bias_table;  ///< optional [R, H], type of q or accumulation type
    BucketRule buckets;
    bool causal = false;
    Tensor query_segments;  ///< optional i32 [B, Sq], >= 0; without them every query is of segment 1
    Tensor key_segments;    ///< optional i32 [B, Sk], >= 0; without them (then also without query_segments) every query sees every key
    Tensor prefix_ends;     ///< optional i32 [B, Sq], with causal: where the prefix that query i lies in ends, among the keys; 0 outside of one.
                            ///< What positions let a query see never shrinks from one query to the next: prefixes do not overlap.
    int64_t window = 0;     ///< with causal: so many keys up to the query's own position; 0 = all
    int64_t query_offset = 0;  ///< position of query 0 among the keys (incremental decoding)
    Tensor key_rows;           ///< optional i32 [B, Sk], forward only, of at most few_queries queries: in which row of k and v key j of row b lies, in [0, B)
    Dropout dropout;
    int64_t dropout_heads = 0;  ///< heads of the whole layer; 0 = `heads`
    Tensor out;      ///< [B, Sq, H*K] out
    Tensor log_sum;  ///< optional [B, H, Sq] out, accumulation type; -infinity for a query that sees nothing
};
void attention(Context& context, const AttentionArgs& args);

struct AttentionBackwardArgs {
    AttentionArgs forward;  ///< as given to attention(), with out and log_sum filled in
    Tensor d_out;           ///< [B, Sq, H*K]
    Tensor d_q, d_k, d_v;   ///< like q, k, v: overwritten
    Tensor d_bias_table;    ///< optional [R, H] accumulation type: added to, in a fixed order
};
void attention_backward(Context& context, const AttentionBackwardArgs& args);

}  // namespace flanmoe::ops

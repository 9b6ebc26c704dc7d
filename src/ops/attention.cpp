// Buckets, argument checks and dispatch of attention; see attention.hpp.
#include "ops/attention.hpp"

#include "ops/run.hpp"

#include <algorithm>
#include <cmath>

namespace flanmoe::cpu {
void attention(Context& context, const ops::AttentionArgs& args);
void attention_backward(Context& context, const ops::AttentionBackwardArgs& args);
}  // namespace flanmoe::cpu
namespace flanmoe::cuda {
void attention(Context& context, const ops::AttentionArgs& args);
void attention_backward(Context& context, const ops::AttentionBackwardArgs& args);
}  // namespace flanmoe::cuda

namespace flanmoe::ops {

namespace {

bool is_integers(const Tensor& tensor, int64_t elements) { return is_vector(tensor, DType::i32, elements); }

void check(const AttentionArgs& args) {
    const Tensor& q = args.q;
    require(q.data && q.shape.rank == 3 && args.k.shape.rank == 3, "queries and keys [batch, length, width]");
    require(is_float(q.dtype), "queries of a floating type");
    require(args.heads > 0 && args.kv_heads > 0 && args.heads % args.kv_heads == 0, "heads a multiple of the heads of keys and values");
    require(q.cols() % args.heads == 0, "queries of as many equal heads as are named");
    require(args.dropout_heads == 0 || args.dropout_heads >= args.heads, "masks of at least as many heads as are here");
    const int64_t batch = q.shape[0], queries = q.shape[1], keys = args.k.shape[1], width = q.cols() / args.heads * args.kv_heads;
    require(q.ld >= q.cols() && args.k.shape[0] == batch, "keys of as many rows of the batch as queries");
    require(is_matrix(args.k, q.dtype, batch * keys, width) && is_matrix(args.v, q.dtype, batch * keys, width), "keys and values of the heads' size");
    require(is_matrix(args.out, q.dtype, batch * queries, q.cols()), "an output like the queries");
    require(!args.log_sum || is_vector(args.log_sum, accumulate_type(q.dtype), batch * args.heads * queries), "log_sum [batch, heads, queries]");
    if (args.bias_table) {
        const DType type = args.bias_table.dtype;
        require(type == q.dtype || type == accumulate_type(q.dtype), "a bias table of the queries' or of the accumulation type");
        require(is_matrix(args.bias_table, type, args.buckets.count, args.heads), "a bias table [buckets, heads]");
    }
    require(!args.key_segments || is_integers(args.key_segments, batch * keys), "key segments i32 [batch, keys]");
    require(!args.query_segments || (args.key_segments && is_integers(args.query_segments, batch * queries)),
            "query segments i32 [batch, queries] together with key segments");
    require(!args.prefix_ends || (args.causal && is_integers(args.prefix_ends, batch * queries)), "prefix ends i32 [batch, queries] with causal attention");
    require(args.window == 0 || (args.causal && args.window > 0), "a window of at least one key with causal attention");
    require(args.query_offset >= 0, "a query offset of at least 0");
    require(!args.key_rows || (queries <= few_queries && is_integers(args.key_rows, batch * keys)), "rows of keys i32 [batch, keys], for a few queries");
    const Dropout& dropout = args.dropout;
    if (dropout.features == 0) return;
    require(dropout.length == static_cast<uint64_t>(queries) && dropout.features == static_cast<uint64_t>(keys) && dropout.first % (dropout.length * dropout.features) == 0,
            "dropout that is broadcast along the queries of whole matrices, or not at all");
}

/// Products of queries with keys that positions allow, all heads and rows (a prefix is not counted).
double visible_pairs(const AttentionArgs& args) {
    const int64_t queries = args.q.shape[1], keys = args.k.shape[1];
    double pairs = 0;
    if (args.causal) {
        for (int64_t i = 0; i < queries; ++i) pairs += static_cast<double>(std::min(keys, i + args.query_offset + 1));
    } else {
        pairs = static_cast<double>(queries) * static_cast<double>(keys);
    }
    return pairs * static_cast<double>(args.q.shape[0] * args.heads);
}

double flops_of_product(const AttentionArgs& args) { return 2 * visible_pairs(args) * static_cast<double>(args.q.cols() / args.heads); }

}  // namespace

BucketTable::BucketTable(const BucketRule& rule) : bidirectional_(rule.bidirectional) {
    const int64_t count = bidirectional_ ? rule.count / 2 : rule.count, exact = count / 2;
    require(exact > 0 && rule.max_distance > exact, "a bucket rule with buckets of one distance and a larger maximum distance");
    right_offset_ = bidirectional_ ? static_cast<int32_t>(count) : 0;
    for (int64_t distance = 0; distance < exact; ++distance) bucket_.push_back(static_cast<int32_t>(distance));
    // Bucket b begins at the least n with ln(n / exact) / ln(max / exact) * (count - exact) >= b - exact. The small number keeps a boundary that is
    // an integer (every other one of T5's bidirectional rule) on its side whatever pow() rounds to.
    const double ratio = static_cast<double>(rule.max_distance) / static_cast<double>(exact);
    for (int64_t b = exact; b < count; ++b) {
        const double end = static_cast<double>(exact) * std::pow(ratio, static_cast<double>(b + 1 - exact) / static_cast<double>(count - exact));
        const int64_t first_of_next = b + 1 < count ? static_cast<int64_t>(std::ceil(end - 1e-9)) : static_cast<int64_t>(bucket_.size()) + 1;
        while (static_cast<int64_t>(bucket_.size()) < first_of_next) bucket_.push_back(static_cast<int32_t>(b));
    }
}

int64_t bucket_of(const BucketRule& rule, int64_t relative) { return BucketTable(rule).of(relative); }

void attention(Context& context, const AttentionArgs& args) {
    check(args);
    context.flops += 2 * flops_of_product(args);
    dispatch(context, args.q.dtype, [&] { cpu::attention(context, args); }, [&] { cuda::attention(context, args); });
}

void attention_backward(Context& context, const AttentionBackwardArgs& args) {
    const AttentionArgs& f = args.forward;
    check(f);
    const auto like = [](const Tensor& tensor, const Tensor& other) { return is_matrix(tensor, other.dtype, other.rows(), other.cols()); };
    require(f.log_sum.data != nullptr && !f.key_rows, "the log_sum of the forward, and keys in the rows that read them");
    require(like(args.d_out, f.q) && like(args.d_q, f.q) && like(args.d_k, f.k) && like(args.d_v, f.v), "gradients like queries, keys and values");
    require(!args.d_bias_table || (f.bias_table && is_matrix(args.d_bias_table, accumulate_type(f.q.dtype), f.buckets.count, f.heads)),
            "a bias gradient [buckets, heads] of the accumulation type");
    context.flops += 4 * flops_of_product(f);
    dispatch(context, f.q.dtype, [&] { cpu::attention_backward(context, args); }, [&] { cuda::attention_backward(context, args); });
}

}  // namespace flanmoe::ops

#include "model/decoding.hpp"

#include "core/parallel.hpp"
#include "ops/elementwise.hpp"
#include "ops/matmul.hpp"
#include "ops/norm.hpp"

#include <algorithm>
#include <cstring>

namespace flanmoe {

namespace {

// Copies `count` elements a row from rows of one tensor to rows of another.
void copy_rows(const Tensor& from, const Tensor& to, int64_t rows, int64_t count, int64_t from_stride, int64_t to_stride) {
    const int64_t size = size_of(from.dtype);
    parallel_for(rows, 16, [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r) {
            std::memcpy(static_cast<char*>(to.data) + r * to_stride * size, static_cast<const char*>(from.data) + r * from_stride * size, static_cast<size_t>(count * size));
        }
    });
}

Batch encoder_side(const Batch& inputs) {
    Batch b;
    b.rows = inputs.rows;
    b.encoder_length = inputs.encoder_length;
    b.encoder_ids = inputs.encoder_ids;
    b.encoder_segments = inputs.encoder_segments;
    b.encoder_routed = inputs.encoder_routed;
    b.decoder_length = 1;
    b.decoder_ids.assign(static_cast<size_t>(inputs.rows), 0);
    b.decoder_segments.assign(static_cast<size_t>(inputs.rows), 1);
    return b;
}

}  // namespace

DecoderCache::DecoderCache(const Transformer& model, Pass& pass, const Batch& inputs, int64_t beams, int64_t max_length)
    : model_(model), rows_(inputs.rows * beams), max_length_(max_length), source_length_(inputs.encoder_length) {
    require(model.config().encoder_decoder, "an encoder-decoder model");
    Context& context = pass.context;
    const int64_t inner = model.config().heads * model.config().d_kv;
    const auto& sublayers = model.decoder().sublayers;
    caches_.resize(sublayers.size());
    memory_segments_ = context.allocate(DType::i32, {rows_, source_length_});
    for (size_t s = 0; s < sublayers.size(); ++s) {
        const auto* attention = std::get_if<AttentionLayer>(&sublayers[s].body);
        if (!attention) continue;
        if (attention->cross) {
            caches_[s].memory = context.allocate(pass.forward_type(), {rows_, source_length_, 2 * inner});
        } else {
            for (Tensor* t : {&caches_[s].keys, &caches_[s].values}) *t = context.allocate(pass.forward_type(), {rows_, max_length, inner});
            if (beams > 1)
                for (Tensor* t : {&caches_[s].spare_keys, &caches_[s].spare_values}) *t = context.allocate(pass.forward_type(), {rows_, max_length, inner});
        }
    }
    Arena::Scope scope(context.arena);
    TransformerSaved saved;
    const Batch encoder_batch = encoder_side(inputs);
    model.forward(pass, encoder_batch, saved);
    for (int64_t b = 0; b < beams; ++b) {
        const Tensor into(memory_segments_.as<int32_t>() + b * source_length_, DType::i32, {inputs.rows, source_length_}, beams * source_length_);
        copy_rows(saved.encoder.segments, into, inputs.rows, source_length_, source_length_, beams * source_length_);
    }
    for (size_t s = 0; s < sublayers.size(); ++s) {
        const Tensor& memory = caches_[s].memory;
        if (!memory) continue;
        const Tensor& projected = saved.decoder_stack.sublayers[s].attention.memory_fused;  // [rows * S, 2I] of the inputs, not yet per beam
        const int64_t block = source_length_ * 2 * inner;
        for (int64_t b = 0; b < beams; ++b) {
            const Tensor into(static_cast<char*>(memory.data) + b * block * size_of(memory.dtype), memory.dtype, {inputs.rows, block}, beams * block);
            copy_rows(projected, into, inputs.rows, block, block, beams * block);
        }
    }
}

Tensor DecoderCache::self_attention(Pass& pass, const AttentionLayer& layer, const Tensor& x, LayerCache& cache) {
    Context& context = pass.context;
    const ModelConfig& config = model_.config();
    const int64_t inner = config.heads * config.d_kv;
    const Tensor fused = context.allocate(x.dtype, {rows_, 3 * inner});
    ops::matmul(context, {.a = x, .b = pass.fused_weight_of(x.dtype, layer.query, 3), .out = fused, .transpose_b = true});
    const auto at_position = [&](const Tensor& t) { return Tensor(static_cast<char*>(t.data) + position_ * inner * size_of(t.dtype), t.dtype, {rows_, inner}, max_length_ * inner); };
    copy_rows(fused.columns(inner, inner), at_position(cache.keys), rows_, inner, 3 * inner, max_length_ * inner);
    copy_rows(fused.columns(2 * inner, inner), at_position(cache.values), rows_, inner, 3 * inner, max_length_ * inner);

    // The caches are [rows, max_length, I]; causality keeps attention away from positions that are not decoded yet.
    ops::AttentionArgs args;
    args.q = Tensor(fused.data, fused.dtype, {rows_, 1, inner}, 3 * inner);
    args.k = cache.keys;
    args.v = cache.values;
    args.heads = args.kv_heads = config.heads;
    args.bias_table = pass.master(layer.bias);
    args.buckets = {config.buckets, config.max_distance, false};
    args.causal = true;
    args.query_offset = position_;
    args.out = context.allocate(x.dtype, {rows_, 1, inner});
    ops::attention(context, args);
    const Tensor delta = context.allocate(pass.accumulate(), {rows_, config.d_model});
    ops::matmul(context, {.a = args.out, .b = pass.weight_of(x.dtype, layer.output), .out = delta, .transpose_b = true});
    return delta;
}

Tensor DecoderCache::cross_attention(Pass& pass, const AttentionLayer& layer, const Tensor& x, const LayerCache& cache) {
    Context& context = pass.context;
    const ModelConfig& config = model_.config();
    const int64_t inner = config.heads * config.d_kv;
    ops::AttentionArgs args;
    args.q = context.allocate(x.dtype, {rows_, 1, inner});
    ops::matmul(context, {.a = x, .b = pass.weight_of(x.dtype, layer.query), .out = args.q, .transpose_b = true});
    args.k = Tensor(cache.memory.data, cache.memory.dtype, {rows_, source_length_, inner}, 2 * inner);
    args.v = Tensor(cache.memory.columns(inner, inner).data, cache.memory.dtype, {rows_, source_length_, inner}, 2 * inner);
    args.heads = args.kv_heads = config.heads;
    args.key_segments = memory_segments_;
    args.out = context.allocate(x.dtype, {rows_, 1, inner});
    ops::attention(context, args);
    const Tensor delta = context.allocate(pass.accumulate(), {rows_, config.d_model});
    ops::matmul(context, {.a = args.out, .b = pass.weight_of(x.dtype, layer.output), .out = delta, .transpose_b = true});
    return delta;
}

Tensor DecoderCache::step(Pass& pass, const std::vector<int32_t>& ids) {
    require(position_ < max_length_ && static_cast<int64_t>(ids.size()) == rows_, "one id a row, within the cache's length");
    Context& context = pass.context;
    pass.no_drop = pass.route_rows_alone = true;
    const int64_t d = model_.config().d_model;
    const Stack& stack = model_.decoder();
    Sequence sequence;
    sequence.rows = rows_, sequence.length = 1;
    sequence.routed = upload(context, std::vector<uint8_t>(static_cast<size_t>(rows_), 1), {rows_});

    const auto norm = [&](const Tensor& h, const Tensor& delta, size_t gain, const Tensor& new_h, DType type) {
        const Tensor y = context.allocate(type, {rows_, d}), rstd = context.allocate(pass.accumulate(), {rows_});
        ops::residual_norm(context, {h, delta, {}, pass.master(gain), model_.config().norm_epsilon, {}, new_h, y, rstd});
        return y;
    };
    Tensor h, delta = model_.embed(pass, upload(context, ids, {rows_}));
    for (size_t s = 0; s < stack.sublayers.size(); ++s) {
        const SubLayer& sublayer = stack.sublayers[s];
        const Tensor new_h = context.allocate(pass.accumulate(), {rows_, d});
        const Tensor y = norm(h, delta, sublayer.norm, new_h, pass.forward_type());
        h = new_h;
        if (const auto* attention = std::get_if<AttentionLayer>(&sublayer.body)) {
            delta = attention->cross ? cross_attention(pass, *attention, y, caches_[s]) : self_attention(pass, *attention, y, caches_[s]);
        } else if (const auto* feed_forward = std::get_if<FeedForward>(&sublayer.body)) {
            FeedForwardSaved saved;
            delta = feed_forward_forward(pass, *feed_forward, y, 0, saved);
        } else {
            MoeSaved saved;
            delta = moe_forward(pass, std::get<MoeLayer>(sublayer.body), y, sequence, saved);
        }
    }
    const Tensor last = context.allocate(pass.accumulate(), {rows_, d});
    const Tensor hidden = norm(h, delta, stack.final_norm, last, pass.type());
    ++position_;
    return model_.logits(pass, hidden);
}

void DecoderCache::reorder(Pass& pass, std::span<const int32_t> source) {
    const int64_t inner = model_.config().heads * model_.config().d_kv, size = size_of(pass.forward_type());
    for (LayerCache& cache : caches_) {
        if (!cache.keys) continue;
        require(cache.spare_keys.data != nullptr, "a cache for several beams");
        const auto gather = [&](const Tensor& from, const Tensor& to) {
            parallel_for(rows_, 8, [&](int64_t begin, int64_t end) {
                for (int64_t r = begin; r < end; ++r) {
                    std::memcpy(static_cast<char*>(to.data) + r * max_length_ * inner * size,
                                static_cast<const char*>(from.data) + source[static_cast<size_t>(r)] * max_length_ * inner * size, static_cast<size_t>(position_ * inner * size));
                }
            });
        };
        gather(cache.keys, cache.spare_keys);
        gather(cache.values, cache.spare_values);
        std::swap(cache.keys, cache.spare_keys);
        std::swap(cache.values, cache.spare_values);
    }
}

void DecoderCache::keep(std::span<const int32_t> rows) {
    require(std::is_sorted(rows.begin(), rows.end()) && !rows.empty() && rows.back() < rows_, "ascending rows of the cache");
    // Rows move towards the front, in order: none is overwritten before it has moved.
    const auto compact = [&](Tensor& t, int64_t used) {
        if (!t) return;
        const int64_t stride = t.elements() / rows_ * size_of(t.dtype), bytes = used * size_of(t.dtype);
        char* data = static_cast<char*>(t.data);
        for (size_t r = 0; r < rows.size(); ++r) std::memmove(data + static_cast<int64_t>(r) * stride, data + rows[r] * stride, static_cast<size_t>(bytes));
        t.shape.sizes[0] = static_cast<int64_t>(rows.size());
    };
    const int64_t inner = model_.config().heads * model_.config().d_kv;
    for (LayerCache& cache : caches_) {
        compact(cache.keys, position_ * inner);
        compact(cache.values, position_ * inner);
        compact(cache.spare_keys, 0);
        compact(cache.spare_values, 0);
        compact(cache.memory, source_length_ * 2 * inner);
    }
    compact(memory_segments_, source_length_);
    rows_ = static_cast<int64_t>(rows.size());
}

}  // namespace flanmoe

#include "model/decoding.hpp"

#include "ops/advance.hpp"
#include "ops/elementwise.hpp"
#include "ops/matmul.hpp"
#include "ops/norm.hpp"

#include <algorithm>

namespace flanmoe {

namespace {

// Copies `count` elements a row from rows of one tensor to rows of another.
void copy_rows(Context& context, const Tensor& from, const Tensor& to, int64_t rows, int64_t count, int64_t from_stride, int64_t to_stride) {
    const int64_t size = size_of(from.dtype);
    context.engine->copy_rows(to.data, to_stride * size, from.data, from_stride * size, count * size, rows);
}

Batch encoder_side(const Batch& inputs) {
    Batch b;
    b.rows = inputs.rows;
    b.encoder_length = inputs.encoder_length;
    b.encoder_ids = inputs.encoder_ids;
    b.encoder_segments = inputs.encoder_segments;
    b.encoder_routed = inputs.encoder_routed;
    return b;
}

// The decoder side of a batch, each row moved to the right so that all end together.
Batch ending_together(const Batch& inputs, int32_t pad) {
    const int64_t length = inputs.decoder_length;
    Batch b;
    b.rows = inputs.rows, b.decoder_length = length;
    b.decoder_ids.assign(static_cast<size_t>(b.rows * length), pad);
    b.decoder_segments.assign(b.decoder_ids.size(), 0);
    if (!inputs.prefix_ends.empty()) b.prefix_ends.assign(b.decoder_ids.size(), 0);
    for (int64_t r = 0; r < b.rows; ++r) {
        int64_t real = 0;
        while (real < length && inputs.decoder_segments[static_cast<size_t>(r * length + real)] != 0) ++real;
        const int64_t shift = length - real;
        for (int64_t t = 0; t < real; ++t) {
            const auto from = static_cast<size_t>(r * length + t), to = from + static_cast<size_t>(shift);
            b.decoder_ids[to] = inputs.decoder_ids[from];
            b.decoder_segments[to] = 1;
            if (!inputs.prefix_ends.empty() && inputs.prefix_ends[from] > 0) b.prefix_ends[to] = inputs.prefix_ends[from] + static_cast<int32_t>(shift);
        }
    }
    return b;
}

}  // namespace

DecoderCache::DecoderCache(const Transformer& model, Pass& pass, const Batch& inputs, int64_t beams, int64_t new_tokens)
    : model_(model), beams_(beams), rows_(inputs.rows * beams), max_length_(new_tokens), source_length_(inputs.encoder_length) {
    Context& context = pass.context;
    const ModelConfig& config = model.config();
    if (!config.encoder_decoder) {
        require(inputs.decoder_length > 0, "prompts for a decoder-only model");
        shared_ = inputs.decoder_length - 1;
        max_length_ += shared_;
    }
    caches_.resize(model.decoder().sublayers.size());
    for (size_t s = 0; s < caches_.size(); ++s) {
        const auto* attention = std::get_if<AttentionLayer>(&model.decoder().sublayers[s].body);
        if (!attention) continue;
        LayerCache& cache = caches_[s];
        key_width_ = flanmoe::key_width(pass, *attention);  // alike in all layers
        if (attention->cross) {
            cache.memory = context.allocate(pass.forward_type(), {inputs.rows, source_length_, 2 * key_width()});
        } else {
            for (Tensor* t : {&cache.keys, &cache.values}) *t = context.allocate(pass.forward_type(), {rows_, max_length_, key_width()});
        }
    }
    if (beams > 1)
        for (Tensor* t : {&key_rows_, &spare_key_rows_}) *t = context.allocate(DType::i32, {rows_, max_length_});
    all_routed_ = context.upload(std::vector<uint8_t>(static_cast<size_t>(rows_), 1), {rows_});
    rotary_ = rotary_table(context, config, pass.accumulate(), max_length_);
    if (config.encoder_decoder) encode(pass, inputs);
    else read_prompts(pass, inputs);
}

void DecoderCache::encode(Pass& pass, const Batch& inputs) {
    Context& context = pass.context;
    first_ids_.assign(static_cast<size_t>(rows_), static_cast<int32_t>(model_.config().decoder_start_id));
    memory_segments_ = context.allocate(DType::i32, {inputs.rows, source_length_});
    Arena::Scope scope(context.arena);
    TransformerSaved saved;
    Pass lean = pass;
    lean.recompute = Recompute::full;  // no gradient follows
    const Tensor encoded = model_.encode(lean, upload(context, model_.config(), encoder_side(inputs)), saved);
    context.engine->copy(memory_segments_.data, saved.encoder.segments.data, memory_segments_.bytes());
    for (size_t s = 0; s < caches_.size(); ++s) {
        if (!caches_[s].memory) continue;
        Arena::Scope layer(context.arena);
        const Tensor projected = memory_projection(pass, std::get<AttentionLayer>(model_.decoder().sublayers[s].body), encoded);
        context.engine->copy(caches_[s].memory.data, projected.data, projected.bytes());
    }
}

// Keys and values of every token of the prompts come from one pass. The first step goes over the last token again, at its own position, for its logits.
void DecoderCache::read_prompts(Pass& pass, const Batch& inputs) {
    Context& context = pass.context;
    const int64_t length = inputs.decoder_length, width = key_width();
    const Batch prompts = ending_together(inputs, static_cast<int32_t>(model_.config().pad_id));
    std::vector<int32_t> segments(static_cast<size_t>(rows_ * max_length_), 1);
    for (int64_t row = 0; row < rows_; ++row) {
        const int64_t first = row / beams_ * length;
        first_ids_.push_back(prompts.decoder_ids[static_cast<size_t>(first + length - 1)]);
        for (int64_t t = 0; t < shared_; ++t) segments[static_cast<size_t>(row * max_length_ + t)] = prompts.decoder_segments[static_cast<size_t>(first + t)];
    }
    segments_ = context.upload(segments, {rows_, max_length_});
    Arena::Scope scope(context.arena);
    Pass lean = pass;
    lean.no_drop = lean.route_rows_alone = true;
    lean.recompute = Recompute::full;  // no gradient follows
    lean.after_sublayer = [&](size_t s, const SubLayerSaved& sublayer) {
        LayerCache& cache = caches_[s];
        if (!cache.keys) return;
        const ops::AttentionArgs& args = sublayer.attention.args;
        const auto place = [&](const Tensor& from, const Tensor& to) {
            const int64_t size = size_of(from.dtype);
            for (int64_t row = 0; row < rows_; ++row) {
                const Tensor tokens(static_cast<char*>(from.data) + row / beams_ * length * from.ld * size, from.dtype, {length, width}, from.ld);
                const Tensor cached(static_cast<char*>(to.data) + row * max_length_ * width * size, to.dtype, {length, width});
                copy_rows(context, tokens, cached, length, width, from.ld, width);
            }
        };
        place(args.k, cache.keys), place(args.v, cache.values);
    };
    TransformerSaved saved;
    model_.forward(lean, prompts, saved);
    position_ = shared_;
}

Tensor DecoderCache::self_attention(Pass& pass, const AttentionLayer& layer, const Tensor& x, LayerCache& cache) {
    const int64_t inner = query_width(pass, layer), width = key_width(), count = x.rows() / rows_;
    const Tensor fused = self_projection(pass, layer, x, count, rotary_ ? rotary_.slice_rows(position_, count) : Tensor());
    const auto place = [&](int64_t first_column, int64_t t, const Tensor& to) {
        const Tensor from = fused.columns(first_column, width).slice_rows(t, fused.rows() - t);
        const Tensor at(static_cast<char*>(to.data) + (position_ + t) * width * size_of(to.dtype), to.dtype, {rows_, width}, max_length_ * width);
        copy_rows(pass.context, from, at, rows_, width, count * fused.ld, max_length_ * width);
    };
    for (int64_t t = 0; t < count; ++t) place(inner, t, cache.keys), place(inner + width, t, cache.values);

    // The caches are [rows, max_length, J]; causality keeps attention away from positions that are not decoded yet.
    ops::AttentionArgs args = attention_rule(pass, layer);
    args.q = Tensor(fused.data, fused.dtype, {rows_, count, inner}, fused.ld);
    args.k = cache.keys;
    args.v = cache.values;
    args.key_segments = segments_;
    if (reordered_) args.key_rows = key_rows_;
    args.query_offset = position_;
    return attend(pass, layer, args);
}

Tensor DecoderCache::cross_attention(Pass& pass, const AttentionLayer& layer, const Tensor& x, const LayerCache& cache) {
    const int64_t inner = query_width(pass, layer), width = key_width();
    ops::AttentionArgs args = attention_rule(pass, layer);
    // Beams are queries of one input: its keys are there once.
    const int64_t inputs = rows_ / beams_;
    args.q = query_projection(pass, layer, x).view({inputs, x.rows() / inputs, inner});
    args.k = Tensor(cache.memory.data, cache.memory.dtype, {inputs, source_length_, width}, 2 * width);
    args.v = Tensor(cache.memory.columns(width, width).data, cache.memory.dtype, {inputs, source_length_, width}, 2 * width);
    args.key_segments = memory_segments_;
    return attend(pass, layer, args);
}

Tensor DecoderCache::attend(Pass& pass, const AttentionLayer& layer, ops::AttentionArgs& args) {
    args.out = pass.context.allocate(args.q.dtype, args.q.shape);
    ops::attention(pass.context, args);
    return output_projection(pass, layer, args.out.view({args.out.rows(), args.out.cols()}));
}

Tensor DecoderCache::feed(Pass& pass, const Tensor& ids, const Tensor& routed) {
    const int64_t tokens = ids.elements(), count = tokens / rows_;
    require(count > 0 && tokens == count * rows_ && routed.elements() == tokens && position_ + count <= max_length_, "equally many ids a row, within the cache's length");
    pass.no_drop = pass.route_rows_alone = true;
    Sequence sequence;
    sequence.rows = rows_, sequence.length = count;
    sequence.routed = routed;
    const Tensor hidden = decode(pass, model_.embed(pass, ids.view({tokens})), sequence);
    position_ += count;
    return hidden;
}

Tensor DecoderCache::decode(Pass& pass, Tensor delta, const Sequence& sequence) {
    Context& context = pass.context;
    const int64_t tokens = sequence.tokens(), d = model_.config().d_model;
    const Stack& stack = model_.decoder();
    const auto norm = [&](const Tensor& h, const Tensor& delta, size_t gain, const Tensor& new_h, DType type) {
        const Tensor y = context.allocate(type, {tokens, d}), rstd = context.allocate(pass.accumulate(), {tokens});
        ops::residual_norm(context, {h, delta, {}, pass.master(gain), model_.config().norm_epsilon, {}, new_h, y, rstd});
        return y;
    };
    Tensor h;
    for (size_t s = 0; s < stack.sublayers.size(); ++s) {
        const SubLayer& sublayer = stack.sublayers[s];
        const Tensor new_h = context.allocate(pass.accumulate(), {tokens, d});
        const Tensor y = norm(h, delta, sublayer.norm, new_h, pass.forward_type());
        h = new_h;
        if (const auto* attention = std::get_if<AttentionLayer>(&sublayer.body)) {
            delta = attention->cross ? cross_attention(pass, *attention, y, caches_[s]) : self_attention(pass, *attention, y, caches_[s]);
        } else if (const auto* feed_forward = std::get_if<FeedForward>(&sublayer.body)) {
            FeedForwardSaved saved;
            delta = feed_forward_forward(pass, *feed_forward, y, {}, saved);
        } else {
            MoeSaved saved;
            delta = moe_forward(pass, std::get<MoeLayer>(sublayer.body), y, sequence, saved);
        }
    }
    return norm(h, delta, stack.final_norm, context.allocate(pass.accumulate(), {tokens, d}), pass.type());
}

Tensor DecoderCache::step(Pass& pass, const Tensor& ids) {
    require(ids.elements() == rows_, "one id a row");
    return model_.logits(pass, feed(pass, ids, Tensor(all_routed_.data, DType::u8, {rows_})));
}

void DecoderCache::reorder(Pass& pass, const Tensor& source) {
    require(beams_ > 1, "a cache for several beams");
    ops::follow_rows(pass.context, {.source = source, .from = reordered_ ? key_rows_ : Tensor(), .written = position_, .to = spare_key_rows_});
    std::swap(key_rows_, spare_key_rows_);
    reordered_ = true;
}

void DecoderCache::keep(Pass& pass, std::span<const int32_t> rows) {
    Engine& engine = *pass.context.engine;
    require(beams_ == 1 && std::is_sorted(rows.begin(), rows.end()) && !rows.empty() && rows.back() < rows_, "ascending rows of a cache without beams");
    // Rows move towards the front, in order: none is overwritten before it has moved.
    const auto compact = [&](Tensor& t, int64_t used) {
        if (!t) return;
        const int64_t stride = t.elements() / rows_ * size_of(t.dtype), bytes = used * size_of(t.dtype);
        char* data = static_cast<char*>(t.data);
        for (size_t r = 0; r < rows.size(); ++r)
            if (rows[r] != static_cast<int32_t>(r)) engine.copy(data + static_cast<int64_t>(r) * stride, data + rows[r] * stride, bytes);
        t.shape.sizes[0] = static_cast<int64_t>(rows.size());
    };
    const int64_t width = key_width();
    for (LayerCache& cache : caches_) {
        compact(cache.keys, position_ * width);
        compact(cache.values, position_ * width);
        compact(cache.memory, source_length_ * 2 * width);
    }
    compact(memory_segments_, source_length_);
    compact(segments_, max_length_);
    rows_ = static_cast<int64_t>(rows.size());
}

std::vector<double> continuation_nll(const Transformer& model, Pass& pass, const Batch& prompts, const Batch& targets) {
    Arena::Scope scope(pass.context.arena);
    DecoderCache cache(model, pass, prompts, targets.targets_per_row, targets.decoder_length);
    std::vector<uint8_t> routed;
    for (const int32_t segment : targets.decoder_segments) routed.push_back(segment != 0);
    const auto tokens = static_cast<int64_t>(routed.size());
    const Tensor hidden = cache.feed(pass, pass.context.upload(targets.decoder_ids, {tokens}), pass.context.upload(routed, {tokens}));
    return model.target_nll(pass, hidden, pass.context.upload(targets.decoder_targets, {hidden.rows()}));
}

}  // namespace flanmoe

#include "model/stack.hpp"

#include "model/gradient_sync.hpp"
#include "model/token_shards.hpp"
#include "ops/norm.hpp"
#include "ops/report.hpp"

#include <algorithm>
#include <cmath>
#include <optional>

namespace flanmoe {

namespace {

size_t declare_norm(ParameterStore& store, const ModelConfig& config, const std::string& name) {
    Parameter p;
    p.name = name;
    p.shape = {config.d_model};
    p.init = Init::ones;
    p.kind = ParameterKind::norm;
    p.full_precision = true;
    return store.declare({p});
}

size_t declare_bias_table(ParameterStore& store, const ModelConfig& config, const std::string& prefix) {
    Parameter p;
    p.name = prefix + ".relative_attention_bias.weight";
    p.shape = {config.buckets, config.heads};
    p.split = Split::columns;
    p.deviation = std::sqrt(config.init_scale * 2.0 / static_cast<double>(config.buckets + config.heads));  // T5X: fan average
    p.kind = ParameterKind::attention;
    p.full_precision = true;
    return store.declare({p});
}

// Dropout of the sum that forms h before sub-layer s: of the embedding for the first, else of the previous sub-layer's output.
Dropout delta_dropout(const Pass& pass, const Stack& stack, size_t s, const Sequence& sequence, const TokenShards& shards) {
    const int64_t d = pass.config.d_model, first = (sequence.first_token() + shards.first()) * d;
    if (s == 0) return pass.dropout(pass.config.dropout, stack.first_layer, Purpose::embedding_dropout, first, sequence.length, d);
    const SubLayer& previous = stack.sublayers[s - 1];
    return pass.dropout(pass.config.dropout, previous.layer, previous.output_dropout, first, sequence.length, d);
}

Dropout final_dropout(const Pass& pass, const Stack& stack, const Sequence& sequence, const TokenShards& shards) {
    const int64_t d = pass.config.d_model;
    const int64_t broadcast = stack.decoder ? d : 0;  // T5X broadcasts everywhere but after the encoder's final norm
    return pass.dropout(pass.config.dropout, stack.first_layer, Purpose::stack_dropout, (sequence.first_token() + shards.first()) * d, sequence.length, broadcast);
}

Tensor forward(Pass& pass, const SubLayer& sublayer, const Sequence& sequence, const Tensor& memory, const Sequence* memory_sequence, SubLayerSaved& saved, const Tensor& into) {
    if (const auto* attention = std::get_if<AttentionLayer>(&sublayer.body)) {
        auto part = pass.context.part("attention forward", sublayer.layer);
        return attention_forward(pass, *attention, saved.y, sequence, memory, memory_sequence, saved.attention, into);
    }
    if (const auto* feed_forward = std::get_if<FeedForward>(&sublayer.body)) {
        auto part = pass.context.part("feed-forward forward", sublayer.layer);
        return feed_forward_forward(pass, *feed_forward, saved.y, sequence, saved.feed_forward, into);
    }
    auto part = pass.context.part("experts forward", sublayer.layer);
    return moe_forward(pass, std::get<MoeLayer>(sublayer.body), saved.y, sequence, saved.moe, into);
}

// Recompute::full keeps of a sub-layer its input, and of a sparse one the sums for the report; all else is freed with the scope that this opens.
void keep_input_only(Pass& pass, const SubLayer& sublayer, SubLayerSaved& kept, std::optional<Arena::Scope>& scope) {
    Context& context = pass.context;
    if (std::holds_alternative<MoeLayer>(sublayer.body)) {
        ops::RouteArgs& route = kept.moe.route;
        route.statistics = context.allocate(DType::f64, {ops::route_sums});
        for (Tensor* sums : {&route.load, &route.demand}) *sums = context.allocate(DType::f64, {pass.config.experts});
    }
    scope.emplace(context.arena);
}

void forget_all_but_input(SubLayerSaved& kept) {
    SubLayerSaved input;
    input.h = kept.h;
    ops::RouteArgs &route = input.moe.route, &filled = kept.moe.route;
    route.statistics = filled.statistics, route.load = filled.load, route.demand = filled.demand;
    kept = input;
}

// The type of what a sub-layer gives.
DType type_of_output(const Pass& pass, const SubLayer& sublayer) { return std::holds_alternative<MoeLayer>(sublayer.body) ? pass.forward_type() : pass.accumulate(); }

// norm's y of all tokens, from this rank's: memory for what the next sub-layer, or the backward, reads.
template <class Norm>
Tensor normed(Pass& pass, const TokenShards& shards, Norm&& norm) {
    const int64_t d = pass.config.d_model;
    const Tensor whole = pass.cheap(Reused::normed, pass.forward_type(), {shards.padded(), d});
    Arena::Scope scope(pass.context.arena);
    const Tensor own = shards.divided() ? pass.context.allocate(pass.forward_type(), {shards.rows(), d}) : whole;
    norm(own);
    return shards.gather(own, whole);
}

// What the forward pass did not keep of a sub-layer.
void compute_again(Pass& pass, const SubLayer& sublayer, const Sequence& sequence, const TokenShards& shards, const StackSaved& saved, SubLayerSaved& kept) {
    Context& context = pass.context;
    const bool full = pass.recompute == Recompute::full;
    auto part = context.part("recomputation", sublayer.layer);
    if (full) kept.rstd = context.allocate(pass.accumulate(), {kept.h.rows()}), kept.moe = {};
    kept.y = normed(pass, shards, [&](const Tensor& y) {
        ops::residual_norm(context, {.residual = kept.h, .gain = pass.master(sublayer.norm), .epsilon = pass.config.norm_epsilon, .y = y, .rstd = kept.rstd});
    });
    if (const auto* attention = std::get_if<AttentionLayer>(&sublayer.body)) {
        if (full) attention_inner(pass, *attention, kept.y, sequence, saved.memory, saved.memory_sequence, kept.attention);
    } else if (const auto* feed_forward = std::get_if<FeedForward>(&sublayer.body)) {
        full ? feed_forward_inner(pass, *feed_forward, kept.y, sequence, kept.feed_forward) : feed_forward_activation(pass, *feed_forward, sequence, kept.feed_forward);
    } else if (full) {
        moe_inner(pass, std::get<MoeLayer>(sublayer.body), kept.y, sequence, kept.moe);
    } else {
        moe_recompute(pass, std::get<MoeLayer>(sublayer.body), kept.y, sequence, kept.moe);
    }
}

Tensor backward(Pass& pass, const SubLayer& sublayer, const Sequence& sequence, const Tensor& d_delta, const Tensor& memory, const Tensor& d_memory,
                const SubLayerSaved& saved) {
    if (const auto* attention = std::get_if<AttentionLayer>(&sublayer.body)) {
        auto part = pass.context.part("attention backward", sublayer.layer);
        return attention_backward(pass, *attention, saved.y, d_delta, memory, d_memory, saved.attention);
    }
    if (const auto* feed_forward = std::get_if<FeedForward>(&sublayer.body)) {
        auto part = pass.context.part("feed-forward backward", sublayer.layer);
        return feed_forward_backward(pass, *feed_forward, saved.y, sequence, d_delta, saved.feed_forward);
    }
    auto part = pass.context.part("experts backward", sublayer.layer);
    return moe_backward(pass, std::get<MoeLayer>(sublayer.body), sequence, d_delta, saved.moe);
}

}  // namespace

Stack declare_stack(ParameterStore& store, const ModelConfig& config, bool decoder) {
    const std::string prefix = decoder ? "decoder" : "encoder";
    const bool one_width = config.encoder_d_ff.empty() && config.decoder_d_ff.empty();
    const bool t5_names = config.experts == 0 && config.encoder_decoder && !config.bias_per_layer && one_width && !config.flanmoe_layout;
    const std::string dense_name = t5_names ? "DenseReluDense" : "mlp";
    const std::vector<int64_t>& sparse = decoder ? config.decoder_sparse : config.encoder_sparse;
    const int64_t blocks = decoder ? config.decoder_layers : config.encoder_layers;
    Stack stack;
    stack.decoder = decoder;
    stack.first_layer = decoder ? static_cast<int>(config.encoder_layers) : 0;
    size_t bias = 0;
    for (int64_t i = 0; i < blocks; ++i) {
        const int layer = stack.first_layer + static_cast<int>(i);
        const int64_t width = dense_width(config, decoder, i);
        int number = 0;  // of the sub-layer within its block
        const auto add = [&](auto body, const std::string& name, Purpose output_dropout) {
            body.layer = layer;
            if constexpr (std::is_same_v<decltype(body), MoeLayer>) body.shared.layer = layer;
            SubLayer sublayer{declare_norm(store, config, name + ".layer_norm.weight"), static_cast<int>(i), output_dropout, layer, body};
            stack.sublayers.push_back(sublayer);
            ++number;
        };
        const auto name = [&] { return fmt::format("{}.block.{}.layer.{}", prefix, i, number); };

        AttentionLayer self = declare_attention(store, config, name() + ".SelfAttention", false);
        self.has_bias = config.rotary == 0, self.causal = decoder;
        if (self.has_bias && (i == 0 || config.bias_per_layer)) bias = declare_bias_table(store, config, name() + ".SelfAttention");
        self.bias = bias;
        add(self, name(), Purpose::sublayer_dropout);
        if (decoder && config.encoder_decoder) add(declare_attention(store, config, name() + ".EncDecAttention", true), name(), Purpose::cross_sublayer_dropout);
        if (std::find(sparse.begin(), sparse.end(), i) != sparse.end()) {
            add(declare_moe(store, config, name() + ".mlp", decoder), name(), Purpose::ffn_output_dropout);
            if (config.extra_ffn) add(declare_feed_forward(store, config, name() + ".mlp", width), name(), Purpose::extra_ffn_output_dropout);
        } else {
            add(declare_feed_forward(store, config, name() + "." + dense_name, width), name(), Purpose::ffn_output_dropout);
        }
    }
    stack.final_norm = declare_norm(store, config, prefix + ".final_layer_norm.weight");
    return stack;
}

Tensor stack_forward(Pass& pass, const Stack& stack, const Tensor& embedded, const Sequence& sequence, const Tensor& memory, const Sequence* memory_sequence, StackSaved& saved) {
    Context& context = pass.context;
    const TokenShards shards(pass, embedded.rows());
    const int64_t n = embedded.rows(), m = shards.rows(), d = pass.config.d_model;
    saved.sublayers.assign(stack.sublayers.size(), {});
    saved.memory = memory, saved.memory_sequence = memory_sequence;
    // What a sub-layer adds becomes the new stream in place, if it has the stream's type.
    const auto stream = [&](const Tensor& added) { return added.dtype == pass.accumulate() ? added : context.allocate(pass.accumulate(), {m, d}); };
    Tensor shares[2];  // of sub-layers' outputs, by type
    for (size_t i = 0; shards.divided() && i < 2; ++i) shares[i] = context.allocate(i ? pass.forward_type() : pass.accumulate(), {n, d});
    Tensor h, delta = shards.own(embedded);
    for (size_t s = 0; s < stack.sublayers.size(); ++s) {
        SubLayerSaved& kept = saved.sublayers[s];
        const SubLayer& sublayer = stack.sublayers[s];
        kept.h = stream(delta);
        const Tensor added = shards.divided() || pass.recompute == Recompute::full ? context.allocate(type_of_output(pass, sublayer), {m, d}) : Tensor();
        std::optional<Arena::Scope> scope;
        if (pass.recompute == Recompute::full) keep_input_only(pass, sublayer, kept, scope);
        kept.rstd = context.allocate(pass.accumulate(), {m});
        {
            auto part = context.part("norm forward", sublayer.layer);
            kept.y = normed(pass, shards, [&](const Tensor& y) {
                ops::residual_norm(context, {h, delta, delta_dropout(pass, stack, s, sequence, shards), pass.master(sublayer.norm), pass.config.norm_epsilon, {}, kept.h, y, kept.rstd});
            });
        }
        h = kept.h;
        const Tensor into = shards.divided() ? shares[type_of_output(pass, sublayer) == pass.accumulate() ? 0 : 1] : added;
        delta = forward(pass, sublayer, sequence, memory, memory_sequence, kept, into);
        if (shards.divided()) delta = shards.sum(delta, added);
        if (pass.after_sublayer) pass.after_sublayer(s, kept);
        if (scope) forget_all_but_input(kept);
    }
    saved.h = stream(delta);
    saved.out = context.allocate(stack.decoder ? pass.type() : pass.forward_type(), {shards.padded(), d});  // the output layer's product is in the compute type
    saved.rstd = context.allocate(pass.accumulate(), {m});
    auto part = context.part("norm forward");
    const Tensor out = shards.divided() ? context.allocate(saved.out.dtype, {m, d}) : saved.out;
    ops::residual_norm(context, {h, delta, delta_dropout(pass, stack, stack.sublayers.size(), sequence, shards), pass.master(stack.final_norm), pass.config.norm_epsilon,
                                 final_dropout(pass, stack, sequence, shards), saved.h, out, saved.rstd});
    return saved.out = shards.gather(out, saved.out);
}

Tensor stack_backward(Pass& pass, const Stack& stack, const Sequence& sequence, const Tensor& memory, const Tensor& d_out, const Tensor& d_memory, const StackSaved& saved) {
    Context& context = pass.context;
    const TokenShards shards(pass, d_out.rows());
    const int64_t m = shards.rows(), d = pass.config.d_model;
    const Tensor dh = context.allocate(pass.accumulate(), {m, d}), d_delta = context.allocate(pass.type(), {m, d});
    const Tensor d_whole = shards.divided() ? context.allocate(pass.type(), {shards.padded(), d}) : d_delta;
    const auto norm_backward = [&](const Tensor& h, const Tensor& rstd, size_t gain, const Tensor& dy, bool has_path, size_t s, const Dropout& out_dropout) {
        auto part = context.part("norm backward");
        Arena::Scope scope(context.arena);
        const Tensor gradient = pass.gradient(gain), share = shards.divided() ? context.zeros(gradient.dtype, {d}) : gradient;
        ops::residual_norm_backward(context, {h, pass.master(gain), rstd, dy, has_path ? dh : Tensor(), delta_dropout(pass, stack, s, sequence, shards), out_dropout, dh, d_delta, share});
        if (shards.divided()) shards.add_gradient(share, gradient);
    };
    norm_backward(saved.h, saved.rstd, stack.final_norm, shards.own(d_out), false, stack.sublayers.size(), final_dropout(pass, stack, sequence, shards));
    for (size_t s = stack.sublayers.size(); s-- > 0;) {
        Arena::Scope scope(context.arena);
        SubLayerSaved kept = saved.sublayers[s];
        if (pass.recompute != Recompute::none) compute_again(pass, stack.sublayers[s], sequence, shards, saved, kept);
        Tensor dy = backward(pass, stack.sublayers[s], sequence, shards.gather(d_delta, d_whole), memory, d_memory, kept);
        if (shards.divided()) dy = shards.sum(dy, context.allocate(dy.dtype, {m, d}));
        norm_backward(kept.h, kept.rstd, stack.sublayers[s].norm, dy, true, s, {});
        if (pass.sync && s > 0) pass.sync->done_from(stack.sublayers[s - 1].norm + 1);  // a sub-layer's norm is its last record
    }
    return shards.gather(d_delta, d_whole);  // of the embedding: h_0 has no other part
}

}  // namespace flanmoe

// Incremental decoding: new positions of every row a call, keys and values of the past in caches.
//
// Rows are sequences being generated: beams of one input are rows that share its encoder output or begin with its prompt. All rows go on by the same number of
// positions: by one in generation, by a whole target where targets are scored that continue the same prompt. Prompts of a decoder-only model are laid so that they end together, with hidden padding before the shorter ones: positions count by
// their differences alone. Expert layers drop nothing and route every row by itself; what teacher forcing would have dropped is not reproduced.
#pragma once

#include "model/transformer.hpp"

#include <span>
#include <vector>

namespace flanmoe {

class DecoderCache {
public:
    /// Runs the encoder over a batch (its decoder side is ignored), or the decoder over the prompts of a decoder-only model (the decoder side, padded on the
    /// right), and prepares caches for `beams` rows per input and `new_tokens` steps. Memory stays in the pass's arena until the caller resets it.
    DecoderCache(const Transformer& model, Pass& pass, const Batch& inputs, int64_t beams, int64_t new_tokens);

    /// What the first step is fed: the start mark, or the last token of each row's prompt.
    const std::vector<int32_t>& first_ids() const { return first_ids_; }

    /// Logits [rows, V] (accumulation type) after feeding ids[row] at the next position; valid until the enclosing arena scope ends.
    Tensor step(Pass& pass, const std::vector<int32_t>& ids);
    /// The decoder's output [rows * n, D] after feeding ids[row * n ..] at the next n positions. Segments as in Batch: padding (0), behind a row's last token, is
    /// not routed; none given: there is none.
    Tensor feed(Pass& pass, const std::vector<int32_t>& ids, const std::vector<int32_t>& segments = {});
    /// Row r continues what row source[r] has decoded so far.
    void reorder(Pass& pass, std::span<const int32_t> source);
    /// Goes on with these rows only (ascending); they become rows 0, 1, ...
    void keep(Pass& pass, std::span<const int32_t> rows);
    int64_t rows() const { return rows_; }
    int64_t position() const { return position_; }

private:
    struct LayerCache {
        Tensor keys, values;      ///< self: [rows, max_length, J]
        Tensor spare_keys, spare_values;  ///< where reorder gathers to; with beams only
        Tensor memory;            ///< cross: [rows, S, 2J]
    };
    void encode(Pass& pass, const Batch& inputs, int64_t beams);
    void read_prompts(Pass& pass, const Batch& inputs, int64_t beams);
    int64_t key_width() const { return key_width_; }
    Tensor self_attention(Pass& pass, const AttentionLayer& layer, const Tensor& x, LayerCache& cache);
    Tensor decode(Pass& pass, Tensor delta, const Sequence& sequence);
    Tensor cross_attention(Pass& pass, const AttentionLayer& layer, const Tensor& x, const LayerCache& cache);
    Tensor attend(Pass& pass, const AttentionLayer& layer, ops::AttentionArgs& args);

    const Transformer& model_;
    int64_t rows_ = 0, max_length_ = 0, position_ = 0, source_length_ = 0;
    int64_t key_width_ = 0;   ///< of this rank's heads
    int64_t shared_ = 0;      ///< first positions, which all beams of an input have in common
    std::vector<int32_t> first_ids_;
    Tensor memory_segments_;  ///< i32 [rows, S]
    Tensor segments_;         ///< i32 [rows, max_length], decoder-only: 0 = padding before a prompt
    Tensor rotary_;           ///< table of max_length positions, if the model has rotary ones
    std::vector<LayerCache> caches_;  ///< one a sub-layer of the decoder
};

/// nll of every target token of a decoder-only model (0 where ignored), where several targets continue one prompt, which is computed once. Prompts as DecoderCache
/// takes them; the decoder side of `targets` has targets_per_row rows a prompt, each beginning with the prompt's last token (continuation_batch() in eval/batching.hpp).
std::vector<double> continuation_nll(const Transformer& model, Pass& pass, const Batch& prompts, const Batch& targets);

}  // namespace flanmoe

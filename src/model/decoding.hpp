// Incremental decoding: new positions of every row a call, keys and values of the past in caches.
//
// Rows are sequences being generated: beams of one input are rows that read its encoder output in common or begin with its prompt. Beams that change places leave
// keys and values where they were written, and a table says which row holds those of each position. All rows go on by the same number of
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

    /// Logits [rows, V] (accumulation type) after feeding ids (i32 [rows]) at the next position; valid until the enclosing arena scope ends.
    Tensor step(Pass& pass, const Tensor& ids);
    /// The decoder's output [rows * n, D] after feeding ids (i32 [rows * n]) at the next n positions; routed (u8 [rows * n]) is 0 for padding, behind a row's last
    /// token.
    Tensor feed(Pass& pass, const Tensor& ids, const Tensor& routed);
    /// Row r continues what row source[r] (i32 [rows], of the same input) has decoded so far. From then on at most ops::few_queries positions are fed at once.
    void reorder(Pass& pass, const Tensor& source);
    /// Goes on with these rows only (ascending), of a cache without beams; they become rows 0, 1, ...
    void keep(Pass& pass, std::span<const int32_t> rows);
    int64_t rows() const { return rows_; }
    int64_t position() const { return position_; }

private:
    struct LayerCache {
        Tensor keys, values;  ///< self: [rows, max_length, J]
        Tensor memory;        ///< cross: [inputs, S, 2J]
    };
    void encode(Pass& pass, const Batch& inputs);
    void read_prompts(Pass& pass, const Batch& inputs);
    int64_t key_width() const { return key_width_; }
    Tensor self_attention(Pass& pass, const AttentionLayer& layer, const Tensor& x, LayerCache& cache);
    Tensor decode(Pass& pass, Tensor delta, const Sequence& sequence);
    Tensor cross_attention(Pass& pass, const AttentionLayer& layer, const Tensor& x, const LayerCache& cache);
    Tensor attend(Pass& pass, const AttentionLayer& layer, ops::AttentionArgs& args);

    const Transformer& model_;
    int64_t beams_, rows_, max_length_, source_length_, position_ = 0;
    int64_t key_width_ = 0;   ///< of this rank's heads
    int64_t shared_ = 0;      ///< positions that prompts fill before the first step
    std::vector<int32_t> first_ids_;
    Tensor memory_segments_;  ///< i32 [inputs, S]
    Tensor segments_;         ///< i32 [rows, max_length], decoder-only: 0 = padding before a prompt
    Tensor rotary_;           ///< table of max_length positions, if the model has rotary ones
    Tensor all_routed_;       ///< u8 [rows]: 1
    Tensor key_rows_, spare_key_rows_;  ///< i32 [rows, max_length], with beams: the row that holds each position of a sequence
    bool reordered_ = false;            ///< until then every row holds its own
    std::vector<LayerCache> caches_;  ///< one a sub-layer of the decoder
};

/// nll of every target token of a decoder-only model (0 where ignored), where several targets continue one prompt, which is computed once. Prompts as DecoderCache
/// takes them; the decoder side of `targets` has targets_per_row rows a prompt, each beginning with the prompt's last token (continuation_batch() in eval/batching.hpp).
std::vector<double> continuation_nll(const Transformer& model, Pass& pass, const Batch& prompts, const Batch& targets);

}  // namespace flanmoe

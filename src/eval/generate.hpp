// Text generation: greedy, sampling (temperature, top-k, top-p) and beam search, batched, over the key/value cache.
//
// Beam search is that of transformers: every step ranks the 2 x beams best continuations of a row's running beams; one that ends is finished only if it is
// among the first `beams` of them, otherwise discarded; the best `beams` others run on. Score = sum of log-probabilities / (generated tokens, end mark
// included) ^ length_penalty. A row stops when `beams` sequences are finished and no running one can still beat the worst of them at its present length
// (or, with early_stopping, at once). At max_new_tokens running beams count as finished.
#pragma once

#include "model/transformer.hpp"

#include <cstdint>
#include <vector>

namespace flanmoe {

struct GenerationSettings {
    int64_t max_new_tokens = 64;
    int64_t beams = 1;
    double length_penalty = 1.0;
    bool early_stopping = false;
    double temperature = 0;  ///< 0 = greedy (or beams); else sampling
    int64_t top_k = 0;       ///< sampling: only the k most probable; 0 = all
    double top_p = 1.0;      ///< sampling: the smallest set of most probable tokens that holds so much mass
    uint64_t seed = 0;       ///< sampling: every row draws from a stream of its own
    std::vector<int64_t> numbers;  ///< sampling: each row's among all that are generated with this seed, which name its stream; empty = 0, 1, ...
    bool scores = true;      ///< false: greedy results carry no score, which saves the log-sum over the vocabulary
    int64_t valid_ids = 0;   ///< ids from here on are never produced (rows of the embedding table without a piece); 0 = all may be
};

struct Generated {
    std::vector<int32_t> ids;  ///< end mark included, if it came
    double score = 0;          ///< sum of log-probabilities; beams: divided by the length term
    bool ended = false;        ///< false: cut at max_new_tokens
};

/// One result a row of `inputs` (see input_batch(): the encoder side of a batch, or the prompts of a decoder-only model, which the results leave out); for beams > 1 the best finished sequence. A row's result does not depend on the others.
/// Every rank of the model's mesh calls it with the same inputs and gets all results: rows are dealt over the replicas (eval/dealing.hpp).
/// Exit::usage for settings that exclude each other, Exit::diverged if the model's outputs are not finite.
std::vector<Generated> generate(Context& context, const Transformer& model, const Batch& inputs, const GenerationSettings& settings);

}  // namespace flanmoe

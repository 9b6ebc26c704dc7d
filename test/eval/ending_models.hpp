// Small random models and inputs for tests of generation, among them models whose rows end at different places.
#pragma once

#include "eval/batching.hpp"
#include "eval/generate.hpp"
#include "model/small_models.hpp"

#include <doctest/doctest.h>

#include <map>
#include <memory>
#include <set>

namespace flanmoe::test {

inline std::unique_ptr<Transformer> make(const ModelConfig& config, DType dtype = DType::f64, uint64_t seed = 3) {
    auto model = std::make_unique<Transformer>(config);
    model->parameters().allocate(dtype, false);
    model->parameters().initialise(seed);
    return model;
}

// With an output matrix of its own; a random model whose output matrix is the embedding mostly repeats one token.
inline ModelConfig untied(ModelConfig config) {
    config.tied = config.scale_outputs = false;
    return config;
}

// Capacity never binds, so that decoding a token at a time routes as teacher forcing does.
inline ModelConfig roomy_switch() {
    ModelConfig c = small_switch();
    c.encoder_routing.dropless = c.decoder_routing.dropless = true;
    return c;
}

// Inputs of uneven length, right-padded.
inline Batch some_inputs(const ModelConfig& config, int64_t rows, uint64_t seed = 5) {
    RandomStream random({seed, 0, 0, Purpose::shuffle});
    std::vector<Tokens> inputs(static_cast<size_t>(rows));
    for (Tokens& input : inputs)
        for (uint64_t i = 0, n = 2 + random.below(9); i < n; ++i) input.push_back(2 + static_cast<int32_t>(random.below(static_cast<uint64_t>(config.vocab_size) - 2)));
    std::vector<const Tokens*> pointers;
    for (const Tokens& t : inputs) pointers.push_back(&t);
    return input_batch(config, pointers);
}

inline std::vector<Tokens> ids_of(const std::vector<Generated>& results) {
    std::vector<Tokens> ids;
    for (const Generated& g : results) ids.push_back(g.ids);
    return ids;
}

inline std::vector<Generated> run(const Transformer& model, const Batch& inputs, const GenerationSettings& settings) {
    Context context;
    return generate(context, model, inputs, settings);
}

// The id that greedy decoding produces first at the most different places, and not in every row; -1 if there is none.
inline int32_t reachable_end(const Transformer& model, const Batch& inputs) {
    const std::vector<Tokens> results = ids_of(run(model, inputs, {.max_new_tokens = 12}));
    std::map<int32_t, std::set<size_t>> places;
    std::map<int32_t, size_t> rows;
    for (const Tokens& ids : results) {
        std::set<int32_t> seen;
        for (size_t t = 0; t < ids.size(); ++t)
            if (seen.insert(ids[t]).second) places[ids[t]].insert(t), ++rows[ids[t]];
    }
    int32_t best = -1;
    for (const auto& [id, where] : places)
        if (where.size() >= 3 && rows[id] < results.size() && (best < 0 || where.size() > places[best].size())) best = id;
    return best;
}

// A seed of random weights whose end mark, set in `config`, comes early in some rows, late in others and not at all in others.
inline uint64_t ending_seed(ModelConfig& config, const Batch& inputs) {
    for (uint64_t seed = 1; seed < 50; ++seed) {
        config.eos_id = config.vocab_size - 1;
        const int32_t end = reachable_end(*make(config, DType::f64, seed), inputs);
        if (end < 0) continue;
        config.eos_id = end;
        return seed;
    }
    FAIL("no seed gives a model whose rows end at different places");
    return 0;
}
inline std::unique_ptr<Transformer> ending_model(ModelConfig config, const Batch& inputs) {
    const uint64_t seed = ending_seed(config, inputs);
    return make(config, DType::f64, seed);
}

}  // namespace flanmoe::test

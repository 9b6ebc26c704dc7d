// What a model's routers do with data: the figures of the FLAN-MoE study, counted over a pass of teacher forcing (dropout and jitter off).
//
// Which capacity applies changes what is dropped, so it is chosen and stated:
//   evaluation  every row is one example and routed by itself; evaluation's factor and second policy: what `flanmoe eval` and generation see
//   training    the config's routing groups, training's factor and second policy; examples packed into full rows if the run packed them: what training saw
//   none        no expert has a limit (expert choice keeps its slots)
// Two models on the same data give the drift between them, token by token.
#pragma once

#include "eval/routing_counts.hpp"
#include "eval/routing_rows.hpp"
#include "model/transformer.hpp"

#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace flanmoe {

enum class TraceCapacity { evaluation, training, none };

struct TraceSettings {
    TraceCapacity capacity = TraceCapacity::evaluation;
    DataConfig data;     ///< lengths, fields, truncation, objective of shards; packing counts for the training capacity alone
    BatchLimits batch;
    int64_t limit = 0;   ///< of each file or folder so many examples or windows, the first ones; 0 = all
    std::function<void(double fraction)> progress;    ///< called now and then if set
    std::function<void(std::string_view line)> dump;  ///< gets one JSON line for each row and stack if set: every token's experts in every layer
};

struct RoutingTrace {
    std::string capacity;  ///< the rule that applied, in words
    std::vector<std::string> tasks;
    std::vector<TokenClass> classes;  ///< of every id
    std::vector<LayerCounts> layers;  ///< encoder first
    std::vector<LayerDrift> drift;    ///< the same layers; empty without another model
    SourceCounts found;
    int64_t rows = 0, examples = 0, encoder_tokens = 0, decoder_tokens = 0;
};

/// Goes through task files or folders of token shards (not both). `other`, if given, is routed on the same rows. Exit::usage for a model without sparse layers,
/// for an `other` with other sparse layers, and for paths of both kinds; errors of reading as in training.
RoutingTrace trace_routing(Context& context, const Transformer& model, const Transformer* other, const Tokenizer& tokenizer, const std::vector<std::string>& paths,
                           const TraceSettings& settings);

}  // namespace flanmoe

// Figures of a routing trace, and the trace as JSON.
//
//   utilization  kept pairs of an expert / slots offered to it, mean over experts (method: "tokens dispatched / capacity"); none where slots have no limit
//   dropped      routable tokens that no expert takes / routable tokens
//   confidence   mean gate of a kept pair;  entropy  mean of -sum p ln p over routable tokens, nats
//   information  of a token's identity (or its task) about the expert of a kept pair, in bits:
//                I = sum p(x, e) log2(p(x, e) / (p(x) p(e))),  its bias in a finite sample about (cells - rows - columns + 1) / (2 N ln 2) (Miller, Madow; of
//                those that occur),  share = max(0, I - bias) / H(expert): 0 = experts are chosen regardless of it, 1 = it decides
//   typical      an expert's tokens in order of their terms p(x, e) log2(..) of that sum: frequent there, and more than elsewhere
#pragma once

#include "eval/routing_trace.hpp"

#include <array>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace flanmoe {

struct Information {
    double bits = 0, bias = 0;
    double entropy = 0;  ///< of the experts, bits
    double share() const;
};
/// Of a table of counts [rows, experts].
Information information(std::span<const int64_t> counts, int64_t experts);

/// A vocabulary entry and how often: seen and dropped, or pairs kept by an expert.
struct TokenCount {
    int32_t id = 0;
    int64_t count = 0, of = 0;  ///< dropped of seen; pairs with this expert of the token's pairs
};
/// The tokens that are dropped most often, by number; ties to the lower id.
std::vector<TokenCount> most_dropped(const std::vector<int64_t>& seen, const std::vector<int64_t>& dropped, size_t most);
/// Typical tokens of an expert: those with positive terms, the largest first.
std::vector<TokenCount> typical_tokens(const LayerCounts& layer, int64_t expert, size_t most);

/// So many of so many.
struct Part {
    int64_t count = 0, of = 0;
    double share() const { return of ? static_cast<double>(count) / static_cast<double>(of) : 0; }
    Part& operator+=(const Part& other) { return count += other.count, of += other.of, *this; }
};
using Parts = std::array<Part, token_class_count>;  ///< by class of token
Part sum(const Parts& parts);
/// Of a layer's tokens those that changed, by class.
Parts changed(const std::array<int64_t, token_class_count>& count, const std::array<int64_t, token_class_count>& of);

struct LayerFigures {
    std::optional<double> utilization;
    std::vector<double> utilization_by_expert;  ///< empty where slots have no limit
    double busiest = 0;                         ///< load of the busiest expert / mean load
    int64_t idle = 0;                           ///< experts that take nothing
    Parts dropped;                              ///< tokens without an expert, by class
    double confidence = 0, entropy = 0;
    std::optional<double> later_dropped;        ///< of choices after the first that were wanted, those without a slot
    Information of_tokens, of_tasks;
};
LayerFigures figures(const LayerCounts& layer, const std::vector<TokenClass>& classes);

/// Everything, with tokens as pieces. `checkpoint` and `other` ("" if none) are named in it.
std::string routing_json(const RoutingTrace& trace, const Tokenizer& tokenizer, const std::string& checkpoint, const std::string& other);

}  // namespace flanmoe

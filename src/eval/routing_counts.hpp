// Counts of what one sparse layer's router did with tokens, and of what two routers did differently: read from the tables that ops::route leaves
// (ops/route.hpp), while the data is gone through, so that memory does not grow with it.
//
// Counted are routable tokens and kept (token, expert) pairs. Per vocabulary entry and expert that is one number of 8 bytes: vocabulary x experts of them a
// layer, against vocabulary-independent experts x 2 d_model d_ff weights, so a few per cent of the model's weights at any size.
#pragma once

#include "eval/token_class.hpp"
#include "ops/route.hpp"

#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace flanmoe {

/// Experts by row of a routing's tables: reads a token's decision.
class RoutingView {
public:
    explicit RoutingView(const ops::RouteArgs& route, const Context& context = Context());  ///< copies what it needs to the host
    int64_t tokens() const { return tokens_; }
    int64_t experts() const { return experts_; }
    bool routable(int64_t token) const { return mask_.empty() || mask_[static_cast<size_t>(token)] != 0; }
    std::span<const double> statistics() const { return statistics_; }  ///< ops::RouteStatistic
    /// Experts that take the token, ascending.
    std::span<const int32_t> kept(int64_t token) const;
    /// Gates of the same.
    std::span<const double> gates(int64_t token) const;
    /// Experts that the token asks for whether they take it or not, ascending (token choice: its k most probable, also those that the second policy leaves out);
    /// with expert choice those that take it.
    std::span<const int32_t> wanted(int64_t token) const;

private:
    int64_t tokens_, experts_;
    std::vector<uint8_t> mask_;
    std::vector<int32_t> begin_, kept_, wanted_;
    std::vector<double> gates_, statistics_;
    int64_t k_;
};

/// Sums of one sparse layer.
struct LayerCounts {
    bool decoder = false;
    int block = 0;
    int64_t experts = 0;
    bool unlimited = false;                        ///< no limit on slots in at least one call: utilization means nothing
    std::vector<double> statistics;                ///< ops::RouteStatistic
    std::vector<int64_t> load;                     ///< [experts] kept pairs
    std::vector<int64_t> seen, dropped;            ///< [vocabulary] tokens; those that no expert takes
    std::vector<int64_t> by_token;                 ///< [vocabulary, experts] kept pairs
    std::vector<int64_t> task_seen, task_dropped;  ///< [tasks]
    std::vector<int64_t> by_task;                  ///< [tasks, experts] kept pairs

    LayerCounts(bool decoder, int block, int64_t experts, int64_t vocabulary, int64_t tasks);
    /// Adds one call. `ids` and `tasks` say what each token is; task -1: of none (padding, where it is routed). Checks the counts against the operation's own
    /// statistics.
    void add(const ops::RouteArgs& route, const RoutingView& view, std::span<const int32_t> ids, std::span<const int32_t> tasks);
};

/// Tokens that two routers treat differently, by class.
struct LayerDrift {
    bool decoder = false;
    int block = 0;
    std::array<int64_t, token_class_count> tokens{};   ///< routable
    std::array<int64_t, token_class_count> wanted{};   ///< of them, those whose wanted experts are not the same set
    std::array<int64_t, token_class_count> kept{};     ///< of them, those whose kept experts are not the same set
    void add(const RoutingView& one, const RoutingView& other, std::span<const int32_t> ids, const std::vector<TokenClass>& classes);
};

}  // namespace flanmoe

#include "eval/routing_counts.hpp"

#include "core/host_tensor.hpp"

#include <algorithm>
#include <cmath>

namespace flanmoe {

namespace {

double element(const Tensor& tensor, int64_t i) {
    return tensor.dtype == DType::f64 ? tensor.as<double>()[i] : static_cast<double>(tensor.as<float>()[i]);
}

}  // namespace

RoutingView::RoutingView(const ops::RouteArgs& route, const Context& context)
    : tokens_(route.logits.rows()), experts_(route.logits.cols()), k_(route.rule.kind == RouterKind::expert_choice ? 0 : route.choices.cols()) {
    if (route.mask) mask_ = context.download<uint8_t>(route.mask);
    statistics_ = context.download<double>(route.statistics), begin_ = context.download<int32_t>(route.token_offsets);
    const std::vector<int32_t> starts = context.download<int32_t>(route.offsets), token_rows = context.download<int32_t>(route.token_rows);
    const std::vector<int32_t> row_token = context.download<int32_t>(route.row_token);
    const HostTensor row_gate = to_host(*context.engine, route.row_gate);
    const int32_t* const offsets = starts.data();
    require(begin_[0] == 0 && begin_.back() == offsets[experts_] && std::is_sorted(begin_.begin(), begin_.end()), "as many rows of tokens as experts have");
    for (int64_t n = 0; n < tokens_; ++n) {
        for (int32_t i = begin_[static_cast<size_t>(n)]; i < begin_[static_cast<size_t>(n) + 1]; ++i) {
            const int32_t row = token_rows[static_cast<size_t>(i)];
            require(row_token[static_cast<size_t>(row)] == n, "rows that know the token they are of");
            kept_.push_back(static_cast<int32_t>(std::upper_bound(offsets, offsets + experts_ + 1, row) - offsets) - 1);
            gates_.push_back(element(row_gate.view(), row));
        }
    }
    if (k_ == 0) return;
    wanted_ = context.download<int32_t>(route.choices);
    for (int64_t n = 0; n < tokens_; ++n) std::sort(wanted_.begin() + n * k_, wanted_.begin() + (n + 1) * k_);
}

std::span<const int32_t> RoutingView::kept(int64_t token) const {
    const auto begin = static_cast<size_t>(begin_[static_cast<size_t>(token)]), end = static_cast<size_t>(begin_[static_cast<size_t>(token) + 1]);
    return {kept_.data() + begin, end - begin};
}

std::span<const double> RoutingView::gates(int64_t token) const {
    const auto begin = static_cast<size_t>(begin_[static_cast<size_t>(token)]), end = static_cast<size_t>(begin_[static_cast<size_t>(token) + 1]);
    return {gates_.data() + begin, end - begin};
}

std::span<const int32_t> RoutingView::wanted(int64_t token) const {
    if (k_ == 0) return kept(token);
    return {wanted_.data() + token * k_, static_cast<size_t>(k_)};
}

LayerCounts::LayerCounts(bool in_decoder, int in_block, int64_t n, int64_t vocabulary, int64_t tasks)
    : decoder(in_decoder), block(in_block), experts(n), statistics(static_cast<size_t>(ops::RouteStatistic::count), 0.0), load(static_cast<size_t>(n)),
      seen(static_cast<size_t>(vocabulary)), dropped(seen.size()), by_token(static_cast<size_t>(vocabulary * n)), task_seen(static_cast<size_t>(tasks)),
      task_dropped(task_seen.size()), by_task(static_cast<size_t>(tasks * n)) {}

void LayerCounts::add(const ops::RouteArgs& route, const RoutingView& view, std::span<const int32_t> ids, std::span<const int32_t> tasks) {
    require(view.tokens() == static_cast<int64_t>(ids.size()) && ids.size() == tasks.size() && view.experts() == experts, "ids and tasks of the tokens that were routed");
    int64_t routable = 0, reached = 0, rows = 0;
    for (int64_t n = 0; n < view.tokens(); ++n) {
        const std::span<const int32_t> kept = view.kept(n);
        rows += static_cast<int64_t>(kept.size());
        if (!view.routable(n)) continue;
        const auto id = static_cast<size_t>(ids[static_cast<size_t>(n)]);
        const int64_t task = tasks[static_cast<size_t>(n)];
        ++routable, reached += !kept.empty();
        ++seen.at(id), dropped[id] += kept.empty();
        if (task >= 0) ++task_seen.at(static_cast<size_t>(task)), task_dropped[static_cast<size_t>(task)] += kept.empty();
        for (const int32_t e : kept) {
            ++load[static_cast<size_t>(e)];
            ++by_token[id * static_cast<size_t>(experts) + static_cast<size_t>(e)];
            if (task >= 0) ++by_task[static_cast<size_t>(task * experts + e)];
        }
    }
    const std::span<const double> sums = view.statistics();
    const auto agrees = [&](ops::RouteStatistic s, int64_t counted) { return std::llround(sums[static_cast<size_t>(s)]) == counted; };
    require(agrees(ops::RouteStatistic::tokens, routable) && agrees(ops::RouteStatistic::reached, reached) && agrees(ops::RouteStatistic::rows, rows),
            "the tables of a routing to agree with its statistics");
    for (size_t s = 0; s < statistics.size(); ++s) statistics[s] += sums[s];
    unlimited |= route.rule.dropless;
}

void LayerDrift::add(const RoutingView& one, const RoutingView& other, std::span<const int32_t> ids, const std::vector<TokenClass>& classes) {
    require(one.tokens() == other.tokens() && one.tokens() == static_cast<int64_t>(ids.size()), "the same tokens in both models");
    const auto same = [](std::span<const int32_t> a, std::span<const int32_t> b) { return std::equal(a.begin(), a.end(), b.begin(), b.end()); };
    for (int64_t n = 0; n < one.tokens(); ++n) {
        if (!one.routable(n) || !other.routable(n)) continue;
        const auto c = static_cast<size_t>(classes.at(static_cast<size_t>(ids[static_cast<size_t>(n)])));
        ++tokens[c];
        wanted[c] += !same(one.wanted(n), other.wanted(n));
        kept[c] += !same(one.kept(n), other.kept(n));
    }
}

}  // namespace flanmoe

#include "eval/routing_report.hpp"

#include "eval/json_text.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace flanmoe {

namespace {

using Json = nlohmann::ordered_json;
using S = ops::RouteStatistic;

constexpr size_t tokens_listed = 50, tokens_per_expert = 20;

double ratio(double part, double whole) { return whole > 0 ? part / whole : 0; }
double as_double(int64_t value) { return static_cast<double>(value); }

std::vector<int64_t> sums_of_columns(std::span<const int64_t> counts, int64_t columns) {
    std::vector<int64_t> sums(static_cast<size_t>(columns));
    for (size_t i = 0; i < counts.size(); ++i) sums[i % sums.size()] += counts[i];
    return sums;
}

// p log2(p / (row share x column share)) of one cell.
double term(int64_t cell, int64_t row, int64_t column, int64_t total) {
    if (cell == 0) return 0;
    return as_double(cell) / as_double(total) * std::log2(as_double(cell) * as_double(total) / (as_double(row) * as_double(column)));
}

void keep_first(std::vector<std::pair<double, TokenCount>>& ranked, size_t most) {
    const auto before = [](const auto& a, const auto& b) { return a.first > b.first || (a.first == b.first && a.second.id < b.second.id); };
    const size_t kept = std::min(most, ranked.size());
    std::partial_sort(ranked.begin(), ranked.begin() + static_cast<std::ptrdiff_t>(kept), ranked.end(), before);
    ranked.resize(kept);
}

std::vector<TokenCount> without_ranks(const std::vector<std::pair<double, TokenCount>>& ranked) {
    std::vector<TokenCount> tokens;
    for (const auto& [rank, token] : ranked) tokens.push_back(token);
    return tokens;
}

}  // namespace

double Information::share() const { return entropy > 0 ? std::max(0.0, bits - bias) / entropy : 0; }

Information information(std::span<const int64_t> counts, int64_t experts) {
    const std::vector<int64_t> columns = sums_of_columns(counts, experts);
    const int64_t total = std::accumulate(columns.begin(), columns.end(), int64_t{0});
    Information result;
    if (total == 0) return result;
    int64_t cells = 0, rows = 0, used = 0;
    for (const int64_t column : columns) {
        used += column > 0;
        if (column > 0) result.entropy -= as_double(column) / as_double(total) * std::log2(as_double(column) / as_double(total));
    }
    for (size_t first = 0; first < counts.size(); first += static_cast<size_t>(experts)) {
        const std::span<const int64_t> row = counts.subspan(first, static_cast<size_t>(experts));
        const int64_t sum = std::accumulate(row.begin(), row.end(), int64_t{0});
        rows += sum > 0;
        for (size_t e = 0; e < row.size(); ++e) {
            cells += row[e] > 0;
            result.bits += term(row[e], sum, columns[e], total);
        }
    }
    result.bias = as_double(cells - rows - used + 1) / (2 * as_double(total) * std::log(2.0));
    return result;
}

std::vector<TokenCount> most_dropped(const std::vector<int64_t>& seen, const std::vector<int64_t>& dropped, size_t most) {
    std::vector<std::pair<double, TokenCount>> ranked;
    for (size_t id = 0; id < seen.size(); ++id)
        if (dropped[id] > 0) ranked.push_back({as_double(dropped[id]), {static_cast<int32_t>(id), dropped[id], seen[id]}});
    keep_first(ranked, most);
    return without_ranks(ranked);
}

std::vector<TokenCount> typical_tokens(const LayerCounts& layer, int64_t expert, size_t most) {
    const auto e = static_cast<size_t>(expert), experts = static_cast<size_t>(layer.experts);
    const int64_t total = std::accumulate(layer.load.begin(), layer.load.end(), int64_t{0});
    std::vector<std::pair<double, TokenCount>> ranked;
    for (size_t id = 0; id < layer.seen.size(); ++id) {
        const int64_t count = layer.by_token[id * experts + e];
        if (count == 0) continue;
        const auto row = layer.by_token.begin() + static_cast<std::ptrdiff_t>(id * experts);
        const int64_t of = std::accumulate(row, row + layer.experts, int64_t{0});
        if (const double rank = term(count, of, layer.load[e], total); rank > 0) ranked.push_back({rank, {static_cast<int32_t>(id), count, of}});
    }
    keep_first(ranked, most);
    return without_ranks(ranked);
}

Part sum(const Parts& parts) { return std::accumulate(parts.begin(), parts.end(), Part{}, [](Part a, const Part& b) { return a += b; }); }

Parts changed(const std::array<int64_t, token_class_count>& count, const std::array<int64_t, token_class_count>& of) {
    Parts parts;
    for (size_t c = 0; c < token_class_count; ++c) parts[c] = {count[c], of[c]};
    return parts;
}

LayerFigures figures(const LayerCounts& layer, const std::vector<TokenClass>& classes) {
    const auto total = [&](S s) { return layer.statistics[static_cast<size_t>(s)]; };
    LayerFigures f;
    for (size_t id = 0; id < layer.seen.size(); ++id) f.dropped[static_cast<size_t>(classes.at(id))] += {layer.dropped[id], layer.seen[id]};
    if (!layer.unlimited && total(S::slots) > 0) {
        f.utilization = total(S::rows) / total(S::slots);
        for (const int64_t load : layer.load) f.utilization_by_expert.push_back(as_double(load) * as_double(layer.experts) / total(S::slots));
    }
    f.busiest = ratio(as_double(*std::max_element(layer.load.begin(), layer.load.end())) * as_double(layer.experts), total(S::rows));
    f.idle = std::count(layer.load.begin(), layer.load.end(), 0);
    f.confidence = ratio(total(S::gate), total(S::rows));
    f.entropy = ratio(total(S::entropy), total(S::tokens));
    if (total(S::later_wanted) > 0) f.later_dropped = total(S::later_dropped) / total(S::later_wanted);
    f.of_tokens = information(layer.by_token, layer.experts);
    f.of_tasks = information(layer.by_task, layer.experts);
    return f;
}

namespace {

const char* stack_name(bool decoder) { return decoder ? "decoder" : "encoder"; }

Json optional(const std::optional<double>& value) { return value ? Json(*value) : Json(nullptr); }

Json information_json(const Information& i) { return {{"bits", i.bits}, {"bias", i.bias}, {"expert_entropy", i.entropy}, {"share", i.share()}}; }

Json parts_json(const Parts& parts, const char* what) {
    const auto part_json = [&](const Part& part) { return Json{{"tokens", part.of}, {what, part.count}, {"share", part.share()}}; };
    Json json = part_json(sum(parts));
    for (size_t c = 0; c < token_class_count; ++c) json["by_class"][token_class_names[c]] = part_json(parts[c]);
    return json;
}

class Writer {
public:
    Writer(const RoutingTrace& trace, const Tokenizer& tokenizer) : trace_(trace), tokenizer_(tokenizer) {}

    Json layer(const LayerCounts& l) const {
        const LayerFigures f = figures(l, trace_.classes);
        Json json;
        json["stack"] = stack_name(l.decoder);
        json["block"] = l.block;
        json["experts"] = l.experts;
        json["utilization"] = optional(f.utilization);
        json["utilization_by_expert"] = f.utilization_by_expert;
        json["load"] = l.load;
        json["busiest_over_mean"] = f.busiest;
        json["idle_experts"] = f.idle;
        json["dropped"] = parts_json(f.dropped, "dropped");
        json["later_choices_dropped_share"] = optional(f.later_dropped);
        json["confidence"] = f.confidence;
        json["router_entropy"] = f.entropy;
        json["balance"] = ratio(l.statistics[static_cast<size_t>(S::balance)], l.statistics[static_cast<size_t>(S::groups)]);
        json["information_of_tokens"] = information_json(f.of_tokens);
        json["information_of_tasks"] = information_json(f.of_tasks);
        json["most_dropped"] = dropped_tokens(most_dropped(l.seen, l.dropped, tokens_listed));
        json["typical_tokens"] = Json::array();
        for (int64_t e = 0; e < l.experts; ++e) json["typical_tokens"].push_back(expert_tokens(typical_tokens(l, e, tokens_per_expert)));
        json["tasks"] = Json::object();
        for (size_t t = 0; t < trace_.tasks.size(); ++t) {
            const auto row = l.by_task.begin() + static_cast<std::ptrdiff_t>(t) * l.experts;
            json["tasks"][trace_.tasks[t]] = {{"tokens", l.task_seen[t]}, {"dropped", l.task_dropped[t]}, {"by_expert", std::vector<int64_t>(row, row + l.experts)}};
        }
        return json;
    }

    Json drift(const LayerDrift& d) const {
        Json json;
        json["stack"] = stack_name(d.decoder);
        json["block"] = d.block;
        json["wanted"] = parts_json(changed(d.wanted, d.tokens), "changed");
        json["kept"] = parts_json(changed(d.kept, d.tokens), "changed");
        return json;
    }

    Json dropped_tokens(const std::vector<TokenCount>& tokens) const {
        Json json = Json::array();
        for (const TokenCount& t : tokens)
            json.push_back({{"token", tokenizer_.piece(t.id)}, {"id", t.id}, {"class", class_name(t.id)}, {"dropped", t.count}, {"tokens", t.of}});
        return json;
    }

private:
    Json expert_tokens(const std::vector<TokenCount>& tokens) const {
        Json json = Json::array();
        for (const TokenCount& t : tokens)
            json.push_back({{"token", tokenizer_.piece(t.id)}, {"id", t.id}, {"class", class_name(t.id)}, {"pairs", t.count}, {"of_its_pairs", ratio(as_double(t.count), as_double(t.of))}});
        return json;
    }
    const char* class_name(int32_t id) const { return token_class_names[static_cast<size_t>(trace_.classes[static_cast<size_t>(id)])]; }

    const RoutingTrace& trace_;
    const Tokenizer& tokenizer_;
};

}  // namespace

std::string routing_json(const RoutingTrace& trace, const Tokenizer& tokenizer, const std::string& checkpoint, const std::string& other) {
    const Writer writer(trace, tokenizer);
    Json json;
    json["checkpoint"] = checkpoint;
    if (!other.empty()) json["compared_with"] = other;
    json["capacity"] = trace.capacity;
    json["rows"] = trace.rows;
    json["examples"] = trace.examples;
    json["encoder_tokens"] = trace.encoder_tokens;
    json["decoder_tokens"] = trace.decoder_tokens;
    json["inputs_cut"] = trace.found.truncated_inputs;
    json["targets_cut"] = trace.found.truncated_targets;
    json["examples_left_out"] = trace.found.dropped;
    json["malformed"] = trace.found.malformed;
    json["layers"] = Json::array();
    for (const LayerCounts& layer : trace.layers) json["layers"].push_back(writer.layer(layer));
    for (const LayerDrift& drift : trace.drift) json["drift"].push_back(writer.drift(drift));
    return json_text(json, 1) + "\n";
}

}  // namespace flanmoe

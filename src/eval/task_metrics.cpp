// See the header.
#include "eval/task_metrics.hpp"

#include "core/error.hpp"
#include "data/strings.hpp"
#include "eval/text_metrics.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <numeric>

namespace flanmoe {

namespace {

double mean(const std::vector<double>& values) { return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size()); }

bool constant(const std::vector<double>& values) { return std::all_of(values.begin(), values.end(), [&](double v) { return v == values[0]; }); }

std::vector<double> ranks_of(const std::vector<double>& values) {
    std::vector<size_t> order(values.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return values[a] < values[b]; });
    std::vector<double> ranks(values.size());
    for (size_t begin = 0, end = 0; begin < order.size(); begin = end) {
        while (end < order.size() && values[order[end]] == values[order[begin]]) ++end;
        for (size_t i = begin; i < end; ++i) ranks[order[i]] = 0.5 * static_cast<double>(begin + end - 1);
    }
    return ranks;
}

}  // namespace

double pearson_correlation(const std::vector<double>& x, const std::vector<double>& y) {
    require(x.size() == y.size(), "pairs of values");
    if (x.size() < 2 || constant(x) || constant(y)) return 0;
    const double mean_x = mean(x), mean_y = mean(y);
    double xy = 0, xx = 0, yy = 0;
    for (size_t i = 0; i < x.size(); ++i) {
        const double dx = x[i] - mean_x, dy = y[i] - mean_y;
        xy += dx * dy, xx += dx * dx, yy += dy * dy;
    }
    const double scale = std::sqrt(xx) * std::sqrt(yy);
    return scale > 0 ? std::clamp(xy / scale, -1.0, 1.0) : 0;
}

double spearman_correlation(const std::vector<double>& x, const std::vector<double>& y) { return pearson_correlation(ranks_of(x), ranks_of(y)); }

std::optional<double> parse_number(std::string_view text) {
    text = trim(text);
    if (text.starts_with('+') && !text.starts_with("+-")) text.remove_prefix(1);
    double value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(value)) return std::nullopt;
    return value;
}

std::optional<NumberScores> score_numbers(const std::vector<Prediction>& predictions) {
    NumberScores scores;
    std::vector<double> wanted, given;
    for (const Prediction& p : predictions) {
        const std::optional<double> target = parse_number((*p.targets)[0]), output = parse_number(*p.output);
        if (!target) return std::nullopt;
        wanted.push_back(*target);
        given.push_back(output.value_or(-1));
        scores.unparsed += !output;
    }
    scores.pearson = pearson_correlation(given, wanted);
    scores.spearman = spearman_correlation(given, wanted);
    return scores;
}

double macro_f1(const std::vector<Prediction>& predictions) {
    struct Counts {
        double both = 0, wanted = 0, given = 0;
    };
    std::map<std::string, Counts> labels;
    for (const Prediction& p : predictions) ++labels[normalized((*p.targets)[0])].wanted;
    for (const Prediction& p : predictions) {
        const auto label = labels.find(normalized(*p.output));
        if (label == labels.end()) continue;
        ++label->second.given;
        label->second.both += label->first == normalized((*p.targets)[0]);
    }
    double sum = 0;
    for (const auto& [label, counts] : labels) sum += 2 * counts.both / (counts.wanted + counts.given);
    return sum / static_cast<double>(labels.size());
}

std::optional<CandidatesF1> candidates_f1(const std::vector<Prediction>& predictions, const std::vector<const std::vector<std::string>*>& options, const std::vector<const std::string*>& groups) {
    require(options.size() == predictions.size() && groups.size() == predictions.size(), "options and a group for every example");
    struct Counts {
        double both = 0, either = 0;  // either: given + wanted
    };
    std::map<std::string, Counts> questions;
    for (size_t i = 0; i < predictions.size(); ++i) {
        if (options[i]->size() != 2 || *options[i] != *options[0] || groups[i]->empty()) return std::nullopt;
        const std::string positive = normalized((*options[i])[0]);
        const bool given = normalized(*predictions[i].output) == positive, wanted = normalized((*predictions[i].targets)[0]) == positive;
        Counts& counts = questions[*groups[i]];
        counts.both += given && wanted, counts.either += given + wanted;
    }
    if (questions.size() == predictions.size()) return std::nullopt;
    Counts all;
    for (const auto& [name, counts] : questions) all.both += counts.both, all.either += counts.either;
    if (all.either == 0) return CandidatesF1{};
    CandidatesF1 found{2 * all.both / all.either, 0};
    for (const auto& [name, counts] : questions) found.variance += std::pow((2 * counts.both - found.f1 * counts.either) / all.either, 2);
    return found;
}

std::optional<Consistency> group_consistency(const std::vector<const std::string*>& groups, const std::vector<double>& right) {
    require(groups.size() == right.size(), "a group for every question");
    struct Group {
        int64_t questions = 0;
        bool right = true;
    };
    std::map<std::string, Group> all;
    for (size_t i = 0; i < groups.size(); ++i) {
        if (groups[i]->empty()) continue;
        Group& group = all[*groups[i]];
        ++group.questions;
        group.right &= right[i] > 0.5;
    }
    Consistency found;
    for (const auto& [name, group] : all)
        if (group.questions > 1) ++found.groups, found.consistent += group.right;
    if (found.groups == 0) return std::nullopt;
    return found;
}

}  // namespace flanmoe

#include "checkpoint/tensor_statistics.hpp"

#include "core/parallel.hpp"

#include <algorithm>
#include <cmath>
#include <exception>
#include <map>

namespace flanmoe {

namespace {

constexpr int64_t piece = int64_t{1} << 16;  // values read at once

// Calls take(first, values, count) for consecutive pieces of a tensor as doubles; false if it holds no numbers.
template <class Take>
bool for_pieces(const SafetensorsFile& file, const TensorEntry& entry, Take&& take) {
    if (!natural_type(entry.type)) return false;
    const int64_t width = bits_of(entry.type) / 8, total = entry.elements();
    std::vector<char> raw(static_cast<size_t>(std::min(piece, total) * width));
    std::vector<double> values(static_cast<size_t>(std::min(piece, total)));
    for (int64_t first = 0; first < total; first += piece) {
        const int64_t count = std::min(piece, total - first);
        file.read_bytes(entry, first * width, raw.data(), count * width);
        require(convert_values(raw.data(), entry.type, values.data(), DType::f64, count), "numbers");
        take(first, values.data(), count);
    }
    return true;
}

Statistics of_piece(const double* values, int64_t count) {
    Statistics s;
    s.count = count;
    double sum = 0;
    for (int64_t i = 0; i < count; ++i) {
        const double v = values[i];
        if (!std::isfinite(v)) {
            ++s.non_finite;
            continue;
        }
        s.zeros += v == 0;
        s.minimum = std::min(s.minimum, v), s.maximum = std::max(s.maximum, v);
        sum += v, s.norm2 += v * v;
    }
    const int64_t finite = count - s.non_finite;
    if (finite == 0) return s;
    s.mean = sum / static_cast<double>(finite);
    for (int64_t i = 0; i < count; ++i)
        if (std::isfinite(values[i])) s.squares += (values[i] - s.mean) * (values[i] - s.mean);
    return s;
}

// "...experts.expert_12.wi.weight" or "...experts.12.w1.weight" -> 12, and the name with {e} in its place; -1 if it is no expert's tensor.
int64_t expert_of(const std::string& name, std::string& pattern) {
    constexpr std::string_view marker = ".experts.", word = "expert_";
    const size_t at = name.find(marker);
    if (at == std::string::npos) return -1;
    const size_t behind = at + marker.size(), begin = name.compare(behind, word.size(), word) == 0 ? behind + word.size() : behind, end = std::min(name.find('.', begin), name.size());
    if (end == begin || end - begin > 9 ||
        !std::all_of(name.begin() + static_cast<int64_t>(begin), name.begin() + static_cast<int64_t>(end),
                     [](char c) { return c >= '0' && c <= '9'; }))
        return -1;
    pattern = name.substr(0, begin) + "{e}" + name.substr(end);
    return std::stoll(name.substr(begin, end - begin));
}

// Inner products of all pairs of equally long tensors, read a piece of all of them at a time.
std::vector<double> gram_matrix(const std::vector<WeightFiles::Found>& tensors) {
    const int64_t n = static_cast<int64_t>(tensors.size()), total = tensors[0].entry->elements();
    std::vector<double> gram(static_cast<size_t>(n * n)), values(static_cast<size_t>(n * piece));
    std::vector<char> raw(static_cast<size_t>(piece * 8));
    for (int64_t first = 0; first < total; first += piece) {
        const int64_t count = std::min(piece, total - first);
        for (int64_t e = 0; e < n; ++e) {
            const auto [file, entry] = tensors[static_cast<size_t>(e)];
            const int64_t width = bits_of(entry->type) / 8;
            file->read_bytes(*entry, first * width, raw.data(), count * width);
            require(convert_values(raw.data(), entry->type, values.data() + e * piece, DType::f64, count), "numbers");
        }
        parallel_for(n, 1, [&](int64_t begin, int64_t end) {
            for (int64_t a = begin; a < end; ++a)
                for (int64_t b = 0; b <= a; ++b) {
                    double sum = 0;
                    for (int64_t i = 0; i < count; ++i)
                        sum += values[static_cast<size_t>(a * piece + i)] * values[static_cast<size_t>(b * piece + i)];
                    gram[static_cast<size_t>(a * n + b)] += sum;
                }
        });
    }
    return gram;
}

ExpertSpread spread_of(const std::string& name, const std::vector<WeightFiles::Found>& experts, const std::vector<int64_t>& numbers) {
    const size_t n = experts.size();
    const std::vector<double> gram = gram_matrix(experts);
    ExpertSpread spread;
    spread.name = name, spread.experts = static_cast<int64_t>(n), spread.least = std::numeric_limits<double>::infinity();
    for (size_t a = 1; a < n; ++a)
        for (size_t b = 0; b < a; ++b) {
            const double left = gram[a * n + a], right = gram[b * n + b], scale = (std::sqrt(left) + std::sqrt(right)) / 2;
            const double distance = scale > 0 ? std::sqrt(std::max(0.0, left + right - 2 * gram[a * n + b])) / scale : 0.0;
            spread.mean += distance, spread.most = std::max(spread.most, distance);
            if (distance < spread.least) spread.least = distance, spread.closest_a = numbers[b], spread.closest_b = numbers[a];
        }
    spread.mean /= static_cast<double>(n * (n - 1) / 2);
    return spread;
}

}  // namespace

double Statistics::deviation() const { return count > non_finite ? std::sqrt(squares / static_cast<double>(count - non_finite)) : 0.0; }
double Statistics::norm() const { return std::sqrt(norm2); }

void Statistics::merge(const Statistics& other) {
    const double mine = static_cast<double>(count - non_finite), theirs = static_cast<double>(other.count - other.non_finite);
    if (theirs > 0) {
        // Chan, Golub and LeVeque: moments of a union.
        const double delta = other.mean - mean, both = mine + theirs;
        squares += other.squares + delta * delta * mine * theirs / both;
        mean += delta * theirs / both;
    }
    count += other.count, zeros += other.zeros, non_finite += other.non_finite, norm2 += other.norm2;
    minimum = std::min(minimum, other.minimum), maximum = std::max(maximum, other.maximum);
}

Statistics statistics(const SafetensorsFile& file, const TensorEntry& entry) {
    Statistics all;
    for_pieces(file, entry, [&](int64_t, const double* values, int64_t count) { all.merge(of_piece(values, count)); });
    return all;
}

std::vector<Statistics> statistics(const std::vector<WeightFiles::Found>& tensors) {
    std::vector<Statistics> results(tensors.size());
    std::exception_ptr problem;  // one that is thrown inside a parallel region must not leave it
#pragma omp parallel for schedule(dynamic, 1)
    for (size_t i = 0; i < tensors.size(); ++i) {
        try {
            results[i] = statistics(*tensors[i].file, *tensors[i].entry);
        } catch (...) {
#pragma omp critical
            problem = std::current_exception();
        }
    }
    if (problem) std::rethrow_exception(problem);
    return results;
}

std::vector<ExpertSpread> expert_spreads(const WeightFiles& weights) {
    std::map<std::string, std::map<int64_t, WeightFiles::Found>> groups;
    std::string pattern;
    for (const SafetensorsFile& file : weights.files())
        for (const TensorEntry& entry : file.entries())
            if (const int64_t expert = expert_of(entry.name, pattern); expert >= 0 && natural_type(entry.type))
                groups[pattern][expert] = {&file, &entry};
    std::vector<ExpertSpread> spreads;
    for (const auto& [name, experts] : groups) {
        std::vector<WeightFiles::Found> tensors;
        std::vector<int64_t> numbers;
        for (const auto& [number, tensor] : experts) {
            if (tensor.entry->shape != experts.begin()->second.entry->shape) break;
            tensors.push_back(tensor), numbers.push_back(number);
        }
        if (tensors.size() == experts.size() && tensors.size() > 1) spreads.push_back(spread_of(name, tensors, numbers));
    }
    return spreads;
}

TensorDifference difference(const WeightFiles::Found& a, const WeightFiles::Found& b) {
    TensorDifference result;
    double squares = 0, reference = 0;
    std::vector<double> other(static_cast<size_t>(std::min(piece, a.entry->elements())));
    std::vector<char> raw(other.size() * 8);
    const int64_t width = bits_of(b.entry->type) / 8;
    if (!natural_type(a.entry->type) || !natural_type(b.entry->type)) {
        result.equal = a.entry->type == b.entry->type && a.file->bytes(*a.entry) == b.file->bytes(*b.entry);
        return result;
    }
    for_pieces(*a.file, *a.entry, [&](int64_t first, const double* values, int64_t count) {
        b.file->read_bytes(*b.entry, first * width, raw.data(), count * width);
        require(convert_values(raw.data(), b.entry->type, other.data(), DType::f64, count), "numbers");
        for (int64_t i = 0; i < count; ++i) {
            const double x = values[i], y = other[static_cast<size_t>(i)];
            if (x == y || (std::isnan(x) && std::isnan(y))) {
                reference += std::isfinite(x) ? x * x : 0;
                continue;
            }
            result.equal = false;
            const double d = std::isfinite(x) && std::isfinite(y) ? std::fabs(x - y) : std::numeric_limits<double>::infinity();
            result.largest = std::max(result.largest, d);
            squares += d * d, reference += std::isfinite(x) ? x * x : 0;
        }
    });
    result.relative = squares == 0 ? 0 : std::sqrt(squares / reference);
    return result;
}

}  // namespace flanmoe

// Choices of generation on the CPU, a row or an input a thread; all but the plain choice in double.
#include "ops/decode.hpp"

#include "core/parallel.hpp"
#include "cpu/vector_math.hpp"
#include "ops/run.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

namespace flanmoe::cpu {

namespace {

// x = log softmax of the first `valid` logits, -infinity behind them; false if they are not finite.
template <class T>
bool log_softmax(const T* logits, int64_t valid, int64_t vocabulary, double* x) {
    std::copy_n(logits, valid, x);
    std::fill(x + valid, x + vocabulary, -std::numeric_limits<double>::infinity());
    const double largest = *std::max_element(x, x + valid);
    double sum = 0;
    for (int64_t v = 0; v < valid; ++v) sum += std::exp(x[v] - largest);
    const double log_sum = largest + std::log(sum);
    for (int64_t v = 0; v < valid; ++v) x[v] -= log_sum;
    return std::isfinite(log_sum);
}

// Draws from the distribution sharpened by temperature and cut by top-k and top-p.
int32_t sample(const double* log_p, const ops::ChooseArgs& args, double draw) {
    const int64_t n = args.valid;
    std::vector<int32_t> order(static_cast<size_t>(n));
    std::iota(order.begin(), order.end(), 0);
    const auto better = [&](int32_t a, int32_t b) { return log_p[a] != log_p[b] ? log_p[a] > log_p[b] : a < b; };
    const int64_t kept = args.top_k > 0 ? std::min(args.top_k, n) : n;
    std::partial_sort(order.begin(), order.begin() + kept, order.end(), better);
    std::vector<double> weight(static_cast<size_t>(kept));
    double total = 0;
    for (int64_t i = 0; i < kept; ++i) total += weight[static_cast<size_t>(i)] = std::exp((log_p[order[static_cast<size_t>(i)]] - log_p[order[0]]) / args.temperature);
    size_t count = 0;
    double mass = 0;
    while (count < weight.size() && (count == 0 || mass < args.top_p * total)) mass += weight[count++];
    double left = draw * mass;
    for (size_t i = 0; i < count; ++i) {
        left -= weight[i];
        if (left < 0) return order[i];
    }
    return order[count - 1];
}

// The most probable of the first `valid` ids, the lowest of equal ones; -1 if no output is finite.
template <class T>
int32_t most_probable(const T* logits, int64_t valid, double* log_probability) {
    T largest = -std::numeric_limits<T>::infinity();
#pragma omp simd reduction(max : largest)
    for (int64_t v = 0; v < valid; ++v) largest = logits[v] > largest ? logits[v] : largest;
    if (!std::isfinite(largest)) return -1;
    if (log_probability) {
        double sum = 0;
        for (int64_t v = 0; v < valid; ++v) sum += std::exp(static_cast<double>(logits[v] - largest));
        *log_probability = -std::log(sum);
    }
    return static_cast<int32_t>(std::find(logits, logits + valid, largest) - logits);
}

template <class T>
void choose_row(const ops::ChooseArgs& args, int64_t r, std::vector<double>& scratch) {
    int32_t& id = args.ids.as<int32_t>()[r];
    double* const log_probability = args.log_probabilities ? args.log_probabilities.as<double>() + r : nullptr;
    const T* const logits = row_of<T>(args.logits, r);
    if (args.temperature == 0) {
        id = most_probable(logits, args.valid, log_probability);
        return;
    }
    scratch.resize(static_cast<size_t>(args.logits.cols()));
    const bool finite = log_softmax(logits, args.valid, args.logits.cols(), scratch.data());
    id = finite ? sample(scratch.data(), args, args.draws.as<double>()[r]) : -1;
    if (finite && log_probability) *log_probability = scratch[static_cast<size_t>(id)];
}

struct Candidate {
    double total;
    int32_t row, id;
};
bool better(const Candidate& a, const Candidate& b) { return a.total != b.total ? a.total > b.total : (a.row != b.row ? a.row < b.row : a.id < b.id); }

// `log_p`: log-probabilities of the input's rows, one after the other.
void candidates_of_input(const ops::BeamArgs& args, int64_t input, const double* log_p) {
    const int64_t vocabulary = args.logits.cols(), wanted = args.totals.cols();
    std::vector<Candidate> best;
    for (int64_t b = 0; b < args.beams; ++b) {
        const double sum = args.sums.as<double>()[input * args.beams + b];
        for (int64_t v = 0; v < vocabulary; ++v) {
            const Candidate c{sum + log_p[b * vocabulary + v], static_cast<int32_t>(b), static_cast<int32_t>(v)};
            const bool full = static_cast<int64_t>(best.size()) == wanted;
            if (full && !better(c, best.back())) continue;
            best.insert(std::upper_bound(best.begin(), best.end(), c, better), c);
            if (full) best.pop_back();
        }
    }
    for (int64_t i = 0; i < wanted; ++i) {
        const Candidate& c = best[static_cast<size_t>(i)];
        args.totals.as<double>()[input * wanted + i] = c.total, args.rows.as<int32_t>()[input * wanted + i] = c.row, args.ids.as<int32_t>()[input * wanted + i] = c.id;
    }
}

template <class T>
void beams(const ops::BeamArgs& args) {
    const int64_t vocabulary = args.logits.cols(), rows = args.logits.rows();
    std::vector<double> log_p(static_cast<size_t>(rows * vocabulary));
    std::vector<uint8_t> finite(static_cast<size_t>(rows));
    parallel_for(rows, 1, [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r) finite[static_cast<size_t>(r)] = log_softmax(row_of<T>(args.logits, r), args.valid, vocabulary, log_p.data() + r * vocabulary);
    });
    parallel_for(args.totals.rows(), 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            const auto first = finite.begin() + i * args.beams;
            if (std::all_of(first, first + args.beams, [](uint8_t f) { return f != 0; })) candidates_of_input(args, i, log_p.data() + i * args.beams * vocabulary);
            else args.ids.as<int32_t>()[i * args.totals.cols()] = -1;
        }
    });
}

}  // namespace

void choose_tokens(Context&, const ops::ChooseArgs& args) {
    parallel_for(args.logits.rows(), args.temperature > 0 ? 1 : 8, [&](int64_t begin, int64_t end) {
        std::vector<double> scratch;
        for (int64_t r = begin; r < end; ++r) args.logits.dtype == DType::f64 ? choose_row<double>(args, r, scratch) : choose_row<float>(args, r, scratch);
    });
}

void beam_candidates(Context&, const ops::BeamArgs& args) { args.logits.dtype == DType::f64 ? beams<double>(args) : beams<float>(args); }

}  // namespace flanmoe::cpu

#include "eval/generate.hpp"

#include "core/host_tensor.hpp"
#include "core/parallel.hpp"
#include "eval/batching.hpp"
#include "model/decoding.hpp"
#include "ops/elementwise.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <numeric>

namespace flanmoe {

namespace {

void require_finite(bool finite) {
    if (!finite) fail(Exit::diverged, "the model's outputs are not finite numbers; its training diverged or the checkpoint is damaged (see inspect --stats)");
}

constexpr double impossible = -std::numeric_limits<double>::infinity();

// Log-probabilities of a step, in double on the host: [rows][vocabulary].
class LogProbabilities {
public:
    LogProbabilities(Context& context, const Tensor& logits, int64_t valid_ids) : vocabulary_(logits.cols()) {
        const HostTensor given = to_host(*context.engine, logits);
        values_.resize(static_cast<size_t>(logits.elements()));
        Context host;
        ops::cast(host, given.view(), Tensor(values_.data(), DType::f64, logits.shape));
        const int64_t valid = valid_ids > 0 ? std::min(valid_ids, vocabulary_) : vocabulary_;
        std::atomic<bool> finite = true;
        parallel_for(logits.rows(), 1, [&](int64_t begin, int64_t end) {
            for (int64_t r = begin; r < end; ++r) {
                double* x = values_.data() + r * vocabulary_;
                std::fill(x + valid, x + vocabulary_, impossible);
                const double largest = *std::max_element(x, x + valid);
                double sum = 0;
                for (int64_t v = 0; v < valid; ++v) sum += std::exp(x[v] - largest);
                const double log_sum = largest + std::log(sum);
                if (!std::isfinite(log_sum)) finite = false;
                for (int64_t v = 0; v < valid; ++v) x[v] -= log_sum;
            }
        });
        require_finite(finite);
    }
    const double* row(int64_t r) const { return values_.data() + r * vocabulary_; }
    int64_t vocabulary() const { return vocabulary_; }

private:
    int64_t vocabulary_;
    std::vector<double> values_;
};

// Draws from the distribution sharpened by temperature and cut by top-k and top-p.
int32_t sample(const double* log_p, int64_t n, const GenerationSettings& settings, double draw) {
    std::vector<int32_t> order(static_cast<size_t>(n));
    std::iota(order.begin(), order.end(), 0);
    const auto better = [&](int32_t a, int32_t b) { return log_p[a] != log_p[b] ? log_p[a] > log_p[b] : a < b; };
    const int64_t kept = settings.top_k > 0 ? std::min(settings.top_k, n) : n;
    std::partial_sort(order.begin(), order.begin() + kept, order.end(), better);
    std::vector<double> weight(static_cast<size_t>(kept));
    double total = 0;
    for (int64_t i = 0; i < kept; ++i) total += weight[static_cast<size_t>(i)] = std::exp((log_p[order[static_cast<size_t>(i)]] - log_p[order[0]]) / settings.temperature);
    size_t count = 0;
    double mass = 0;
    while (count < weight.size() && (count == 0 || mass < settings.top_p * total)) mass += weight[count++];
    double left = draw * mass;
    for (size_t i = 0; i < count; ++i) {
        left -= weight[i];
        if (left < 0) return order[i];
    }
    return order[count - 1];
}

struct Choice {
    int32_t id = 0;
    double log_probability = 0;
};

// The most probable of the first `valid` ids, the lowest of equal ones; false if no output is finite.
template <class T>
bool most_probable(const T* logits, int64_t valid, bool score, Choice& choice) {
    T largest = -std::numeric_limits<T>::infinity();
#pragma omp simd reduction(max : largest)
    for (int64_t v = 0; v < valid; ++v) largest = logits[v] > largest ? logits[v] : largest;
    if (!std::isfinite(largest)) return false;
    choice.id = static_cast<int32_t>(std::find(logits, logits + valid, largest) - logits);
    if (!score) return true;
    double sum = 0;
    for (int64_t v = 0; v < valid; ++v) sum += std::exp(static_cast<double>(logits[v] - largest));
    choice.log_probability = -std::log(sum);
    return true;
}

// The next token of every row.
class Chooser {
public:
    Chooser(Context& context, const GenerationSettings& settings, int64_t vocabulary)
        : context_(context), settings_(settings), valid_(settings.valid_ids > 0 ? std::min(settings.valid_ids, vocabulary) : vocabulary) {}

    /// `inputs[r]` is the input that row r continues, t the position.
    std::vector<Choice> choose(const Tensor& logits, const std::vector<size_t>& inputs, int64_t t) const {
        if (settings_.temperature > 0) return draw(logits, inputs, t);
        const HostTensor values = to_host(*context_.engine, logits);
        return logits.dtype == DType::f64 ? greedy<double>(values.view()) : greedy<float>(values.view());
    }

private:
    template <class T>
    std::vector<Choice> greedy(const Tensor& logits) const {
        std::vector<Choice> choices(static_cast<size_t>(logits.rows()));
        std::atomic<bool> finite = true;
        parallel_for(logits.rows(), 8, [&](int64_t begin, int64_t end) {
            for (int64_t r = begin; r < end; ++r) {
                if (!most_probable(logits.as<T>() + r * logits.ld, valid_, settings_.scores, choices[static_cast<size_t>(r)])) finite = false;
            }
        });
        require_finite(finite);
        return choices;
    }
    std::vector<Choice> draw(const Tensor& logits, const std::vector<size_t>& inputs, int64_t t) const {
        const LogProbabilities p(context_, logits, settings_.valid_ids);
        std::vector<Choice> choices(inputs.size());
        parallel_for(static_cast<int64_t>(inputs.size()), 1, [&](int64_t begin, int64_t end) {
            for (int64_t r = begin; r < end; ++r) {
                const size_t i = static_cast<size_t>(r);
                const RandomKey key{settings_.seed, static_cast<uint32_t>(settings_.first_row + static_cast<int64_t>(inputs[i])), 0, Purpose::sampling};
                const int32_t id = sample(p.row(r), valid_, settings_, RandomStream(key, static_cast<uint64_t>(2 * t)).uniform());
                choices[i] = {id, p.row(r)[id]};
            }
        });
        return choices;
    }

    Context& context_;
    const GenerationSettings& settings_;
    int64_t valid_;
};

std::vector<Generated> generate_single(Context& context, const Transformer& model, const Batch& inputs, const GenerationSettings& settings) {
    Pass pass = evaluation_pass(context, model);
    DecoderCache cache(model, pass, inputs, 1, settings.max_new_tokens);
    const Chooser chooser(context, settings, model.config().vocab_size);
    std::vector<Generated> results(static_cast<size_t>(inputs.rows));
    std::vector<size_t> row_input(results.size());  // which input each row of the cache continues
    std::iota(row_input.begin(), row_input.end(), size_t{0});
    std::vector<int32_t> next = cache.first_ids(), running;
    for (int64_t t = 0; t < settings.max_new_tokens; ++t) {
        Arena::Scope scope(context.arena);
        const std::vector<Choice> choices = chooser.choose(cache.step(pass, next), row_input, t);
        running.clear();
        for (size_t r = 0; r < choices.size(); ++r) {
            Generated& result = results[row_input[r]];
            if (result.ended) continue;
            next[r] = choices[r].id;
            result.ids.push_back(choices[r].id);
            result.score += choices[r].log_probability;
            result.ended = choices[r].id == model.config().eos_id;
            if (!result.ended) running.push_back(static_cast<int32_t>(r));
        }
        if (running.empty()) break;
        if (4 * running.size() > 3 * choices.size()) continue;  // moving the caches costs more than a few rows that have ended
        cache.keep(pass, running);
        for (size_t r = 0; r < running.size(); ++r) {
            row_input[r] = row_input[static_cast<size_t>(running[r])];
            next[r] = next[static_cast<size_t>(running[r])];
        }
        row_input.resize(running.size());
        next.resize(running.size());
    }
    return results;
}

struct Beam {
    std::vector<int32_t> ids;
    double sum = 0;
};

// The beams of one input.
class BeamRow {
public:
    BeamRow(const GenerationSettings& settings, int64_t eos) : settings_(settings), eos_(eos), running_(static_cast<size_t>(settings.beams)) {
        for (size_t b = 1; b < running_.size(); ++b) running_[b].sum = -1e9;  // all begin alike: only the first counts
    }
    bool done() const { return done_; }
    int32_t last(size_t beam) const { return running_[beam].ids.back(); }
    /// Goes on by one token; source[b] = which of this row's beams the new beam b continues.
    void advance(const LogProbabilities& p, int64_t first_row, std::vector<int32_t>& source) {
        const std::vector<Candidate> best = candidates(p, first_row);
        const int64_t length = static_cast<int64_t>(running_[0].ids.size()) + 1;
        const bool at_end = length == settings_.max_new_tokens;
        std::vector<Beam> next;
        source.clear();
        for (size_t i = 0; i < best.size(); ++i) {
            Beam beam = running_[best[i].beam];
            beam.ids.push_back(best[i].id);
            beam.sum = best[i].sum;
            const bool ends = best[i].id == eos_;
            if ((ends || at_end) && i < running_.size()) finish(beam, length, ends);
            if (!ends && next.size() < running_.size()) {
                next.push_back(std::move(beam));
                source.push_back(static_cast<int32_t>(best[i].beam));
            }
        }
        running_ = std::move(next);
        const bool full = static_cast<int64_t>(finished_.size()) == settings_.beams;
        const double hope = running_[0].sum / std::pow(static_cast<double>(length), settings_.length_penalty);
        done_ = at_end || (full && (settings_.early_stopping || hope <= finished_.back().score));
    }
    Generated result() const { return finished_.front(); }

private:
    struct Candidate {
        double sum;
        size_t beam;
        int32_t id;
    };
    std::vector<Candidate> candidates(const LogProbabilities& p, int64_t first_row) const {
        std::vector<Candidate> all;
        const size_t wanted = 2 * running_.size();
        const auto better = [](const Candidate& a, const Candidate& b) { return a.sum != b.sum ? a.sum > b.sum : (a.beam != b.beam ? a.beam < b.beam : a.id < b.id); };
        for (size_t b = 0; b < running_.size(); ++b) {
            const double* row = p.row(first_row + static_cast<int64_t>(b));
            for (int64_t v = 0; v < p.vocabulary(); ++v) {
                const Candidate c{running_[b].sum + row[v], b, static_cast<int32_t>(v)};
                if (all.size() == wanted && !better(c, all.back())) continue;
                all.insert(std::upper_bound(all.begin(), all.end(), c, better), c);
                if (all.size() > wanted) all.pop_back();
            }
        }
        return all;
    }
    void finish(const Beam& beam, int64_t length, bool ended) {
        const Generated g{beam.ids, beam.sum / std::pow(static_cast<double>(length), settings_.length_penalty), ended};
        finished_.insert(std::upper_bound(finished_.begin(), finished_.end(), g, [](const Generated& a, const Generated& b) { return a.score > b.score; }), g);
        if (static_cast<int64_t>(finished_.size()) > settings_.beams) finished_.pop_back();
    }

    const GenerationSettings& settings_;
    int64_t eos_;
    std::vector<Beam> running_;         // best first
    std::vector<Generated> finished_;   // best first, at most `beams`
    bool done_ = false;
};

std::vector<Generated> generate_beams(Context& context, const Transformer& model, const Batch& inputs, const GenerationSettings& settings) {
    Pass pass = evaluation_pass(context, model);
    const int64_t beams = settings.beams;
    DecoderCache cache(model, pass, inputs, beams, settings.max_new_tokens);
    std::vector<BeamRow> rows(static_cast<size_t>(inputs.rows), BeamRow(settings, model.config().eos_id));
    std::vector<int32_t> next = cache.first_ids(), source(next.size()), row_source;
    for (;;) {
        Arena::Scope scope(context.arena);
        const LogProbabilities p(context, cache.step(pass, next), settings.valid_ids);
        std::iota(source.begin(), source.end(), 0);
        bool any = false;
        for (int64_t r = 0; r < inputs.rows; ++r) {
            BeamRow& row = rows[static_cast<size_t>(r)];
            if (row.done()) continue;
            row.advance(p, r * beams, row_source);
            any |= !row.done();
            for (int64_t b = 0; b < beams; ++b) {
                const size_t at = static_cast<size_t>(r * beams + b);
                next[at] = row.last(static_cast<size_t>(b));
                source[at] = static_cast<int32_t>(r * beams) + row_source[static_cast<size_t>(b)];
            }
        }
        if (!any) break;
        cache.reorder(pass, source);
    }
    std::vector<Generated> results;
    for (const BeamRow& row : rows) results.push_back(row.result());
    return results;
}

}  // namespace

std::vector<Generated> generate(Context& context, const Transformer& model, const Batch& inputs, const GenerationSettings& settings) {
    if (settings.max_new_tokens < 1 || settings.beams < 1) fail(Exit::usage, "generation needs at least one new token and one beam; raise max_new_tokens or beams");
    if (settings.beams > 1 && settings.temperature > 0) fail(Exit::usage, "beam search and sampling exclude each other; set beams to 1 or temperature to 0");
    Arena::Scope scope(context.arena);
    return settings.beams > 1 ? generate_beams(context, model, inputs, settings) : generate_single(context, model, inputs, settings);
}

}  // namespace flanmoe

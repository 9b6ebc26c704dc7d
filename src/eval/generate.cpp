#include "eval/generate.hpp"

#include "comm/agreement.hpp"
#include "eval/batching.hpp"
#include "eval/dealing.hpp"
#include "model/decoding.hpp"
#include "ops/decode.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

namespace flanmoe {

namespace {

void require_finite(bool finite) {
    if (!finite) fail(Exit::diverged, "the model's outputs are not finite numbers; its training diverged or the checkpoint is damaged (see inspect --stats)");
}

int64_t valid_ids(const GenerationSettings& settings, const Tensor& logits) { return settings.valid_ids > 0 ? std::min(settings.valid_ids, logits.cols()) : logits.cols(); }

struct Choice {
    int32_t id = 0;
    double log_probability = 0;
};

// The next token of every row. `numbers[input]` is an input's number in sampling, `inputs[r]` the input that row r continues, t the position.
std::vector<Choice> choose(Context& context, const GenerationSettings& settings, const Tensor& logits, const std::vector<int64_t>& numbers, const std::vector<size_t>& inputs, int64_t t) {
    const int64_t rows = logits.rows();
    ops::ChooseArgs args{.logits = logits, .valid = valid_ids(settings, logits), .temperature = settings.temperature, .top_k = settings.top_k, .top_p = settings.top_p};
    std::vector<double> draws;
    for (const size_t input : inputs) {
        const RandomKey key{settings.seed, static_cast<uint32_t>(numbers[input]), 0, Purpose::sampling};
        draws.push_back(RandomStream(key, static_cast<uint64_t>(2 * t)).uniform());
    }
    if (settings.temperature > 0) args.draws = context.upload(draws, {rows});
    const bool scores = settings.temperature > 0 || settings.scores;
    args.ids = context.allocate(DType::i32, {rows});
    if (scores) args.log_probabilities = context.allocate(DType::f64, {rows});
    ops::choose_tokens(context, args);
    const std::vector<int32_t> ids = context.download<int32_t>(args.ids);
    const std::vector<double> log_probabilities = scores ? context.download<double>(args.log_probabilities) : std::vector<double>(ids.size());
    std::vector<Choice> choices;
    for (size_t r = 0; r < ids.size(); ++r) {
        require_finite(ids[r] >= 0);
        choices.push_back({ids[r], log_probabilities[r]});
    }
    return choices;
}

// Adds rows that have ended, of `rows` in all, to those that run (ascending) until there are `count`.
void fill_up(std::vector<int32_t>& running, size_t count, size_t rows) {
    std::vector<bool> taken(rows);
    for (const int32_t r : running) taken[static_cast<size_t>(r)] = true;
    for (size_t r = 0; r < rows && running.size() < count; ++r)
        if (!taken[r]) running.push_back(static_cast<int32_t>(r));
    std::sort(running.begin(), running.end());
}

// Ranks that share experts make as many steps with as many rows as the one that needs most.
std::vector<Generated> generate_single(Context& context, const Transformer& model, const Batch& inputs, const std::vector<int64_t>& numbers, const GenerationSettings& settings) {
    const Mesh& mesh = model.parameters().mesh();
    Pass pass = evaluation_pass(context, model);
    DecoderCache cache(model, pass, inputs, 1, settings.max_new_tokens);
    std::vector<Generated> results(static_cast<size_t>(inputs.rows));
    std::vector<size_t> row_input(results.size());  // which input each row of the cache continues
    std::iota(row_input.begin(), row_input.end(), size_t{0});
    std::vector<int32_t> next = cache.first_ids(), running;
    for (int64_t t = 0; t < settings.max_new_tokens; ++t) {
        Arena::Scope scope(context.arena);
        const std::vector<Choice> choices = choose(context, settings, cache.step(pass, next), numbers, row_input, t);
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
        const auto going_on = static_cast<size_t>(largest_of_expert_ranks(mesh, static_cast<int64_t>(running.size())));
        if (going_on == 0) break;
        if (4 * going_on > 3 * choices.size()) continue;  // moving the caches costs more than a few rows that have ended
        fill_up(running, going_on, choices.size());
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

struct Candidate {
    double sum;
    size_t beam;
    int32_t id;
};

// The best continuations of every input's beams, best first: `count` an input.
std::vector<std::vector<Candidate>> candidates(Context& context, const GenerationSettings& settings, const Tensor& logits, const std::vector<double>& sums, int64_t inputs) {
    const int64_t count = std::min(2 * settings.beams, settings.beams * logits.cols());
    ops::BeamArgs args{.logits = logits, .beams = settings.beams, .valid = valid_ids(settings, logits), .sums = context.upload(sums, {logits.rows()})};
    args.totals = context.allocate(DType::f64, {inputs, count});
    args.rows = context.allocate(DType::i32, {inputs, count}), args.ids = context.allocate(DType::i32, {inputs, count});
    ops::beam_candidates(context, args);
    const std::vector<double> totals = context.download<double>(args.totals);
    const std::vector<int32_t> rows = context.download<int32_t>(args.rows), ids = context.download<int32_t>(args.ids);
    std::vector<std::vector<Candidate>> all(static_cast<size_t>(inputs));
    for (size_t i = 0; i < totals.size(); ++i) {
        require_finite(ids[i] >= 0);
        all[i / static_cast<size_t>(count)].push_back({totals[i], static_cast<size_t>(rows[i]), ids[i]});
    }
    return all;
}

// The beams of one input.
class BeamRow {
public:
    BeamRow(const GenerationSettings& settings, int64_t eos) : settings_(settings), eos_(eos), running_(static_cast<size_t>(settings.beams)) {
        for (size_t b = 1; b < running_.size(); ++b) running_[b].sum = -1e9;  // all begin alike: only the first counts
    }
    bool done() const { return done_; }
    double sum(size_t beam) const { return running_[beam].sum; }
    int32_t last(size_t beam) const { return running_[beam].ids.back(); }
    /// Goes on by one token; source[b] = which of this row's beams the new beam b continues.
    void advance(const std::vector<Candidate>& best, std::vector<int32_t>& source) {
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
    std::vector<double> sums(next.size());
    for (;;) {
        Arena::Scope scope(context.arena);
        for (size_t r = 0; r < next.size(); ++r) sums[r] = rows[r / static_cast<size_t>(beams)].sum(r % static_cast<size_t>(beams));
        const auto best = candidates(context, settings, cache.step(pass, next), sums, inputs.rows);
        std::iota(source.begin(), source.end(), 0);
        bool any = false;
        for (int64_t r = 0; r < inputs.rows; ++r) {
            BeamRow& row = rows[static_cast<size_t>(r)];
            if (row.done()) continue;
            row.advance(best[static_cast<size_t>(r)], row_source);
            any |= !row.done();
            for (int64_t b = 0; b < beams; ++b) {
                const size_t at = static_cast<size_t>(r * beams + b);
                next[at] = row.last(static_cast<size_t>(b));
                source[at] = static_cast<int32_t>(r * beams) + row_source[static_cast<size_t>(b)];
            }
        }
        if (largest_of_expert_ranks(model.parameters().mesh(), any) == 0) break;
        cache.reorder(pass, source);
    }
    std::vector<Generated> results;
    for (const BeamRow& row : rows) results.push_back(row.result());
    return results;
}

template <class T>
void put(std::string& bytes, T value) {
    bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
}
template <class T>
T take(const char*& from) {
    T value;
    std::memcpy(&value, from, sizeof value);
    from += sizeof value;
    return value;
}

// The results of all replicas' rows, on every rank, in the order of the rows.
std::vector<Generated> gather(const Mesh& mesh, std::vector<Generated> own, int64_t rows) {
    if (mesh.replicas().size() == 1) return own;
    std::string bytes;
    for (const Generated& g : own) {
        put(bytes, g.score), put(bytes, g.ended), put(bytes, static_cast<int64_t>(g.ids.size()));
        for (const int32_t id : g.ids) put(bytes, id);
    }
    std::vector<Generated> all(static_cast<size_t>(rows));
    const std::vector<std::string> parts = gather_texts(mesh.replicas(), bytes);
    for (size_t replica = 0; replica < parts.size(); ++replica) {
        const char* from = parts[replica].data();
        for (size_t row = replica; row < all.size(); row += parts.size()) {
            all[row].score = take<double>(from), all[row].ended = take<bool>(from), all[row].ids.resize(static_cast<size_t>(take<int64_t>(from)));
            for (int32_t& id : all[row].ids) id = take<int32_t>(from);
        }
    }
    return all;
}

}  // namespace

std::vector<Generated> generate(Context& context, const Transformer& model, const Batch& inputs, const GenerationSettings& settings) {
    if (settings.max_new_tokens < 1 || settings.beams < 1) fail(Exit::usage, "generation needs at least one new token and one beam; raise max_new_tokens or beams");
    if (settings.beams > 1 && settings.temperature > 0) fail(Exit::usage, "beam search and sampling exclude each other; set beams to 1 or temperature to 0");
    require(settings.numbers.empty() || static_cast<int64_t>(settings.numbers.size()) == inputs.rows, "a number for every row");
    const Mesh& mesh = model.parameters().mesh();
    const Hand hand = hand_of(mesh, inputs.rows);
    std::vector<Generated> own;
    if (!hand.rows.empty()) {
        std::vector<int64_t> numbers;
        for (const size_t row : hand.rows) numbers.push_back(settings.numbers.empty() ? static_cast<int64_t>(row) : settings.numbers[row]);
        const Batch batch = chosen_rows(inputs, hand.rows);
        Arena::Scope scope(context.arena);
        own = settings.beams > 1 ? generate_beams(context, model, batch, settings) : generate_single(context, model, batch, numbers, settings);
        own.resize(hand.own);
    }
    return gather(mesh, std::move(own), inputs.rows);
}

}  // namespace flanmoe

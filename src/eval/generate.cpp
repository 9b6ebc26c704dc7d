#include "eval/generate.hpp"

#include "comm/agreement.hpp"
#include "eval/batching.hpp"
#include "eval/dealing.hpp"
#include "model/decoding.hpp"
#include "ops/advance.hpp"
#include "ops/decode.hpp"
#include "ops/milestone.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <numeric>

namespace flanmoe {

namespace {

// What the device says of the rows after every token. The host asks when to stop, and a GPU shall not wait for it: there it looks at a token once the next one is
// queued, which may be one too many.
class Progress {
public:
    Progress(Context& context, int64_t rows, int64_t tokens)
        : engine_(*context.engine), rows_(rows), late_(context.device == Device::cpu ? 0 : 1), status_(context.zeros(DType::i32, {tokens, 2})), told_(engine_, status_.bytes()) {
        if (!told_.data()) fail(Exit::out_of_memory, "out of memory: there is no room for what a GPU tells of {} tokens; generate fewer (max_new_tokens)", tokens);
        for (auto& milestone : milestones_) milestone = make_milestone(context);
    }
    /// The two counts of token t, for the operation that ends it.
    Tensor status(int64_t t) const { return status_.slice_rows(t, 1); }
    /// Once token t is queued: how many rows go on after it; on a GPU after the one before it, at first all.
    int64_t going_on(int64_t t) {
        engine_.download_later(told(t), status(t).data, status(t).bytes());
        milestones_[static_cast<size_t>(t % 2)]->set();
        const int64_t known = t - late_;
        if (known < 0) return rows_;
        milestones_[static_cast<size_t>(known % 2)]->wait();
        require_finite(known);
        return told(known)[0];
    }
    /// Of a token that is done. Exit::diverged.
    void require_finite(int64_t t) const {
        if (told(t)[1] == 0) return;
        engine_.synchronize();
        fail(Exit::diverged, "the model's outputs are not finite numbers; its training diverged or the checkpoint is damaged (see inspect --stats)");
    }

private:
    int32_t* told(int64_t t) const { return static_cast<int32_t*>(told_.data()) + 2 * t; }

    Engine& engine_;
    int64_t rows_, late_;
    Tensor status_;      // i32 [tokens, 2]
    PinnedBuffer told_;  // the same on the host
    std::array<std::unique_ptr<Milestone>, 2> milestones_;
};

int64_t valid_ids(const GenerationSettings& settings, const Tensor& logits) { return settings.valid_ids > 0 ? std::min(settings.valid_ids, logits.cols()) : logits.cols(); }

// The rows of the cache in greedy decoding and sampling.
struct Rows {
    std::vector<size_t> inputs;  // which input each continues
    std::vector<int32_t> next;   // what it is fed
    std::vector<double> sums;
    std::vector<uint8_t> ended;

    explicit Rows(std::vector<int32_t> first) : inputs(first.size()), next(std::move(first)), sums(next.size()), ended(next.size()) { std::iota(inputs.begin(), inputs.end(), size_t{0}); }
    int64_t count() const { return static_cast<int64_t>(inputs.size()); }
    int64_t running() const { return std::count(ended.begin(), ended.end(), uint8_t{0}); }
    /// Leaves so many rows, among them all that run; returns which they were.
    std::vector<int32_t> keep(int64_t wanted) {
        std::vector<int32_t> kept;
        int64_t spare = wanted - running();
        for (size_t r = 0; r < inputs.size(); ++r)
            if (!ended[r] || spare-- > 0) kept.push_back(static_cast<int32_t>(r));
        for (size_t i = 0; i < kept.size(); ++i) {
            const auto from = static_cast<size_t>(kept[i]);
            inputs[i] = inputs[from], next[i] = next[from], sums[i] = sums[from], ended[i] = ended[from];
        }
        inputs.resize(kept.size()), next.resize(kept.size()), sums.resize(kept.size()), ended.resize(kept.size());
        return kept;
    }
};

// Tokens that the same rows take one after the other, on the device. Its memory is of the arena's present scope.
class Round {
public:
    /// From token t on; `numbers[input]` is an input's number in sampling.
    Round(Context& context, const GenerationSettings& settings, const std::vector<int64_t>& numbers, const Rows& rows, int64_t t) : context_(context), settings_(settings) {
        const int64_t count = rows.count(), left = settings.max_new_tokens - t;
        args_.ids = context.allocate(DType::i32, {count});
        args_.next = context.upload(rows.next, {count}), args_.sums = context.upload(rows.sums, {count}), args_.ended = context.upload(rows.ended, {count});
        if (settings.temperature > 0 || settings.scores) args_.log_probabilities = context.allocate(DType::f64, {count});
        tokens_ = context.allocate(DType::i32, {left, count});
        if (settings.temperature == 0) return;
        std::vector<double> draws;
        for (int64_t i = 0; i < left; ++i) {
            for (const size_t input : rows.inputs) {
                const RandomKey key{settings.seed, static_cast<uint32_t>(numbers[input]), 0, Purpose::sampling};
                draws.push_back(RandomStream(key, static_cast<uint64_t>(2 * (t + i))).uniform());
            }
        }
        draws_ = context.upload(draws, {left, count});
    }
    const Tensor& next() const { return args_.next; }
    void take(const Tensor& logits, int64_t end_id, const Tensor& status) {
        ops::choose_tokens(context_, {.logits = logits, .valid = valid_ids(settings_, logits), .temperature = settings_.temperature, .top_k = settings_.top_k, .top_p = settings_.top_p,
                                      .draws = draws_ ? draws_.slice_rows(taken_, 1) : Tensor(), .ids = args_.ids, .log_probabilities = args_.log_probabilities});
        args_.end_id = end_id, args_.tokens = tokens_.slice_rows(taken_++, 1), args_.status = status;
        ops::advance_tokens(context_, args_);
    }
    /// Brings rows and results up to date; waits.
    void collect(Rows& rows, std::vector<Generated>& results) const {
        const std::vector<int32_t> tokens = context_.download<int32_t>(tokens_.slice_rows(0, taken_));
        rows.sums = context_.download<double>(args_.sums), rows.ended = context_.download<uint8_t>(args_.ended);
        for (size_t i = 0; i < tokens.size(); ++i) {
            const size_t r = i % rows.inputs.size();
            if (tokens[i] >= 0) results[rows.inputs[r]].ids.push_back(rows.next[r] = tokens[i]);
        }
        for (size_t r = 0; r < rows.inputs.size(); ++r) results[rows.inputs[r]].score = rows.sums[r], results[rows.inputs[r]].ended = rows.ended[r];
    }

private:
    Context& context_;
    const GenerationSettings& settings_;
    ops::AdvanceTokensArgs args_;
    Tensor tokens_, draws_;  // [tokens, rows]
    int64_t taken_ = 0;
};

// Ranks that share experts make as many steps with as many rows as the one that needs most.
std::vector<Generated> generate_single(Context& context, const Transformer& model, const Batch& inputs, const std::vector<int64_t>& numbers, const GenerationSettings& settings) {
    const Mesh& mesh = model.parameters().mesh();
    Pass pass = evaluation_pass(context, model);
    DecoderCache cache(model, pass, inputs, 1, settings.max_new_tokens);
    Progress progress(context, inputs.rows, settings.max_new_tokens);
    std::vector<Generated> results(static_cast<size_t>(inputs.rows));
    Rows rows(cache.first_ids());
    for (int64_t t = 0, going_on = inputs.rows; t < settings.max_new_tokens && going_on > 0;) {
        Arena::Scope scope(context.arena);
        Round round(context, settings, numbers, rows, t);
        while (t < settings.max_new_tokens && 4 * going_on > 3 * rows.count()) {  // moving the caches costs more than a few rows that have ended
            Arena::Scope step(context.arena);
            round.take(cache.step(pass, round.next()), model.config().eos_id, progress.status(t));
            going_on = largest_of_expert_ranks(mesh, progress.going_on(t++));
        }
        round.collect(rows, results);
        progress.require_finite(t - 1);
        going_on = largest_of_expert_ranks(mesh, rows.running());
        if (t < settings.max_new_tokens && going_on > 0) cache.keep(pass, rows.keep(going_on));
    }
    return results;
}

// The best finished sequence of every input, read backwards from its end. `tokens` and `parents` are of every step.
std::vector<Generated> best_of(Context& context, const ops::AdvanceBeamsArgs& search, const Tensor& tokens, const Tensor& parents) {
    const std::vector<int32_t> all = context.download<int32_t>(tokens), sources = context.download<int32_t>(parents);
    const ops::Finished& f = search.finished;
    const std::vector<int32_t> lengths = context.download<int32_t>(f.lengths), rows = context.download<int32_t>(f.rows), last = context.download<int32_t>(f.ids);
    const std::vector<double> scores = context.download<double>(f.scores);
    std::vector<Generated> results;
    for (size_t best = 0; best < scores.size(); best += static_cast<size_t>(search.beams)) {
        Generated g{.ids = std::vector<int32_t>(static_cast<size_t>(lengths[best])), .score = scores[best], .ended = last[best] == search.end_id};
        g.ids.back() = last[best];
        auto row = static_cast<size_t>(rows[best]);
        for (size_t t = g.ids.size() - 1; t-- > 0;) {
            const size_t at = t * static_cast<size_t>(tokens.cols()) + row;
            g.ids[t] = all[at], row = static_cast<size_t>(sources[at]);
        }
        results.push_back(std::move(g));
    }
    return results;
}

ops::AdvanceBeamsArgs start_search(Context& context, const GenerationSettings& settings, int64_t end_id, int64_t inputs, const std::vector<int32_t>& first_ids) {
    const int64_t beams = settings.beams, rows = inputs * beams;
    std::vector<double> sums(first_ids.size(), -1e9);  // an input's beams begin alike: only the first counts
    for (size_t r = 0; r < sums.size(); r += static_cast<size_t>(beams)) sums[r] = 0;
    ops::AdvanceBeamsArgs search{.beams = beams, .end_id = end_id, .early_stopping = settings.early_stopping, .length_penalty = settings.length_penalty};
    search.totals = context.allocate(DType::f64, {inputs, 2 * beams});
    for (Tensor* t : {&search.rows, &search.ids}) *t = context.allocate(DType::i32, {inputs, 2 * beams});
    search.tokens = context.upload(first_ids, {rows}), search.sums = context.upload(sums, {rows});
    search.finished.scores = context.allocate(DType::f64, {inputs, beams}), search.finished.lengths = context.zeros(DType::i32, {inputs, beams});
    for (Tensor* t : {&search.finished.rows, &search.finished.ids}) *t = context.allocate(DType::i32, {inputs, beams});
    search.done = context.zeros(DType::u8, {inputs});
    return search;
}

std::vector<Generated> generate_beams(Context& context, const Transformer& model, const Batch& inputs, const GenerationSettings& settings) {
    Pass pass = evaluation_pass(context, model);
    const int64_t most = settings.max_new_tokens, rows = inputs.rows * settings.beams;
    DecoderCache cache(model, pass, inputs, settings.beams, most);
    Progress progress(context, inputs.rows, most);
    ops::AdvanceBeamsArgs search = start_search(context, settings, model.config().eos_id, inputs.rows, cache.first_ids());
    const Tensor tokens = context.allocate(DType::i32, {most, rows}), parents = context.allocate(DType::i32, {most, rows});
    int64_t t = 0;
    for (int64_t going_on = 1; t < most && going_on > 0; ++t) {
        Arena::Scope scope(context.arena);
        search.length = t + 1, search.last = t + 1 == most, search.status = progress.status(t);
        search.fed = search.tokens, search.tokens = tokens.slice_rows(t, 1), search.parents = parents.slice_rows(t, 1);
        const Tensor logits = cache.step(pass, search.fed);
        ops::beam_candidates(context, {.logits = logits, .beams = settings.beams, .valid = valid_ids(settings, logits), .sums = search.sums, .totals = search.totals, .rows = search.rows, .ids = search.ids});
        ops::advance_beams(context, search);
        if (!search.last) cache.reorder(pass, search.parents);
        going_on = largest_of_expert_ranks(model.parameters().mesh(), progress.going_on(t));
    }
    context.engine->synchronize();
    progress.require_finite(t - 1);
    return best_of(context, search, tokens.slice_rows(0, t), parents.slice_rows(0, t));
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

// Steps of generation against literal ones that hold whole sequences.
#include "ops/advance.hpp"

#include "core/random.hpp"
#include "ops/check.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>

using namespace flanmoe;
using namespace flanmoe::test;

namespace {

constexpr int32_t end_id = 1;

template <class T>
Tensor vector_of(Context& context, const std::vector<T>& values) {
    const Tensor t = make(context, dtype_of<T>, {static_cast<int64_t>(values.size())});
    std::copy(values.begin(), values.end(), t.as<T>());
    return t;
}
template <class T>
std::vector<T> values_of(const Tensor& t) {
    return {t.as<T>(), t.as<T>() + t.elements()};
}

struct Sequence {
    std::vector<int32_t> ids;
    double sum = 0, score = 0;
};
struct Continuation {
    double total;
    int32_t row, id;
};

/// The rule of ../oracle's README word for word, for one input.
struct LiteralBeams {
    std::vector<Sequence> running, finished;
    bool done = false;

    explicit LiteralBeams(int64_t beams) : running(static_cast<size_t>(beams)) {
        for (size_t b = 1; b < running.size(); ++b) running[b].sum = -1e9;
    }
    void advance(const std::vector<Continuation>& best, double length, double penalty, bool last, bool early_stopping) {
        const size_t beams = running.size();
        std::vector<Sequence> next, all = finished;
        for (size_t i = 0; i < 2 * beams; ++i) {
            Sequence s = running[static_cast<size_t>(best[i].row)];
            s.ids.push_back(best[i].id), s.sum = best[i].total, s.score = s.sum / std::pow(length, penalty);
            if (i < beams && (best[i].id == end_id || last)) all.push_back(s);
            if (best[i].id != end_id && next.size() < beams) next.push_back(s);
        }
        std::stable_sort(all.begin(), all.end(), [](const Sequence& a, const Sequence& b) { return a.score > b.score; });
        if (all.size() > beams) all.resize(beams);
        finished = all, running = next;
        done = last || (finished.size() == beams && (early_stopping || running[0].sum / std::pow(length, penalty) <= finished.back().score));
    }
};

/// What the operation holds of `inputs` inputs, and all that it has said.
struct Search {
    TestContext context;
    int64_t inputs, beams;
    ops::AdvanceBeamsArgs args;
    std::vector<std::vector<int32_t>> tokens, parents;  // by step

    Search(int64_t inputs, int64_t beams, double penalty, bool early_stopping) : inputs(inputs), beams(beams) {
        const auto rows = static_cast<size_t>(inputs * beams);
        std::vector<double> sums(rows);
        for (size_t r = 0; r < rows; ++r) sums[r] = r % static_cast<size_t>(beams) == 0 ? 0 : -1e9;
        args.beams = beams, args.end_id = end_id, args.early_stopping = early_stopping, args.length_penalty = penalty, args.length = 0;
        args.sums = vector_of(context, sums), args.done = vector_of(context, std::vector<uint8_t>(static_cast<size_t>(inputs)));
        ops::Finished& f = args.finished;
        f.scores = make(context, DType::f64, {inputs, beams}), f.lengths = vector_of(context, std::vector<int32_t>(rows));
        f.rows = make(context, DType::i32, {inputs, beams}), f.ids = make(context, DType::i32, {inputs, beams});
        args.tokens = vector_of(context, std::vector<int32_t>(rows, 5));
    }
    /// Takes the continuations of every input; returns the status.
    std::vector<int32_t> advance(const std::vector<std::vector<Continuation>>& best, bool last) {
        const int64_t count = 2 * beams;
        args.totals = make(context, DType::f64, {inputs, count}), args.rows = make(context, DType::i32, {inputs, count}), args.ids = make(context, DType::i32, {inputs, count});
        for (int64_t n = 0; n < inputs; ++n)
            for (int64_t i = 0; i < count; ++i) {
                const Continuation& c = best[static_cast<size_t>(n)][static_cast<size_t>(i)];
                args.totals.as<double>()[n * count + i] = c.total, args.rows.as<int32_t>()[n * count + i] = c.row, args.ids.as<int32_t>()[n * count + i] = c.id;
            }
        ++args.length, args.last = last;
        args.fed = args.tokens;
        args.tokens = make(context, DType::i32, {inputs * beams}), args.parents = make(context, DType::i32, {inputs * beams});
        args.status = vector_of(context, std::vector<int32_t>{0, 0});
        ops::advance_beams(context, args);
        tokens.push_back(values_of<int32_t>(args.tokens)), parents.push_back(values_of<int32_t>(args.parents));
        return values_of<int32_t>(args.status);
    }
    /// The tokens of a row after so many steps, read backwards.
    std::vector<int32_t> sequence(int32_t row, size_t steps) const {
        std::vector<int32_t> ids;
        for (size_t t = steps; t-- > 0; row = parents[t][static_cast<size_t>(row)]) ids.push_back(tokens[t][static_cast<size_t>(row)]);
        std::reverse(ids.begin(), ids.end());
        return ids;
    }
    std::vector<int32_t> finished_sequence(int64_t at) const {
        const ops::Finished& f = args.finished;
        std::vector<int32_t> ids = sequence(f.rows.as<int32_t>()[at], static_cast<size_t>(f.lengths.as<int32_t>()[at] - 1));
        ids.push_back(f.ids.as<int32_t>()[at]);
        return ids;
    }
};

/// The 2 x beams best of drawn continuations in quarters, so that many are equal; ends are as probable as the best.
std::vector<Continuation> continuations(RandomStream& random, const LiteralBeams& literal, int32_t vocabulary) {
    std::vector<Continuation> all;
    for (size_t b = 0; b < literal.running.size(); ++b)
        for (int32_t v = 0; v < vocabulary; ++v)
            all.push_back({literal.running[b].sum - 0.25 * static_cast<double>(random.below(v == end_id ? 4 : 12)), static_cast<int32_t>(b), v});
    std::stable_sort(all.begin(), all.end(), [](const Continuation& a, const Continuation& b) { return a.total > b.total; });
    all.resize(2 * literal.running.size());
    return all;
}

void check_input(const Search& search, const LiteralBeams& literal, int64_t n) {
    const int64_t first = n * search.beams;
    for (int64_t b = 0; b < search.beams; ++b) {
        const Sequence& running = literal.running[static_cast<size_t>(b)];
        CHECK(search.args.sums.as<double>()[first + b] == running.sum);
        if (!literal.done) CHECK(search.sequence(static_cast<int32_t>(first + b), running.ids.size()) == running.ids);
        const bool there = b < static_cast<int64_t>(literal.finished.size());
        REQUIRE((search.args.finished.lengths.as<int32_t>()[first + b] > 0) == there);
        if (!there) continue;
        CHECK(search.args.finished.scores.as<double>()[first + b] == literal.finished[static_cast<size_t>(b)].score);
        CHECK(search.finished_sequence(first + b) == literal.finished[static_cast<size_t>(b)].ids);
    }
    CHECK(search.args.done.as<uint8_t>()[n] == literal.done);
}

}  // namespace

TEST_SUITE("ops/advance") {
    TEST_CASE("beams: finished and running sequences, scores, parents and ends, step by step") {
        const struct {
            int64_t inputs, beams;
            int32_t vocabulary;
            double penalty;
            bool early_stopping;
        } cases[] = {{1, 1, 2, 1, false}, {3, 1, 7, 0, false}, {7, 2, 5, 1, false}, {5, 4, 6, 0, false}, {5, 4, 6, 0.6, true}, {2, 4, 9, 2, false}, {4, 4, 9, -0.5, false},
                    {3, 20, 8, 1, false}, {2, 40, 6, 1, true}, {33, 3, 4, 1, false}};
        for (const auto& c : cases) {
            CAPTURE(c.beams);
            CAPTURE(c.penalty);
            constexpr int steps = 9;
            RandomStream random({7, static_cast<uint32_t>(c.beams), 0, Purpose::shuffle});
            Search search(c.inputs, c.beams, c.penalty, c.early_stopping);
            std::vector<LiteralBeams> literal(static_cast<size_t>(c.inputs), LiteralBeams(c.beams));
            int64_t ended_early = 0;
            for (int step = 0; step < steps; ++step) {
                CAPTURE(step);
                std::vector<std::vector<Continuation>> best;
                for (const LiteralBeams& l : literal) best.push_back(continuations(random, l, c.vocabulary));
                const std::vector<int32_t> status = search.advance(best, step + 1 == steps);
                int32_t going_on = 0;
                for (int64_t n = 0; n < c.inputs; ++n) {
                    LiteralBeams& l = literal[static_cast<size_t>(n)];
                    if (!l.done) l.advance(best[static_cast<size_t>(n)], step + 1, c.penalty, step + 1 == steps, c.early_stopping), ended_early += l.done && step + 1 < steps;
                    check_input(search, l, n);
                    going_on += !l.done;
                }
                CHECK(status == std::vector<int32_t>{going_on, 0});
            }
            if (c.inputs > 4) CHECK((ended_early > 0 && ended_early < 7 * c.inputs));
        }
    }

    TEST_CASE("beams: an input that is done, or whose outputs were not finite, stays as it was, and only the latter says so") {
        Search search(3, 2, 1, false);
        const std::vector<Continuation> best = {{-1, 0, 4}, {-2, 0, 3}, {-3, 1, 4}, {-4, 1, 3}};
        search.args.done.as<uint8_t>()[0] = 1;
        std::vector<Continuation> broken = best;
        broken[0].id = -1;
        CHECK(search.advance({best, broken, best}, false) == std::vector<int32_t>{1, 1});
        CHECK(search.tokens[0] == std::vector<int32_t>{5, 5, 5, 5, 4, 3});
        CHECK(search.parents[0] == std::vector<int32_t>{0, 1, 2, 3, 4, 4});
        CHECK(values_of<double>(search.args.sums) == std::vector<double>{0, -1e9, 0, -1e9, -1, -2});
        CHECK(values_of<uint8_t>(search.args.done) == std::vector<uint8_t>{1, 0, 0});
    }

    TEST_CASE("tokens: rows take theirs until they end, and are counted") {
        for (const int64_t rows : {1, 5, 32, 257, 700})
            for (const bool scores : {false, true}) {
                TestContext context;
                RandomStream random({3, static_cast<uint32_t>(rows), 0, Purpose::shuffle});
                std::vector<int32_t> ids, next, kept, fed, status = {100, 10};
                std::vector<double> log_probabilities, sums, expected;
                std::vector<uint8_t> ended, expected_ends;
                for (int64_t r = 0; r < rows; ++r) {
                    ids.push_back(static_cast<int32_t>(random.below(5)) - (random.below(9) == 0 ? 5 : 0)), next.push_back(9), ended.push_back(random.below(3) == 0);
                    if (ids.back() < 0) ids.back() = -1;
                    log_probabilities.push_back(-random.uniform()), sums.push_back(-random.uniform());
                    const bool takes = !ended.back() && ids.back() >= 0;
                    kept.push_back(takes ? ids.back() : -1), fed.push_back(takes ? ids.back() : 9);
                    expected.push_back(sums.back() + (takes && scores ? log_probabilities.back() : 0)), expected_ends.push_back(ended.back() || (takes && ids.back() == end_id));
                    status[0] += !expected_ends.back() && takes, status[1] += !ended.back() && !takes;
                }
                ops::AdvanceTokensArgs args{.ids = vector_of(context, ids), .end_id = end_id, .next = vector_of(context, next), .sums = vector_of(context, sums),
                                            .ended = vector_of(context, ended), .tokens = make(context, DType::i32, {rows}), .status = vector_of(context, std::vector<int32_t>{100, 10})};
                if (scores) args.log_probabilities = vector_of(context, log_probabilities);
                ops::advance_tokens(context, args);
                CHECK(values_of<int32_t>(args.tokens) == kept);
                CHECK(values_of<int32_t>(args.next) == fed);
                CHECK(values_of<double>(args.sums) == expected);
                CHECK(values_of<uint8_t>(args.ended) == expected_ends);
                CHECK(values_of<int32_t>(args.status) == status);
            }
    }

    TEST_CASE("rows are followed through every change of places") {
        for (const int64_t rows : {1, 6, 40}) {
            constexpr int64_t length = 13;
            TestContext context;
            RandomStream random({3, static_cast<uint32_t>(rows), 0, Purpose::shuffle});
            Tensor from, to = make(context, DType::i32, {rows, length}), spare = make(context, DType::i32, {rows, length});
            std::vector<std::vector<int32_t>> expected(static_cast<size_t>(rows));  // the row in which each written position of a sequence lies
            for (int64_t written = 1; written <= length; written += 3) {
                for (int64_t r = 0; r < rows; ++r)
                    while (static_cast<int64_t>(expected[static_cast<size_t>(r)].size()) < written) expected[static_cast<size_t>(r)].push_back(static_cast<int32_t>(r));
                std::vector<int32_t> source;
                std::vector<std::vector<int32_t>> moved;
                for (int64_t r = 0; r < rows; ++r) source.push_back(static_cast<int32_t>(random.below(static_cast<uint64_t>(rows)))), moved.push_back(expected[static_cast<size_t>(source.back())]);
                expected = moved;
                ops::follow_rows(context, {.source = vector_of(context, source), .from = from, .written = written, .to = to});
                for (int64_t r = 0; r < rows; ++r)
                    for (int64_t p = 0; p < length; ++p)
                        REQUIRE(to.as<int32_t>()[r * length + p] == (p < written ? expected[static_cast<size_t>(r)][static_cast<size_t>(p)] : static_cast<int32_t>(r)));
                from = to;
                std::swap(to, spare);
            }
        }
    }

    TEST_CASE("arguments that do not fit are refused") {
        Search search(2, 2, 1, false);
        const std::vector<Continuation> best = {{-1, 0, 4}, {-2, 0, 3}, {-3, 1, 4}, {-4, 1, 3}};
        search.advance({best, best}, false);
        ops::AdvanceBeamsArgs few = search.args;
        few.totals = make(search.context, DType::f64, {2, 3});
        CHECK_THROWS_AS(ops::advance_beams(search.context, few), Error);
        const Tensor table = make(search.context, DType::i32, {2, 3});
        CHECK_THROWS_AS(ops::follow_rows(search.context, {.source = make(search.context, DType::i32, {2}), .from = table, .written = 1, .to = table}), Error);
        CHECK_THROWS_AS(ops::follow_rows(search.context, {.source = make(search.context, DType::i32, {2}), .written = 4, .to = table}), Error);
    }
}

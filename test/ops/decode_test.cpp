// Choices of generation against literal ones: everything sorted, everything summed in double.
#include "ops/decode.hpp"

#include "ops/check.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

using namespace flanmoe;
using namespace flanmoe::test;

namespace {

/// log softmax of the first `valid` logits of a row.
std::vector<double> log_softmax(const Tensor& logits, int64_t row, int64_t valid) {
    std::vector<double> p;
    for (int64_t v = 0; v < valid; ++v) p.push_back(get(logits, row, v));
    const double largest = *std::max_element(p.begin(), p.end());
    double sum = 0;
    for (const double x : p) sum += std::exp(x - largest);
    for (double& x : p) x -= largest + std::log(sum);
    return p;
}

/// Ids in descending order, equal ones ascending.
std::vector<int32_t> sorted(const std::vector<double>& p) {
    std::vector<int32_t> order(p.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return p[static_cast<size_t>(a)] > p[static_cast<size_t>(b)]; });
    return order;
}

int32_t literal_choice(const std::vector<double>& p, double temperature, int64_t top_k, double top_p, double draw) {
    std::vector<int32_t> order = sorted(p);
    if (temperature == 0) return order[0];
    if (top_k > 0 && top_k < static_cast<int64_t>(order.size())) order.resize(static_cast<size_t>(top_k));
    const auto weight = [&](int32_t id) { return std::exp((p[static_cast<size_t>(id)] - p[static_cast<size_t>(order[0])]) / temperature); };
    std::vector<double> mass{0};  // of the first so many
    for (const int32_t id : order) mass.push_back(mass.back() + weight(id));
    size_t count = 1;
    while (count < order.size() && mass[count] < top_p * mass.back()) ++count;
    for (size_t i = 0; i < count; ++i)
        if (mass[i + 1] > draw * mass[count]) return order[i];
    return order[count - 1];
}

/// Logits of a row; with `few` kinds of values there are many equal ones.
Tensor logits_of(Context& context, DType type, int64_t rows, int64_t vocabulary, bool few, int64_t padding = 0) {
    const Tensor logits = random(context, type, {rows, vocabulary}, 1, 4, padding);
    if (few)
        for (int64_t r = 0; r < rows; ++r)
            for (int64_t v = 0; v < vocabulary; ++v) set(logits, r, v, std::round(get(logits, r, v)) / 2);
    return logits;
}

constexpr DType types[] = {DType::f32, DType::f64};

struct Shape3 {
    int64_t rows, vocabulary, valid, padding;
    bool few;
};
constexpr Shape3 shapes[] = {{1, 1, 1, 0, false}, {3, 17, 17, 1, false}, {5, 127, 100, 0, true}, {4, 1000, 900, 0, false}, {2, 1500, 1500, 3, true}};

}  // namespace

TEST_SUITE("ops/decode") {
    TEST_CASE("tokens: greedy, with temperatures, top-k and top-p") {
        const struct {
            double temperature;
            int64_t top_k;
            double top_p;
        } rules[] = {{0, 0, 1}, {1, 0, 1}, {0.3, 0, 1}, {2, 5, 1}, {1, 0, 0.9}, {1, 0, 1e-6}, {1.5, 40, 0.5}, {1, 1, 1}, {1, 5000, 0.7}};
        for (const Shape3& s : shapes) {
            for (const auto& rule : rules) {
                for (const DType type : types) {
                    CAPTURE(s.vocabulary);
                    CAPTURE(rule.temperature);
                    CAPTURE(rule.top_k);
                    CAPTURE(rule.top_p);
                    TestContext context;
                    const Tensor logits = logits_of(context, type, s.rows, s.vocabulary, s.few, s.padding);
                    ops::ChooseArgs args{.logits = logits, .valid = s.valid, .temperature = rule.temperature, .top_k = rule.top_k, .top_p = rule.top_p};
                    args.draws = make(context, DType::f64, {s.rows}), args.ids = make(context, DType::i32, {s.rows}), args.log_probabilities = make(context, DType::f64, {s.rows});
                    for (const double draw : {0.0, 0.123, 0.5, 0.77, 0.999999}) {
                        for (int64_t r = 0; r < s.rows; ++r) args.draws.as<double>()[r] = std::min(0.9999999, draw + 0.01 * static_cast<double>(r));
                        ops::choose_tokens(context, args);
                        for (int64_t r = 0; r < s.rows; ++r) {
                            const std::vector<double> p = log_softmax(logits, r, s.valid);
                            const int32_t expected = literal_choice(p, rule.temperature, rule.top_k, rule.top_p, args.draws.as<double>()[r]);
                            CHECK(args.ids.as<int32_t>()[r] == expected);
                            CHECK(args.log_probabilities.as<double>()[r] == doctest::Approx(p[static_cast<size_t>(expected)]).epsilon(1e-12));
                        }
                    }
                    CHECK(padding_untouched(logits));
                }
            }
        }
    }

    TEST_CASE("beams: the best continuations, equal ones by row and id, beams that have not begun behind all others") {
        for (const Shape3& s : shapes) {
            for (const int64_t beams : {1, 2, 4}) {
                for (const DType type : types) {
                    CAPTURE(s.vocabulary);
                    CAPTURE(beams);
                    TestContext context;
                    const int64_t rows = s.rows * beams, count = std::min(2 * beams, beams * s.vocabulary);
                    const Tensor logits = logits_of(context, type, rows, s.vocabulary, s.few, s.padding);
                    ops::BeamArgs args{.logits = logits, .beams = beams, .valid = s.valid, .sums = make(context, DType::f64, {rows}), .totals = make(context, DType::f64, {s.rows, count})};
                    args.rows = make(context, DType::i32, {s.rows, count}), args.ids = make(context, DType::i32, {s.rows, count});
                    for (int64_t r = 0; r < rows; ++r) args.sums.as<double>()[r] = r / beams == 0 && r > 0 ? -1e9 : -0.25 * static_cast<double>(r % 3);
                    ops::beam_candidates(context, args);
                    for (int64_t n = 0; n < s.rows; ++n) {
                        std::vector<double> totals;
                        for (int64_t b = 0; b < beams; ++b) {
                            const std::vector<double> p = log_softmax(logits, n * beams + b, s.valid);
                            for (int64_t v = 0; v < s.vocabulary; ++v)
                                totals.push_back(v < s.valid ? args.sums.as<double>()[n * beams + b] + p[static_cast<size_t>(v)] : -std::numeric_limits<double>::infinity());
                        }
                        const std::vector<int32_t> order = sorted(totals);
                        for (int64_t i = 0; i < count; ++i) {
                            CAPTURE(i);
                            const int32_t at = order[static_cast<size_t>(i)];
                            CHECK(args.rows.as<int32_t>()[n * count + i] == at / s.vocabulary);
                            CHECK(args.ids.as<int32_t>()[n * count + i] == at % s.vocabulary);
                            if (std::isfinite(totals[static_cast<size_t>(at)])) CHECK(args.totals.as<double>()[n * count + i] == doctest::Approx(totals[static_cast<size_t>(at)]).epsilon(1e-12));
                        }
                    }
                }
            }
        }
    }

    TEST_CASE("rows that are not finite say so, and only they") {
        TestContext context;
        const double nan = std::numeric_limits<double>::quiet_NaN(), infinity = std::numeric_limits<double>::infinity();
        const Tensor logits = logits_of(context, DType::f32, 4, 40, false);
        set(logits, 1, 7, nan), set(logits, 2, 9, infinity);
        ops::ChooseArgs args{.logits = logits, .valid = 40, .temperature = 1, .draws = make(context, DType::f64, {4}), .ids = make(context, DType::i32, {4})};
        for (int64_t r = 0; r < 4; ++r) args.draws.as<double>()[r] = 0.5;
        ops::choose_tokens(context, args);
        const int32_t* ids = args.ids.as<int32_t>();
        CHECK((ids[0] >= 0 && ids[1] == -1 && ids[2] == -1 && ids[3] >= 0));
        args.temperature = 0;
        ops::choose_tokens(context, args);
        CHECK((ids[0] >= 0 && ids[1] >= 0 && ids[1] != 7 && ids[2] == -1 && ids[3] >= 0));  // a single NaN is no maximum
        ops::BeamArgs beams{.logits = logits, .beams = 2, .valid = 40, .sums = make(context, DType::f64, {4}), .totals = make(context, DType::f64, {2, 4})};
        for (int64_t r = 0; r < 4; ++r) beams.sums.as<double>()[r] = 0;
        beams.rows = make(context, DType::i32, {2, 4}), beams.ids = make(context, DType::i32, {2, 4});
        set(logits, 2, 9, 0.5);
        ops::beam_candidates(context, beams);
        CHECK((beams.ids.as<int32_t>()[0] == -1 && beams.ids.as<int32_t>()[4] >= 0));
    }

    TEST_CASE("arguments that do not fit are refused") {
        TestContext context;
        const Tensor logits = logits_of(context, DType::f32, 4, 8, false), ids = make(context, DType::i32, {4});
        CHECK_THROWS_AS(ops::choose_tokens(context, {.logits = logits, .valid = 9, .ids = ids}), Error);
        CHECK_THROWS_AS(ops::choose_tokens(context, {.logits = logits, .valid = 8, .temperature = 1, .ids = ids}), Error);  // no draws
        CHECK_THROWS_AS(ops::choose_tokens(context, {.logits = random(context, DType::bf16, {4, 8}, 1), .valid = 8, .ids = ids}), Error);
    }
}

// Expert choice: every expert of a group takes its `capacity` most probable tokens, ties to the earlier token.
//
// The least probability that an expert takes is found by bisection on bit patterns: numbers that are not negative are ordered like them. That reads a
// column of probabilities about 30 times as a stream, which is faster than sorting or a heap for the sizes of a routing group.
#include "cpu/route/router.hpp"

#include <algorithm>
#include <bit>
#include <utility>

namespace flanmoe::cpu {

namespace {

template <class T>
using Bits = std::conditional_t<std::is_same_v<T, float>, int32_t, int64_t>;

/// How many of n numbers have at least this bit pattern, which is not negative; negative numbers come before all others.
template <class T>
int64_t at_least(const T* x, int64_t n, Bits<T> bound) {
    Bits<T> matching = 0;
#pragma omp simd reduction(+ : matching)
    for (int64_t i = 0; i < n; ++i) matching += std::bit_cast<Bits<T>>(x[i]) >= bound ? 1 : 0;
    return static_cast<int64_t>(matching);
}

/// Writes first + i for the `count` largest x[i], ties to the lower i, in ascending order; returns how many. The count-th largest is found by bisection.
template <class T>
int64_t take_largest(const T* x, int64_t n, int64_t count, int32_t first, int32_t* out) {
    Bits<T> low = 0, high = std::bit_cast<Bits<T>>(std::max(row_max(x, n), T{0})) + 1;  // at_least(low) >= count >= at_least(high)
    int64_t above = 0;                                                                  // at_least(high)
    while (high - low > 1 && above < count) {
        const Bits<T> middle = low + (high - low) / 2;
        const int64_t matching = at_least(x, n, middle);
        if (matching > count) low = middle;
        else high = middle, above = matching;
    }
    int64_t equal = count - above, written = 0;  // of the tokens just below `high`, which are equal, so many fit
    for (int64_t i = 0; i < n && written < count; ++i) {
        const Bits<T> bits = std::bit_cast<Bits<T>>(x[i]);
        if (bits >= high || (bits == low && equal-- > 0)) out[written++] = first + static_cast<int32_t>(i);
    }
    return written;
}

template <class T>
class ExpertChoice : public Router<T> {
public:
    ExpertChoice(Context& context, RouteWork<T>& work) : Router<T>(work) {
        list_size_ = std::min(ops::capacity_of(w.a.rule, w.group_tokens, w.experts), w.group_tokens);
        lists_ = context.allocate(DType::i32, {w.groups * w.experts, list_size_}).template as<int32_t>();
        columns_ = context.allocate(dtype_of<T>, {w.groups * w.experts, w.group_tokens}).template as<T>();
    }

    void choose(int64_t, int64_t, int32_t*) override {}

    void decide(int64_t group, int64_t routable_tokens, int64_t capacity) override {
        T* column = columns_ + group * w.experts * w.group_tokens;
        const int64_t first = group * w.group_tokens, count = std::min(capacity, routable_tokens);
        constexpr int64_t tile = 16;  // tokens: a cache line of each column at a time
        for (int64_t begin = 0; begin < w.group_tokens; begin += tile) {
            const int64_t end = std::min(begin + tile, w.group_tokens);
            for (int64_t e = 0; e < w.experts; ++e)
                for (int64_t s = begin; s < end; ++s) column[e * w.group_tokens + s] = w.routable(first + s) ? w.probabilities_of(first + s)[e] : T{-1};
        }
        for (int64_t e = 0; e < w.experts; ++e) {
            const int64_t taken = take_largest(column + e * w.group_tokens, w.group_tokens, count, static_cast<int32_t>(first), list_of(group, e));
            w.rows[group * w.experts + e] = w.demand[group * w.experts + e] = static_cast<int32_t>(taken);
        }
    }

    void emit(int64_t group) override {
        const int64_t first = group * w.group_tokens;
        std::vector<int32_t> places(static_cast<size_t>(w.group_tokens), 0);
        const auto place_of = [&](int32_t n) -> int32_t& { return places[static_cast<size_t>(n - first)]; };
        for (int64_t e = 0; e < w.experts; ++e)
            for (int32_t i = 0; i < w.demand[group * w.experts + e]; ++i) ++place_of(list_of(group, e)[i]);
        int32_t *token_offsets = w.a.token_offsets.template as<int32_t>(), place = token_offsets[first];
        double reached = 0, gate_sum = 0;
        for (int64_t s = 0; s < w.group_tokens; ++s) {
            token_offsets[first + s] = place;
            reached += places[static_cast<size_t>(s)] > 0;
            place += std::exchange(places[static_cast<size_t>(s)], place);
        }
        for (int64_t e = 0; e < w.experts; ++e) {
            const int32_t* list = list_of(group, e);
            for (int32_t i = 0; i < w.demand[group * w.experts + e]; ++i) {
                const T gate = w.probabilities_of(list[i])[e];
                w.write_row(w.rows[group * w.experts + e] + i, list[i], e, gate, place_of(list[i])++);
                gate_sum += static_cast<double>(gate);
            }
        }
        RouteSums& sums = w.sums[static_cast<size_t>(group)];
        sums[ops::RouteStatistic::gate] = gate_sum, sums[ops::RouteStatistic::reached] = reached;
    }

private:
    using Router<T>::w;
    int32_t* list_of(int64_t group, int64_t e) const { return lists_ + (group * w.experts + e) * list_size_; }

    int64_t list_size_;
    int32_t* lists_;  // [G, E, list size] tokens that an expert takes; as many as its demand
    T* columns_;      // [G, E, S] probabilities, -1 where a token may not be routed
};

}  // namespace

template <class T>
std::unique_ptr<Router<T>> expert_choice(Context& context, RouteWork<T>& work) {
    return std::make_unique<ExpertChoice<T>>(context, work);
}
template std::unique_ptr<Router<float>> expert_choice(Context&, RouteWork<float>&);
template std::unique_ptr<Router<double>> expert_choice(Context&, RouteWork<double>&);

}  // namespace flanmoe::cpu

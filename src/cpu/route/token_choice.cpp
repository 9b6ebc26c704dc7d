#include "cpu/route/token_choice.hpp"

#include "cpu/philox.hpp"

#include <algorithm>
#include <bit>

namespace flanmoe::cpu {

namespace {

/// Index of the largest of n numbers, the first of equals. Safe with NaN.
template <class T>
int32_t first_largest(const T* x, int64_t n) {
    const T largest = row_max(x, n);
    for (int64_t i = 0; i < n; ++i)
        if (x[i] == largest) return static_cast<int32_t>(i);
    return 0;
}

}  // namespace

template <class T>
TokenChoice<T>::TokenChoice(Context& context, RouteWork<T>& work) : Router<T>(work), k(work.a.rule.k) {
    choices = w.a.choices.template as<int32_t>();
    bias = w.a.bias ? w.a.bias.template as<T>() : nullptr;
    scores = w.a.scores ? w.a.scores.template as<T>() : nullptr;
    gates = context.allocate(dtype_of<T>, {w.tokens, k}).template as<T>();
    states = context.allocate(DType::u8, {w.tokens, k}).template as<uint8_t>();
    order = context.allocate(DType::i32, {w.tokens}).template as<int32_t>();
}

template <class T>
void TokenChoice<T>::pick(int64_t n, int32_t* choice, T* scratch) const {
    const T* p = scores ? scores + n * w.experts : w.probabilities_of(n);
    if (k == 1 && !bias) {
        choice[0] = first_largest(p, w.experts);
        return;
    }
    for (int64_t e = 0; e < w.experts; ++e) scratch[e] = bias ? p[e] + bias[e] : p[e];
    for (int64_t r = 0; r < k; ++r) {
        choice[r] = first_largest(scratch, w.experts);
        scratch[choice[r]] = -INFINITY;
    }
}

template <class T>
void TokenChoice<T>::choose(int64_t first, int64_t last, int32_t* load) {
    std::vector<T> scratch(static_cast<size_t>(w.experts));
    for (int64_t n = first; n < last; ++n) {
        int32_t* choice = choices + n * k;
        if (!w.routable(n)) {
            std::fill_n(choice, k, -1);
            std::fill_n(states + n * k, k, rejected);
            std::fill_n(gates + n * k, k, T{0});
            continue;
        }
        pick(n, choice, scratch.data());
        const T* p = w.probabilities_of(n);
        T sum = 0;
        for (int64_t r = 0; r < k; ++r) sum += p[choice[r]];
        for (int64_t r = 0; r < k; ++r) {
            gates[n * k + r] = w.a.rule.normalize ? p[choice[r]] / sum : p[choice[r]];
            states[n * k + r] = wanted;
            if (r == 0 || w.a.rule.density == Density::any) ++load[choice[r]];
        }
    }
    if (k > 1) apply_second_policy(first, last);
}

/// Rejects choices after the first of tokens [first, last).
template <class T>
void TokenChoice<T>::apply_second_policy(int64_t first, int64_t last) {
    const ops::RouteRule& rule = w.a.rule;
    if (rule.second == SecondPolicy::all) return;
    const int64_t later = k - 1;
    const T threshold = static_cast<T>(rule.second_threshold);
    std::vector<float> drawn;
    if (rule.second == SecondPolicy::random && !w.a.draws) {
        drawn.resize(static_cast<size_t>((last - first) * later));
        fill_uniform(w.a.key, (w.a.first_token + static_cast<uint64_t>(first)) * static_cast<uint64_t>(later), static_cast<int64_t>(drawn.size()), drawn.data());
    }
    const auto draw = [&](int64_t i) { return w.a.draws ? w.a.draws.template as<T>()[i] : static_cast<T>(drawn[static_cast<size_t>(i - first * later)]); };
    for (int64_t i = first * later; i < last * later; ++i) {
        const int64_t at = i / later * k + i % later + 1;
        bool keep = false;
        if (rule.second == SecondPolicy::threshold) keep = gates[at] > threshold;
        if (rule.second == SecondPolicy::random) keep = draw(i) < gates[at] / threshold;
        if (!keep) states[at] = rejected;
    }
}

template <class T>
void TokenChoice<T>::decide(int64_t group, int64_t, int64_t capacity) {
    const int64_t first = group * w.group_tokens, last = first + w.group_tokens;
    int32_t *used = w.rows + group * w.experts, *demand = w.demand + group * w.experts, *queue = order + first, queued = 0;
    for (int64_t n = first; n < last; ++n)
        if (w.routable(n)) queue[queued++] = static_cast<int32_t>(n);
    if (w.a.rule.prioritized) {
        // As bits, which order numbers that are not negative as they are, and NaN too: a comparison of NaN would leave std::sort without an order.
        using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
        const auto largest = [&](int32_t n) { return std::bit_cast<Bits>(w.probabilities_of(n)[choices[n * k]]); };
        std::sort(queue, queue + queued, [&](int32_t x, int32_t y) { return largest(x) != largest(y) ? largest(x) > largest(y) : x < y; });
    }
    int64_t later_wanted = 0, later_dropped = 0;
    for (int64_t r = 0; r < k; ++r) {
        for (int32_t i = 0; i < queued; ++i) {
            const int64_t at = queue[i] * k + r;
            if (states[at] == rejected) continue;
            int32_t& slots = used[choices[at]];
            ++demand[choices[at]];
            const bool free = capacity < 0 || slots < capacity;
            if (free) ++slots, states[at] = kept;
            if (r > 0) ++later_wanted, later_dropped += !free;
        }
    }
    RouteSums& sums = w.sums[static_cast<size_t>(group)];
    sums[ops::RouteStatistic::later_wanted] = static_cast<double>(later_wanted);
    sums[ops::RouteStatistic::later_dropped] = static_cast<double>(later_dropped);
}

template <class T>
void TokenChoice<T>::emit(int64_t group) {
    int32_t *next_row = w.rows + group * w.experts, *token_offsets = w.a.token_offsets.template as<int32_t>();
    int32_t place = token_offsets[group * w.group_tokens];
    double gate_sum = 0, reached = 0;
    std::vector<int64_t> ranks(static_cast<size_t>(k));
    const auto rank = [&](int64_t i) -> int64_t& { return ranks[static_cast<size_t>(i)]; };
    for (int64_t n = group * w.group_tokens; n < (group + 1) * w.group_tokens; ++n) {
        token_offsets[n] = place;
        int64_t count = 0;
        for (int64_t at = n * k; at < (n + 1) * k; ++at) {
            if (states[at] != kept) continue;
            int64_t slot = count++;  // insertion by ascending expert
            for (; slot > 0 && choices[rank(slot - 1)] > choices[at]; --slot) rank(slot) = rank(slot - 1);
            rank(slot) = at;
        }
        for (int64_t i = 0; i < count; ++i) {
            const int64_t at = rank(i);
            w.write_row(next_row[choices[at]]++, n, choices[at], gates[at], place++);
            gate_sum += static_cast<double>(gates[at]);
        }
        reached += count > 0;
    }
    RouteSums& sums = w.sums[static_cast<size_t>(group)];
    sums[ops::RouteStatistic::gate] = gate_sum, sums[ops::RouteStatistic::reached] = reached;
}

template class TokenChoice<float>;
template class TokenChoice<double>;

template <class T>
std::unique_ptr<Router<T>> token_choice(Context& context, RouteWork<T>& work) {
    return std::make_unique<TokenChoice<T>>(context, work);
}
template std::unique_ptr<Router<float>> token_choice(Context&, RouteWork<float>&);
template std::unique_ptr<Router<double>> token_choice(Context&, RouteWork<double>&);

}  // namespace flanmoe::cpu

// Routing on the CPU, in four steps:
//   1. score:   softmax, choices and gates of every token; sums over blocks of tokens (parallel over blocks)
//   2. decide:  who gets a slot (parallel over groups; inside a group the rule is sequential)
//   3. lay out: where the rows of every expert and group start (E x G additions)
//   4. emit:    row tables (parallel over groups)
// Blocks depend on the shape alone and are added in order: the bits do not depend on the number of threads.
#include "ops/route.hpp"

#include "core/parallel.hpp"
#include "cpu/philox.hpp"
#include "cpu/vector_math.hpp"

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

namespace flanmoe::cpu {

namespace {

constexpr int64_t block_tokens = 64;
enum Choice : uint8_t { rejected, wanted, kept };  // rejected by the second policy; wanted but without a slot; kept

/// Sum of exponentials of one token. In a type so wide that the sum is exact unless the terms span many orders of magnitude, so that tokens whose logits are
/// permutations of each other tie exactly.
template <class T>
using Wide = std::conditional_t<std::is_same_v<T, float>, double, long double>;

/// Index of the largest of n numbers that are not negative, the first of equals. Safe with NaN.
template <class T>
int32_t first_largest(const T* x, int64_t n) {
    const T largest = row_max(x, n);
    for (int64_t i = 0; i < n; ++i)
        if (x[i] == largest) return static_cast<int32_t>(i);
    return 0;
}

/// Numbers that are not negative are ordered like their bit patterns; negative ones come before them.
template <class T>
using Bits = std::conditional_t<std::is_same_v<T, float>, int32_t, int64_t>;

/// How many of n numbers have at least this bit pattern, which is not negative.
template <class T>
int64_t at_least(const T* x, int64_t n, Bits<T> bound) {
    Bits<T> matching = 0;
#pragma omp simd reduction(+ : matching)
    for (int64_t i = 0; i < n; ++i) matching += std::bit_cast<Bits<T>>(x[i]) >= bound ? 1 : 0;
    return static_cast<int64_t>(matching);
}

struct BlockSums {
    double tokens = 0, z = 0, entropy = 0;
};

template <class T>
class Router {
public:
    Router(Context& context, const ops::RouteArgs& args) : a(args) {
        tokens = a.logits.rows(), experts = a.logits.cols(), groups = a.groups, group_tokens = tokens / groups;
        by_token = a.rule.kind == RouterKind::token_choice;
        k = by_token ? a.rule.k : 0;
        group_blocks = (group_tokens + block_tokens - 1) / block_tokens;
        mask = a.mask ? a.mask.as<uint8_t>() : nullptr;
        choices = by_token ? a.choices.as<int32_t>() : nullptr;
        offsets = a.offsets.as<int32_t>(), token_offsets = a.token_offsets.as<int32_t>();

        const int64_t blocks = groups * group_blocks;
        block_sums.resize(static_cast<size_t>(blocks)), group_sums.resize(static_cast<size_t>(groups));
        probability_sums = context.zeros(DType::f64, {blocks, experts}).template as<double>();
        chosen = context.zeros(DType::i32, {blocks, experts}).template as<int32_t>();
        starts = context.zeros(DType::i32, {groups, experts}).template as<int32_t>();
        if (by_token) {
            gates = context.allocate(dtype_of<T>, {tokens, k}).template as<T>();
            states = context.allocate(DType::u8, {tokens, k}).template as<uint8_t>();
            order = context.allocate(DType::i32, {tokens}).template as<int32_t>();
        } else {
            capacity_bound = std::min(ops::capacity_of(a.rule, group_tokens, experts), group_tokens);
            taken = context.allocate(DType::i32, {groups * experts, capacity_bound}).template as<int32_t>();
            columns = context.allocate(dtype_of<T>, {groups * experts, group_tokens}).template as<T>();
        }
    }

    void run() {
        parallel_for(groups * group_blocks, 4, [&](int64_t begin, int64_t end) {
            std::vector<T> scratch(static_cast<size_t>(experts));
            for (int64_t b = begin; b < end; ++b) score_block(b, scratch.data());
        });
        const int64_t grain = std::max<int64_t>(1, 1024 / std::max<int64_t>(group_tokens, 1));
        parallel_for(groups, grain, [&](int64_t begin, int64_t end) {
            for (int64_t g = begin; g < end; ++g) decide(g);
        });
        lay_out();
        parallel_for(groups, grain, [&](int64_t begin, int64_t end) {
            for (int64_t g = begin; g < end; ++g) by_token ? emit_choices(g) : emit_taken(g);
        });
        write_statistics();
    }

private:
    using Sums = std::array<double, static_cast<size_t>(ops::RouteStatistic::count)>;
    static double& at(Sums& sums, ops::RouteStatistic s) { return sums[static_cast<size_t>(s)]; }

    bool routable(int64_t n) const { return !mask || mask[n]; }
    T* probabilities_of(int64_t n) const { return row_of<T>(a.probabilities, n); }

    // ---- 1. score

    void score_block(int64_t b, T* scratch) {
        const int64_t group = b / group_blocks, first = group * group_tokens + b % group_blocks * block_tokens;
        const int64_t last = std::min(first + block_tokens, (group + 1) * group_tokens);
        exponentials(first, last);
        for (int64_t n = first; n < last; ++n) {
            if (routable(n)) {
                normalize(n, block_sums[static_cast<size_t>(b)], probability_sums + b * experts);
                if (by_token) choose(n, chosen + b * experts, scratch);
            } else {
                std::fill_n(probabilities_of(n), experts, T{0});
                std::fill_n(choices + n * k, k, -1);
                std::fill_n(states + n * k, k, rejected);
            }
        }
        if (k > 1) apply_second_policy(first, last);
    }

    /// Exponentials of a block's logits less each token's largest, as one run of numbers: few experts fill no vector by themselves.
    void exponentials(int64_t first, int64_t last) {
        for (int64_t n = first; n < last; ++n) {
            const T *__restrict x = row_of<const T>(a.logits, n), largest = row_max(x, experts);
            T* __restrict p = probabilities_of(n);
            for (int64_t e = 0; e < experts; ++e) p[e] = x[e] - largest;
        }
        T* p = probabilities_of(first);
#pragma omp simd
        for (int64_t i = 0; i < (last - first) * experts; ++i) p[i] = fast_exp(p[i]);
    }

    /// From exponentials to probabilities, and their sums over the block.
    void normalize(int64_t n, BlockSums& block, double* __restrict probability_sum) {
        const T* __restrict x = row_of<const T>(a.logits, n);
        T* __restrict p = probabilities_of(n);
        const T largest = row_max(x, experts);
        Wide<T> sum = 0;
        T weighted = 0;
#pragma omp simd reduction(+ : sum, weighted)
        for (int64_t e = 0; e < experts; ++e) {
            sum += p[e];
            weighted += p[e] > 0 ? p[e] * (x[e] - largest) : T{0};
        }
        const T inverse = static_cast<T>(1 / sum);
#pragma omp simd
        for (int64_t e = 0; e < experts; ++e) {
            p[e] *= inverse;
            probability_sum[e] += static_cast<double>(p[e]);
        }
        const double log_sum = std::log(static_cast<double>(sum)), lse = static_cast<double>(largest) + log_sum;
        block.tokens += 1;
        block.z += lse * lse;
        block.entropy += log_sum - static_cast<double>(weighted) * static_cast<double>(inverse);  // -sum p ln p, ln p = x - largest - log_sum
    }

    void choose(int64_t n, int32_t* load, T* scratch) {
        const T* p = probabilities_of(n);
        int32_t* choice = choices + n * k;
        if (k == 1) {
            choice[0] = first_largest(p, experts);
        } else {
            std::copy_n(p, experts, scratch);
            for (int64_t r = 0; r < k; ++r) {
                choice[r] = first_largest(scratch, experts);
                scratch[choice[r]] = T{-1};
            }
        }
        T sum = 0;
        for (int64_t r = 0; r < k; ++r) sum += p[choice[r]];
        for (int64_t r = 0; r < k; ++r) {
            gates[n * k + r] = a.rule.normalize ? p[choice[r]] / sum : p[choice[r]];
            states[n * k + r] = wanted;
            if (r == 0 || a.rule.density == Density::any) ++load[choice[r]];
        }
    }

    /// Rejects choices after the first of tokens [first, last).
    void apply_second_policy(int64_t first, int64_t last) {
        if (a.rule.second == SecondPolicy::all) return;
        const int64_t later = k - 1;
        const T threshold = static_cast<T>(a.rule.second_threshold);
        std::vector<float> drawn;
        if (a.rule.second == SecondPolicy::random && !a.draws) {
            drawn.resize(static_cast<size_t>((last - first) * later));
            fill_uniform(a.key, (a.first_token + static_cast<uint64_t>(first)) * static_cast<uint64_t>(later), static_cast<int64_t>(drawn.size()), drawn.data());
        }
        for (int64_t i = first * later; i < last * later; ++i) {
            const int64_t at = i / later * k + i % later + 1;
            bool keep = false;
            if (a.rule.second == SecondPolicy::threshold) keep = gates[at] > threshold;
            if (a.rule.second == SecondPolicy::random) keep = (a.draws ? a.draws.as<T>()[i] : static_cast<T>(drawn[static_cast<size_t>(i - first * later)])) < gates[at] / threshold;
            if (!keep) states[at] = rejected;
        }
    }

    // ---- 2. decide

    void decide(int64_t g) {
        Sums& sums = group_sums[static_cast<size_t>(g)];
        sums.fill(0);
        BlockSums whole;
        for (int64_t b = g * group_blocks; b < (g + 1) * group_blocks; ++b) {
            const BlockSums& block = block_sums[static_cast<size_t>(b)];
            whole.tokens += block.tokens, whole.z += block.z, whole.entropy += block.entropy;
        }
        if (whole.tokens == 0) return;
        at(sums, ops::RouteStatistic::groups) = 1;
        at(sums, ops::RouteStatistic::tokens) = whole.tokens;
        at(sums, ops::RouteStatistic::z) = whole.z / whole.tokens;
        at(sums, ops::RouteStatistic::entropy) = whole.entropy;
        const int64_t routable_tokens = static_cast<int64_t>(whole.tokens), capacity = ops::capacity_of(a.rule, routable_tokens, experts);
        if (by_token) {
            at(sums, ops::RouteStatistic::balance) = balance(g, whole.tokens);
            claim(g, capacity, sums);
        } else {
            take(g, std::min(capacity, routable_tokens));
        }
        double rows = 0;
        for (int64_t e = 0; e < experts; ++e) rows += starts[g * experts + e];
        at(sums, ops::RouteStatistic::rows) = rows;
        at(sums, ops::RouteStatistic::slots) = capacity < 0 ? rows : static_cast<double>(experts * capacity);
    }

    double balance(int64_t g, double routable_tokens) const {
        double sum = 0;
        for (int64_t e = 0; e < experts; ++e) {
            double probability = 0, load = 0;
            for (int64_t b = g * group_blocks; b < (g + 1) * group_blocks; ++b) probability += probability_sums[b * experts + e], load += chosen[b * experts + e];
            sum += load * probability;
        }
        return static_cast<double>(experts) * sum / (routable_tokens * routable_tokens);
    }

    /// Token choice: all first choices claim slots, then all second choices, and so on. starts[g, e] becomes the number of rows.
    void claim(int64_t g, int64_t capacity, Sums& sums) {
        const int64_t first = g * group_tokens, last = first + group_tokens;
        int32_t *used = starts + g * experts, *queue = order + first, queued = 0;
        for (int64_t n = first; n < last; ++n)
            if (routable(n)) queue[queued++] = static_cast<int32_t>(n);
        if (a.rule.prioritized) {
            const auto largest = [&](int32_t n) { return probabilities_of(n)[choices[n * k]]; };
            std::sort(queue, queue + queued, [&](int32_t x, int32_t y) { return largest(x) != largest(y) ? largest(x) > largest(y) : x < y; });
        }
        int64_t later_wanted = 0, later_dropped = 0;
        for (int64_t r = 0; r < k; ++r) {
            for (int32_t i = 0; i < queued; ++i) {
                const int64_t at = queue[i] * k + r;
                if (states[at] == rejected) continue;
                int32_t& slots = used[choices[at]];
                const bool free = capacity < 0 || slots < capacity;
                if (free) ++slots, states[at] = kept;
                if (r > 0) ++later_wanted, later_dropped += !free;
            }
        }
        at(sums, ops::RouteStatistic::later_wanted) = static_cast<double>(later_wanted);
        at(sums, ops::RouteStatistic::later_dropped) = static_cast<double>(later_dropped);
    }

    /// Expert choice: every expert of the group takes its `count` most probable tokens.
    void take(int64_t g, int64_t count) {
        T* column = columns + g * experts * group_tokens;
        const int64_t first = g * group_tokens;
        constexpr int64_t tile = 16;  // tokens: a cache line of each column at a time
        for (int64_t begin = 0; begin < group_tokens; begin += tile) {
            const int64_t end = std::min(begin + tile, group_tokens);
            for (int64_t e = 0; e < experts; ++e)
                for (int64_t s = begin; s < end; ++s) column[e * group_tokens + s] = routable(first + s) ? probabilities_of(first + s)[e] : T{-1};
        }
        for (int64_t e = 0; e < experts; ++e) {
            starts[g * experts + e] = static_cast<int32_t>(
                take_largest(column + e * group_tokens, group_tokens, count, static_cast<int32_t>(first), taken + (g * experts + e) * capacity_bound));
        }
    }

    /// Writes first + i for the `count` largest x[i], ties to the lower i, in ascending order; returns how many. The count-th largest is found by bisection.
    static int64_t take_largest(const T* x, int64_t n, int64_t count, int32_t first, int32_t* out) {
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

    // ---- 3. lay out

    /// starts[g, e]: from the number of rows to the first row. Rows of an expert are ordered by group, hence by token.
    void lay_out() {
        int32_t row = 0;
        for (int64_t e = 0; e < experts; ++e) {
            offsets[e] = row;
            for (int64_t g = 0; g < groups; ++g) row += std::exchange(starts[g * experts + e], row);
            a.load.as<double>()[e] = row - offsets[e];
        }
        offsets[experts] = row;
        int32_t before = 0;
        for (int64_t g = 0; g < groups; ++g) {
            token_offsets[g * group_tokens] = before;
            before += static_cast<int32_t>(at(group_sums[static_cast<size_t>(g)], ops::RouteStatistic::rows));
        }
        token_offsets[tokens] = before;
    }

    // ---- 4. emit

    void write_row(int32_t row, int64_t n, int64_t e, T gate, int32_t place) const {
        a.row_token.as<int32_t>()[row] = static_cast<int32_t>(n);
        a.row_gate.as<T>()[row] = gate;
        a.row_id.as<int64_t>()[row] = (static_cast<int64_t>(a.first_token) + n) * experts + e;
        a.token_rows.as<int32_t>()[place] = row;
    }

    void emit_choices(int64_t g) {
        int32_t* next_row = starts + g * experts;
        int32_t place = token_offsets[g * group_tokens];
        double gate_sum = 0, reached = 0;
        std::vector<int64_t> ranks(static_cast<size_t>(k));
        for (int64_t n = g * group_tokens; n < (g + 1) * group_tokens; ++n) {
            token_offsets[n] = place;
            int64_t count = 0;
            for (int64_t at = n * k; at < (n + 1) * k; ++at) {
                if (states[at] != kept) continue;
                int64_t slot = count++;  // insertion by ascending expert
                for (; slot > 0 && choices[ranks[static_cast<size_t>(slot - 1)]] > choices[at]; --slot) ranks[static_cast<size_t>(slot)] = ranks[static_cast<size_t>(slot - 1)];
                ranks[static_cast<size_t>(slot)] = at;
            }
            for (int64_t i = 0; i < count; ++i) {
                const int64_t at = ranks[static_cast<size_t>(i)];
                write_row(next_row[choices[at]]++, n, choices[at], gates[at], place++);
                gate_sum += static_cast<double>(gates[at]);
            }
            reached += count > 0;
        }
        Sums& sums = group_sums[static_cast<size_t>(g)];
        at(sums, ops::RouteStatistic::gate) = gate_sum, at(sums, ops::RouteStatistic::reached) = reached;
    }

    void emit_taken(int64_t g) {
        const int64_t first = g * group_tokens;
        Sums& sums = group_sums[static_cast<size_t>(g)];
        std::vector<int32_t> places(static_cast<size_t>(group_tokens), 0);
        const auto rows_of = [&](int64_t e) {
            // The next group's first row of this expert, or the expert's end, is where this group's rows end.
            return (g + 1 < groups ? starts[(g + 1) * experts + e] : offsets[e + 1]) - starts[g * experts + e];
        };
        for (int64_t e = 0; e < experts; ++e)
            for (int32_t i = 0; i < rows_of(e); ++i) ++places[static_cast<size_t>(taken[(g * experts + e) * capacity_bound + i] - first)];
        int32_t place = token_offsets[first];
        double reached = 0, gate_sum = 0;
        for (int64_t s = 0; s < group_tokens; ++s) {
            token_offsets[first + s] = place;
            reached += places[static_cast<size_t>(s)] > 0;
            place += std::exchange(places[static_cast<size_t>(s)], place);
        }
        for (int64_t e = 0; e < experts; ++e) {
            const int32_t* list = taken + (g * experts + e) * capacity_bound;
            for (int32_t i = 0; i < rows_of(e); ++i) {
                const T gate = probabilities_of(list[i])[e];
                write_row(starts[g * experts + e] + i, list[i], e, gate, places[static_cast<size_t>(list[i] - first)]++);
                gate_sum += static_cast<double>(gate);
            }
        }
        at(sums, ops::RouteStatistic::gate) = gate_sum, at(sums, ops::RouteStatistic::reached) = reached;
    }

    void write_statistics() {
        double* out = a.statistics.as<double>();
        std::fill_n(out, static_cast<size_t>(ops::RouteStatistic::count), 0.0);
        for (const Sums& sums : group_sums)
            for (size_t s = 0; s < sums.size(); ++s) out[s] += sums[s];
    }

    const ops::RouteArgs& a;
    int64_t tokens, experts, groups, group_tokens, k, group_blocks, capacity_bound = 0;
    bool by_token;
    const uint8_t* mask;
    int32_t *choices, *offsets, *token_offsets;

    std::vector<BlockSums> block_sums;
    std::vector<Sums> group_sums;
    double* probability_sums;         // [blocks, E]
    int32_t* chosen;                  // [blocks, E] tokens that chose the expert
    int32_t* starts;                  // [G, E] rows of the expert in the group, then its first row
    T* gates = nullptr;               // [N, k]
    uint8_t* states = nullptr;        // [N, k] Choice
    int32_t* order = nullptr;         // [N] tokens of a group in the order in which they claim slots
    int32_t* taken = nullptr;         // [G, E, capacity_bound] tokens that an expert takes
    T* columns = nullptr;             // [G, E, S] probabilities, -1 where a token may not be routed
};

}  // namespace

void route(Context& context, const ops::RouteArgs& args) {
    Arena::Scope scope(context.arena);
    if (args.logits.dtype == DType::f64) return Router<double>(context, args).run();
    Router<float>(context, args).run();
}

}  // namespace flanmoe::cpu

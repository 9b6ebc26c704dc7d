// Backward of routing on the CPU. The decision itself has no gradient; gates, balance and z have one through the probabilities and the logits:
//   gate = p_e:                 dp_e = dgate
//   gate_i = p_i / s, s = sum of the token's k chosen p:   dp_j = (dgate_j - sum_i dgate_i gate_i) / s for every chosen j (dgate = 0 for a dropped one)
//   balance = E sum_e (c_e / n) (sum p_e / n):             dp_e = d_balance E c_e / n^2, c_e = tokens whose choice (first or any) is e, n = routable tokens
//   softmax and z = mean lse^2:                            dlogit_e = p_e (dp_e - sum_j p_j dp_j + d_z 2 lse / n)
#include "ops/route.hpp"

#include "core/parallel.hpp"
#include "cpu/vector_math.hpp"

#include <algorithm>
#include <vector>

namespace flanmoe::cpu {

namespace {

template <class T>
struct Backward {
    const ops::RouteBackwardArgs& b;
    const ops::RouteArgs& a = b.forward;
    int64_t experts = a.logits.cols(), group_tokens = a.logits.rows() / a.groups;
    bool by_token = a.rule.kind != RouterKind::expert_choice;
    const uint8_t* mask = a.mask ? a.mask.as<uint8_t>() : nullptr;
    Tensor from_balance;  // [G, E] dp of every token of the group
    Tensor z_factor;      // [G] d_z 2 / n

    bool routable(int64_t n) const { return !mask || mask[n]; }

    void group_factors(int64_t g) const {
        T* balance = from_balance.as<T>() + g * experts;
        std::vector<int64_t> counts(static_cast<size_t>(experts), 0);
        const int64_t k = by_token ? a.rule.k : 0, counted = a.rule.density == Density::any ? k : std::min<int64_t>(k, 1);
        int64_t tokens = 0;
        for (int64_t n = g * group_tokens; n < (g + 1) * group_tokens; ++n) {
            if (!routable(n)) continue;
            ++tokens;
            for (int64_t r = 0; r < counted; ++r) ++counts[static_cast<size_t>(a.choices.as<int32_t>()[n * k + r])];
        }
        const double n = static_cast<double>(std::max<int64_t>(tokens, 1));
        for (int64_t e = 0; e < experts; ++e)
            balance[e] = static_cast<T>(b.d_balance * static_cast<double>(experts) * static_cast<double>(counts[static_cast<size_t>(e)]) / (n * n));
        z_factor.as<T>()[g] = static_cast<T>(b.d_z * 2 / n);
    }

    /// Adds to dp what reaches the probabilities of token n through its gates.
    void add_gates(int64_t n, const T* p, T* dp) const {
        const int32_t *rows = a.token_rows.as<int32_t>() + a.token_offsets.as<int32_t>()[n], *end = a.token_rows.as<int32_t>() + a.token_offsets.as<int32_t>()[n + 1];
        const T* d_gate = b.d_gate.as<T>();
        const auto expert_of = [&](int32_t row) { return a.row_id.as<int64_t>()[row] - (static_cast<int64_t>(a.first_token) + n) * experts; };
        if (!by_token || !a.rule.normalize) {
            for (const int32_t* row = rows; row < end; ++row) dp[expert_of(*row)] += d_gate[*row];
            return;
        }
        T sum = 0, through_sum = 0;
        for (int64_t r = 0; r < a.rule.k; ++r) sum += p[a.choices.as<int32_t>()[n * a.rule.k + r]];
        for (const int32_t* row = rows; row < end; ++row) through_sum += d_gate[*row] * a.row_gate.as<T>()[*row];
        for (int64_t r = 0; r < a.rule.k; ++r) {
            const int32_t e = a.choices.as<int32_t>()[n * a.rule.k + r];
            const int32_t* row = std::find_if(rows, end, [&](int32_t candidate) { return expert_of(candidate) == e; });
            dp[e] += ((row < end ? d_gate[*row] : T{0}) - through_sum) / sum;
        }
    }

    void token(int64_t n, T* __restrict dp) const {
        T* __restrict out = row_of<T>(b.d_logits, n);
        if (!routable(n)) {
            std::fill_n(out, experts, T{0});
            return;
        }
        const int64_t g = n / group_tokens;
        const T *__restrict x = row_of<const T>(a.logits, n), *__restrict p = row_of<const T>(a.probabilities, n);
        std::copy_n(from_balance.as<T>() + g * experts, experts, dp);
        add_gates(n, p, dp);
        T inner = 0;
#pragma omp simd reduction(+ : inner)
        for (int64_t e = 0; e < experts; ++e) inner += p[e] * dp[e];
        // log sum exp = x - ln p for any expert; the most probable one is the most accurate.
        const T from_z = z_factor.as<T>()[g] == 0 ? T{0} : z_factor.as<T>()[g] * (row_max(x, experts) - std::log(row_max(p, experts)));
#pragma omp simd
        for (int64_t e = 0; e < experts; ++e) out[e] = p[e] * ((dp[e] - inner) + from_z);  // the large terms cancel first
    }
};

template <class T>
void run(Context& context, const ops::RouteBackwardArgs& args) {
    Arena::Scope scope(context.arena);
    Backward<T> backward{args};
    const int64_t groups = args.forward.groups;
    backward.from_balance = context.allocate(dtype_of<T>, {groups, backward.experts});
    backward.z_factor = context.allocate(dtype_of<T>, {groups});
    parallel_for(groups, std::max<int64_t>(1, 4096 / std::max<int64_t>(backward.group_tokens, 1)), [&](int64_t begin, int64_t end) {
        for (int64_t g = begin; g < end; ++g) backward.group_factors(g);
    });
    parallel_for(args.forward.logits.rows(), 256, [&](int64_t begin, int64_t end) {
        std::vector<T> scratch(static_cast<size_t>(backward.experts));
        for (int64_t n = begin; n < end; ++n) backward.token(n, scratch.data());
    });
}

}  // namespace

void route_backward(Context& context, const ops::RouteBackwardArgs& args) {
    args.forward.logits.dtype == DType::f64 ? run<double>(context, args) : run<float>(context, args);
}

}  // namespace flanmoe::cpu

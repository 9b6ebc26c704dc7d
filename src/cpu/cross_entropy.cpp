// Output layer and loss on the CPU, see ops/cross_entropy.hpp.
//
// One chunk of rows at a time: gather its hidden states, logits = hidden weight^T (one product), per row the loss and, in place, dlogits; then two
// products for the gradients. For bf16 a row's dlogits are written over the first half of its logits.
#include "ops/cross_entropy.hpp"

#include "core/parallel.hpp"
#include "cpu/gemm.hpp"
#include "cpu/vector_math.hpp"
#include "ops/run.hpp"

#include <algorithm>
#include <cstring>

namespace flanmoe::cpu {

namespace {

constexpr int64_t chunk_bytes = int64_t{64} << 20;

struct RowLoss {
    double nll = 0, log_sum = 0;
    bool correct = false;
};

// What a row of logits says; `first` is -1 if that is not the target and nobody else asks.
template <class A>
struct RowPart {
    A largest, sum, chosen;
    int64_t first;
};

// From a row of raw logits of ids [0, vocabulary); leaves exp(logits - largest) in their place. target: outside of that if it is elsewhere.
template <class A>
RowPart<A> row_part(A* logits, int64_t vocabulary, int64_t target, A scale, bool alone) {
    if (scale != A(1))
        for (int64_t v = 0; v < vocabulary; ++v) logits[v] *= scale;
    RowPart<A> part{};
    part.largest = row_max(logits, vocabulary);
    const bool here = target >= 0 && target < vocabulary;
    if (here) part.chosen = logits[target];
    part.first = -1;
    if (!alone || part.chosen == part.largest)
        part.first = std::find(logits, logits + vocabulary, part.largest) - logits;
    part.sum = row_exp_sum(logits, part.largest, logits, vocabulary);
    return part;
}

// Multiplies a row of exponentials by `factor`, subtracts `at_target` at the target, if it is here, and stores the row in T from the row's beginning on.
template <class T, class A>
void row_gradient(A* row, int64_t vocabulary, int64_t target, A factor, A at_target) {
    const bool here = target >= 0 && target < vocabulary;
    const A value = here ? row[target] * factor - at_target : A(0);
    if constexpr (std::is_same_v<T, A>) {
        for (int64_t v = 0; v < vocabulary; ++v) row[v] *= factor;
        if (here) row[target] = value;
    } else {
        // What is written lies behind what has been read: T is narrower.
        constexpr int64_t block = 256;
        T narrow[block];
        for (int64_t first = 0; first < vocabulary; first += block) {
            const int64_t count = std::min(block, vocabulary - first);
            for (int64_t i = 0; i < count; ++i) narrow[i] = static_cast<T>(row[first + i] * factor);
            if (target >= first && target < first + count) narrow[target - first] = static_cast<T>(value);
            std::memcpy(reinterpret_cast<char*>(row) + first * static_cast<int64_t>(sizeof(T)), narrow, static_cast<size_t>(count) * sizeof(T));
        }
    }
}

template <class T>
class LinearCrossEntropy {
    using A = accumulate_t<T>;

public:
    LinearCrossEntropy(Context& context, const ops::LinearCrossEntropyArgs& args)
        : context_(context), args_(args), vocabulary_(args.weight.rows()), width_(args.weight.cols()), backward_(args.d_hidden || args.d_weight),
          alone_(args.part.parts == 1), ids_(alone_ ? vocabulary_ : args.part.vocabulary) {
        const int32_t* targets = args.targets.as<int32_t>();
        for (int64_t n = 0; n < args.targets.elements(); ++n) {
            require(targets[n] >= -1 && targets[n] < ids_, "targets within the vocabulary");
            if (targets[n] >= 0) rows_.push_back(n);
        }
        losses_.resize(rows_.size());
    }

    void run() {
        clear_ignored();
        Arena::Scope scope(context_.arena);
        const int64_t counted = static_cast<int64_t>(rows_.size());
        int64_t most = args_.chunk_rows ? args_.chunk_rows : std::max<int64_t>(1, chunk_bytes / (ops::largest_part(args_.part, vocabulary_) * static_cast<int64_t>(sizeof(A))));
        // Chunks of about the same length: a short last one would cost almost as much memory traffic as a long one.
        const int64_t chunks = (counted + most - 1) / most;
        if (chunks) most = (counted + chunks - 1) / chunks;
        hidden_ = context_.allocate(dtype_of<T>, {most, width_});
        logits_ = context_.allocate(dtype_of<A>, {most, vocabulary_});
        if (args_.d_hidden) d_hidden_ = context_.allocate(dtype_of<T>, {most, width_});
        if (!alone_) part_ = context_.allocate(DType::f64, {most, 4}), parts_ = context_.allocate(DType::f64, {args_.part.parts * most, 4});
        for (int64_t first = 0; first < counted; first += most) chunk(first, std::min(most, counted - first));

        double nll = 0, z = 0, correct = 0;
        for (const RowLoss& loss : losses_) {
            nll += loss.nll;
            z += loss.log_sum * loss.log_sum;
            correct += loss.correct;
        }
        double* sums = args_.sums.as<double>();
        sums[0] += nll, sums[1] += z, sums[2] += static_cast<double>(counted), sums[3] += correct;
    }

private:
    void chunk(int64_t first, int64_t count) {
        move_rows(args_.hidden, hidden_, first, count, true);
        const int64_t dlogits_ld = vocabulary_ * static_cast<int64_t>(sizeof(A) / sizeof(T));
        product({.m = count, .n = vocabulary_, .k = width_, .a = hidden_.data, .b = args_.weight.data, .c = logits_.data, .lda = width_, .ldb = args_.weight.ld,
                 .ldc = vocabulary_, .transpose_b = true, .out = dtype_of<A>});
        const auto for_rows = [&](auto&& body) {
            parallel_for(count, 1 + 8192 / vocabulary_, [&](int64_t begin, int64_t end) {
                for (int64_t r = begin; r < end; ++r) body(r, first + r, logits_.as<A>() + r * vocabulary_);
            });
        };
        if (alone_) {
            for_rows([&](int64_t, int64_t i, A* logits) { row(i, logits, part_of(i, logits), A(1)); });
        } else {
            for_rows([&](int64_t r, int64_t i, A* logits) { put(part_of(i, logits), r); });
            args_.part.gather(part_.slice_rows(0, count), parts_.slice_rows(0, args_.part.parts * count));
            for_rows([&](int64_t r, int64_t i, A* logits) {
                const RowPart<A> all = merged(r, count);
                row(i, logits, all, std::exp(static_cast<A>(part_.as<double>()[r * 4]) - all.largest));
            });
        }
        if (args_.d_hidden) {
            product({.m = count, .n = width_, .k = vocabulary_, .a = logits_.data, .b = args_.weight.data, .c = d_hidden_.data, .lda = dlogits_ld,
                     .ldb = args_.weight.ld, .ldc = width_, .out = dtype_of<T>});
            move_rows(args_.d_hidden, d_hidden_, first, count, false);
        }
        if (args_.d_weight)
            product({.m = vocabulary_, .n = width_, .k = count, .a = logits_.data, .b = hidden_.data, .c = args_.d_weight.data, .lda = dlogits_ld, .ldb = width_,
                     .ldc = args_.d_weight.ld, .transpose_a = true, .accumulate = true, .out = dtype_of<A>});
    }

    // Where the target of counted row i is among the ids of this part.
    int64_t target_of(int64_t i) const { return args_.targets.as<int32_t>()[rows_[static_cast<size_t>(i)]] - args_.part.first_id; }
    RowPart<A> part_of(int64_t i, A* logits) const { return row_part(logits, vocabulary_, target_of(i), static_cast<A>(args_.scale), alone_); }

    void put(const RowPart<A>& part, int64_t r) const {
        double* to = part_.as<double>() + r * 4;
        to[0] = static_cast<double>(part.largest), to[1] = static_cast<double>(part.sum), to[2] = static_cast<double>(part.chosen);
        to[3] = static_cast<double>(args_.part.first_id + part.first);
    }

    // Row r of a chunk of `count`, all parts.
    RowPart<A> merged(int64_t r, int64_t count) const {
        const double* parts = parts_.as<double>() + r * 4;
        double largest = parts[0], sum = 0, chosen = 0, first = -1;
        for (int64_t p = 1; p < args_.part.parts; ++p) largest = std::max(largest, parts[p * count * 4]);
        for (int64_t p = 0; p < args_.part.parts; ++p) {
            const double* part = parts + p * count * 4;
            sum += part[1] * std::exp(part[0] - largest);
            chosen += part[2];
            if (part[0] == largest && first < 0) first = part[3];
        }
        return {static_cast<A>(largest), static_cast<A>(sum), static_cast<A>(chosen), static_cast<int64_t>(first)};
    }

    // Loss and dlogits of counted row `i`, whose logits have become exp(logits - largest); `factor` makes them relative to the largest of all parts.
    void row(int64_t i, A* logits, const RowPart<A>& all, A factor) {
        const int64_t n = rows_[static_cast<size_t>(i)], target = target_of(i);  // among this part's ids
        const A log_sum = all.largest + std::log(all.sum);
        const RowLoss loss{static_cast<double>(log_sum - all.chosen), static_cast<double>(log_sum), all.first == args_.part.first_id + target};
        losses_[static_cast<size_t>(i)] = loss;
        if (args_.token_nll) args_.token_nll.as<A>()[n] = static_cast<A>(loss.nll);
        if (!backward_) return;
        const double unit = args_.loss_scale * args_.scale, share = unit * (1 + 2 * args_.z_coefficient * loss.log_sum) / static_cast<double>(all.sum);
        row_gradient<T>(logits, vocabulary_, target, static_cast<A>(share) * factor, static_cast<A>(unit));
    }

    // Copies counted rows [first, first + count) between a [N, D] tensor and a chunk's buffer.
    void move_rows(const Tensor& all, const Tensor& buffer, int64_t first, int64_t count, bool to_buffer) {
        parallel_for(count, 1 + 65536 / width_, [&](int64_t begin, int64_t end) {
            for (int64_t r = begin; r < end; ++r) {
                T* whole = all.as<T>() + rows_[static_cast<size_t>(first + r)] * all.ld;
                T* part = buffer.as<T>() + r * width_;
                std::memcpy(to_buffer ? part : whole, to_buffer ? whole : part, static_cast<size_t>(width_) * sizeof(T));
            }
        });
    }

    void clear_ignored() {
        const int32_t* targets = args_.targets.as<int32_t>();
        for (int64_t n = 0; n < args_.targets.elements(); ++n) {
            if (targets[n] >= 0) continue;
            if (args_.d_hidden) std::fill_n(args_.d_hidden.as<T>() + n * args_.d_hidden.ld, width_, T{});
            if (args_.token_nll) args_.token_nll.as<A>()[n] = 0;
        }
    }

    void product(Gemm g) {
        g.in = dtype_of<T>;
        g.any_shape = true;  // the number of rows that count differs from batch to batch
        context_.flops += 2.0 * static_cast<double>(g.m) * static_cast<double>(g.n) * static_cast<double>(g.k);
        gemm(g);
    }

    Context& context_;
    const ops::LinearCrossEntropyArgs& args_;
    int64_t vocabulary_, width_;
    bool backward_, alone_;  // alone: the weight has the whole vocabulary
    int64_t ids_;             // of the whole vocabulary
    std::vector<int64_t> rows_;  // those that count
    std::vector<RowLoss> losses_;
    Tensor hidden_, logits_, d_hidden_;  // of one chunk
    Tensor part_, parts_;                // [rows, 4] of this part, [parts, rows, 4] of all
};

}  // namespace

void linear_cross_entropy(Context& context, const ops::LinearCrossEntropyArgs& args) {
    ops::with_type(args.hidden.dtype, [&]<class T>() { return LinearCrossEntropy<T>(context, args).run(); });
}

}  // namespace flanmoe::cpu

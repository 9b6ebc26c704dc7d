// Output layer and loss on the CPU, see ops/cross_entropy.hpp.
//
// One chunk of rows at a time: gather its hidden states, logits = hidden weight^T (one product), per row the loss and, in place, dlogits; then two
// products for the gradients. For bf16 a row's dlogits are written over the first half of its logits.
#include "ops/cross_entropy.hpp"

#include "core/parallel.hpp"
#include "cpu/gemm.hpp"
#include "cpu/vector_math.hpp"
#include "ops/run.hpp"

#include <cstring>

namespace flanmoe::cpu {

namespace {

constexpr int64_t chunk_bytes = int64_t{64} << 20;

struct RowLoss {
    double nll = 0, log_sum = 0;
    bool correct = false;
};

// Turns a row of raw logits into its loss; leaves exp(logits - max) and their sum, for the gradient.
template <class A>
RowLoss row_loss(A* logits, int64_t vocabulary, int32_t target, A scale, A& largest, A& sum) {
    if (scale != A(1))
        for (int64_t v = 0; v < vocabulary; ++v) logits[v] *= scale;
    largest = row_max(logits, vocabulary);
    const A chosen = logits[target];
    bool correct = chosen == largest;
    for (int64_t v = 0; correct && v < target; ++v) correct = logits[v] != largest;
    sum = row_exp_sum(logits, largest, logits, vocabulary);
    const A log_sum = largest + std::log(sum);
    return {static_cast<double>(log_sum - chosen), static_cast<double>(log_sum), correct};
}

// Multiplies a row of exponentials by `factor`, subtracts `at_target` at the target, and stores the row in T from the row's beginning on.
template <class T, class A>
void row_gradient(A* row, int64_t vocabulary, int32_t target, A factor, A at_target) {
    const A value = row[target] * factor - at_target;
    if constexpr (std::is_same_v<T, A>) {
        for (int64_t v = 0; v < vocabulary; ++v) row[v] *= factor;
        row[target] = value;
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
        : context_(context), args_(args), vocabulary_(args.weight.rows()), width_(args.weight.cols()), backward_(args.d_hidden || args.d_weight) {
        const int32_t* targets = args.targets.as<int32_t>();
        for (int64_t n = 0; n < args.targets.elements(); ++n) {
            require(targets[n] >= -1 && targets[n] < vocabulary_, "targets within the vocabulary");
            if (targets[n] >= 0) rows_.push_back(n);
        }
        losses_.resize(rows_.size());
    }

    void run() {
        clear_ignored();
        Arena::Scope scope(context_.arena);
        const int64_t counted = static_cast<int64_t>(rows_.size());
        int64_t most = args_.chunk_rows ? args_.chunk_rows : std::max<int64_t>(1, chunk_bytes / (vocabulary_ * static_cast<int64_t>(sizeof(A))));
        // Chunks of about the same length: a short last one would cost almost as much memory traffic as a long one.
        const int64_t chunks = (counted + most - 1) / most;
        if (chunks) most = (counted + chunks - 1) / chunks;
        hidden_ = context_.allocate(dtype_of<T>, {most, width_});
        logits_ = context_.allocate(dtype_of<A>, {most, vocabulary_});
        if (args_.d_hidden) d_hidden_ = context_.allocate(dtype_of<T>, {most, width_});
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
        parallel_for(count, 1 + 8192 / vocabulary_, [&](int64_t begin, int64_t end) {
            for (int64_t r = begin; r < end; ++r) row(first + r, logits_.as<A>() + r * vocabulary_);
        });
        if (args_.d_hidden) {
            product({.m = count, .n = width_, .k = vocabulary_, .a = logits_.data, .b = args_.weight.data, .c = d_hidden_.data, .lda = dlogits_ld,
                     .ldb = args_.weight.ld, .ldc = width_, .out = dtype_of<T>});
            move_rows(args_.d_hidden, d_hidden_, first, count, false);
        }
        if (args_.d_weight)
            product({.m = vocabulary_, .n = width_, .k = count, .a = logits_.data, .b = hidden_.data, .c = args_.d_weight.data, .lda = dlogits_ld, .ldb = width_,
                     .ldc = args_.d_weight.ld, .transpose_a = true, .accumulate = true, .out = dtype_of<A>});
    }

    // Loss and dlogits of counted row `i`.
    void row(int64_t i, A* logits) {
        const int64_t n = rows_[static_cast<size_t>(i)];
        const int32_t target = args_.targets.as<int32_t>()[n];
        A largest, sum;
        const RowLoss loss = row_loss(logits, vocabulary_, target, static_cast<A>(args_.scale), largest, sum);
        losses_[static_cast<size_t>(i)] = loss;
        if (args_.token_nll) args_.token_nll.as<A>()[n] = static_cast<A>(loss.nll);
        if (!backward_) return;
        const double unit = args_.loss_scale * args_.scale, factor = unit * (1 + 2 * args_.z_coefficient * loss.log_sum) / static_cast<double>(sum);
        row_gradient<T>(logits, vocabulary_, target, static_cast<A>(factor), static_cast<A>(unit));
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
    bool backward_;
    std::vector<int64_t> rows_;  // those that count
    std::vector<RowLoss> losses_;
    Tensor hidden_, logits_, d_hidden_;  // of one chunk
};

}  // namespace

void linear_cross_entropy(Context& context, const ops::LinearCrossEntropyArgs& args) {
    ops::with_type(args.hidden.dtype, [&]<class T>() { return LinearCrossEntropy<T>(context, args).run(); });
}

}  // namespace flanmoe::cpu

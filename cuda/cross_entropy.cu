// Output layer and loss, see ops/cross_entropy.hpp: logits of one chunk of rows at a time, their gradient in the same memory, no host knowledge of the rows.
//
// (1) The rows that count are listed on the device, in order, and with them how many each chunk has. (2) A chunk: gather its hidden states; logits = hidden
// weight^T in float; one kernel turns each row of logits into its loss, its share of the statistics and, in place, its gradient; two products give the
// gradients of hidden states and weight. (3) The losses of all rows are added in double, in a fixed order.
//
// The number of rows of a chunk is known on the device only, so all three products are grouped products of one group: their kernels read the number from
// device memory, and what lies behind it is neither read nor written nor computed. Without targets (padding, prompts) a chunk costs its launches. (Context
// counts their FLOPs as if all rows counted.)
//
// The loss kernel: a block a row, two readings. The first keeps, per thread, the largest logit and the sum of exponentials relative to it; the second, from
// the L2 cache as a rule, writes the gradient. For bf16 it goes over the first half of the row's own floats: a barrier lies between reading and writing a
// stretch, and what is written lies behind what has been read.
//
// Bytes of a row at V = 32128, bf16: logits written and read 2 x 129 KB, gradient written once and read twice 3 x 64 KB: 450 KB, 0.17 us at 2.7 TB/s, where the
// products are 6 V D = 148 MFLOP at D = 768: 0.21 us at 700 TFLOP/s. A chunk reads the weight twice and reads and writes its gradient once (0.3 GB at D = 768),
// which is why it has 256 MB of logits (2 Ki rows) here. Not yet measured on hardware. Registers of the loss kernel on sm_90a: 32, so that four blocks of
// 512 threads share a multiprocessor.
//
// Of a part of the vocabulary each row's largest logit, sum and chosen logit are exchanged with the other parts before the second reading: two kernels in place
// of one.
//
// A target outside [-1, V) cannot be refused from here: its loss is NaN, and so is the sum.
#include "ops/cross_entropy.hpp"

#include "device.cuh"
#include "launch.hpp"
#include "ops/matmul.hpp"

namespace flanmoe::cuda {

void grouped_matmul(Context& context, const ops::GroupedMatmulArgs& args);
void grouped_matmul_weight(Context& context, const ops::GroupedMatmulWeightArgs& args);

namespace {

constexpr int64_t chunk_bytes = int64_t{256} << 20;
constexpr int threads = 512, warps = threads / 32;
constexpr int per_warp = 128, tile = warps * per_warp;  // targets that one warp and one block list
constexpr int move_warps = 8;
constexpr int wide = 8;  // elements of a row that a thread takes at once

bool backward(const ops::LinearCrossEntropyArgs& args) { return args.d_hidden || args.d_weight; }

/// Targets of this warp's stretch that count, before lane's in round i, found by votes: calls body(index, before) for each of this lane's that counts.
template <class Body>
__device__ int32_t for_counted(const int32_t* targets, int64_t count, Body&& body) {
    const int64_t first = int64_t{blockIdx.x} * tile + warp() * per_warp + lane();
    int32_t before = 0;
    for (int i = 0; i < per_warp; i += 32) {
        const bool counts = first + i < count && targets[first + i] != -1;
        const uint32_t votes = __ballot_sync(full_mask, counts);
        if (counts) body(first + i, before + __popc(votes & lanes_below()));
        before += __popc(votes);
    }
    return before;
}

/// tile_counts[block] = targets of the tile that count.
__global__ void count_rows(const int32_t* targets, int64_t count, int32_t* tile_counts) {
    Shared shared;
    int32_t* const by_warp = shared.take<int32_t>(warps);
    const int32_t mine = for_counted(targets, count, [](int64_t, int32_t) {});
    if (lane() == 0) by_warp[warp()] = mine;
    __syncthreads();
    if (threadIdx.x != 0) return;
    int32_t sum = 0;
    for (int w = 0; w < warps; ++w) sum += by_warp[w];
    tile_counts[blockIdx.x] = sum;
}

struct ListArgs {
    const int32_t* targets;
    int64_t count;
    const int32_t* tile_counts;
    int32_t* rows;     // [count] those that count, in order
    int32_t* offsets;  // [chunks][2]: 0 and the rows of the chunk, offsets of one group
    int64_t chunks, chunk_rows;
    int32_t* total;
};

__global__ void list_rows(ListArgs args) {
    Shared shared;
    int32_t* const by_warp = shared.take<int32_t>(warps);
    const int32_t mine = for_counted(args.targets, args.count, [](int64_t, int32_t) {});
    if (lane() == 0) by_warp[warp()] = mine;
    __syncthreads();
    int32_t before = 0, total = 0;
    for (int64_t t = 0; t < gridDim.x; ++t) {
        if (t == blockIdx.x) before = total;
        total += args.tile_counts[t];
    }
    for (int w = 0; w < warp(); ++w) before += by_warp[w];
    for_counted(args.targets, args.count, [&](int64_t n, int32_t rank) { args.rows[before + rank] = static_cast<int32_t>(n); });
    if (blockIdx.x != 0) return;
    for (int64_t c = threadIdx.x; c < args.chunks; c += threads) {
        args.offsets[2 * c] = 0;
        args.offsets[2 * c + 1] = static_cast<int32_t>(max(int64_t{0}, min(args.chunk_rows, total - c * args.chunk_rows)));
    }
    if (threadIdx.x == 0) *args.total = total;
}

/// Zeros where a row does not count. A warp a row.
template <class T, int N>
__global__ void clear_ignored(const int32_t* targets, int64_t count, T* d_hidden, int64_t ld, int64_t cols, float* token_nll) {
    const int64_t n = int64_t{blockIdx.x} * move_warps + warp();
    if (n >= count || targets[n] != -1) return;
    if (token_nll && lane() == 0) token_nll[n] = 0;
    if (!d_hidden) return;
    const float zero[N] = {};
    for (int64_t c = lane() * N; c < cols; c += 32 * N) store_floats<N>(d_hidden + n * ld + c, left_of<N>(cols, c), zero);
}

/// One chunk's rows, between the whole tensor and a buffer: rows[i] of `whole` and i of `buffer`, as many as offsets[1]. A warp a row.
template <class T, int N, bool gather>
__global__ void move_rows(T* whole, int64_t whole_ld, T* buffer, int64_t buffer_ld, int64_t cols, const int32_t* rows, const int32_t* offsets) {
    const int64_t i = int64_t{blockIdx.x} * move_warps + warp();
    if (i >= offsets[1]) return;
    T* const there = whole + rows[i] * whole_ld;
    T* const here = buffer + i * buffer_ld;
    for (int64_t c = lane() * N; c < cols; c += 32 * N) {
        float x[N];
        load_floats<N>((gather ? there : here) + c, left_of<N>(cols, c), x);
        store_floats<N>((gather ? here : there) + c, left_of<N>(cols, c), x);
    }
}

struct LossArgs {
    float* logits;  // [chunk_rows, ld], raw; for bf16 the gradient's rows begin where these do
    int64_t ld;
    int32_t vocabulary;
    const int32_t *rows, *offsets;  // of this chunk
    const int32_t* targets;
    float scale, unit, z_coefficient;  // unit: of the gradient of a logit, loss_scale scale
    bool backward;
    float *nll, *log_sum;  // of this chunk's rows
    int32_t* correct;
    float* token_nll;  // null if not asked for
    // Of a part of the vocabulary:
    int32_t first_id, ids;  // ids: of all parts
    int64_t parts, rows_here;
    double *part;           // [rows_here, 4] largest, sum, chosen, first id of the largest
    const double *whole;    // [parts, rows_here, 4]
};

/// The float kernel is exact to a rounding or two. For bf16 operands exp2 of the special function unit is: the relative error of a term, 2 + 1.2 |x| ulp,
/// is weighted with the term e^x itself, x <= 0, so that softmax is within 2^-22.
template <class T>
__device__ float exponential(float x) {
    if constexpr (std::is_same_v<T, float>) return expf(x);
    else return __expf(x);
}

/// Logits v .. v + 7 of a row, scaled; minus infinity behind its end.
__device__ void load_logits(const float* row, int32_t v, int32_t vocabulary, float scale, float (&x)[wide]) {
    load_floats<wide>(row + v, vocabulary - v, x);
#pragma unroll
    for (int j = 0; j < wide; ++j) x[j] = v + j < vocabulary ? x[j] * scale : -INFINITY;
}

/// Gradient of a row in place of its logits.
template <class T>
__device__ void write_gradient(const LossArgs& args, float* row, int32_t target, float largest, float factor) {
    T* const out = reinterpret_cast<T*>(row);
    for (int32_t first = 0; first < args.vocabulary; first += threads * wide) {
        const int32_t v = first + static_cast<int32_t>(threadIdx.x) * wide;
        float x[wide];
        if (v < args.vocabulary) load_logits(row, v, args.vocabulary, args.scale, x);
        if constexpr (sizeof(T) < sizeof(float)) __syncthreads();
        if (v >= args.vocabulary) continue;
#pragma unroll
        for (int j = 0; j < wide; ++j) {
            x[j] = factor * exponential<T>(x[j] - largest);
            if (v + j == target) x[j] -= args.unit;
        }
        store_floats<wide>(out + v, args.vocabulary - v, x);
    }
}

template <class T>
__global__ void __launch_bounds__(threads) row_losses(LossArgs args) {
    const int64_t r = blockIdx.x;
    if (r >= args.offsets[1]) return;
    Shared shared;
    float* const piece = shared.take<float>(2 * block_sum_piece);
    const int64_t n = args.rows[r];
    const int32_t target = args.targets[n];
    float* const row = args.logits + r * args.ld;
    const float chosen = target >= 0 && target < args.vocabulary ? row[target] * args.scale : NAN;

    float largest = -INFINITY, sum = 0;
    int preceded = 0;  // by an equal logit
    for (int32_t v = static_cast<int32_t>(threadIdx.x) * wide; v < args.vocabulary; v += threads * wide) {
        float x[wide], most = largest;
        load_logits(row, v, args.vocabulary, args.scale, x);
#pragma unroll
        for (int j = 0; j < wide; ++j) {
            most = fmaxf(most, x[j]);
            preceded |= x[j] == chosen && v + j < target;
        }
        sum *= exponential<T>(largest - most);
        largest = most;
#pragma unroll
        for (int j = 0; j < wide; ++j) sum += exponential<T>(x[j] - largest);
    }
    const float top = block_max(largest, piece);
    const bool correct = __syncthreads_or(preceded) == 0 && chosen == top;
    const float total = block_sum(sum * exponential<T>(largest - top), piece + block_sum_piece), log_sum = top + logf(total);
    if (threadIdx.x == 0) {
        args.nll[r] = log_sum - chosen;
        args.log_sum[r] = log_sum;
        args.correct[r] = correct;
        if (args.token_nll) args.token_nll[n] = log_sum - chosen;
    }
    if (args.backward) write_gradient<T>(args, row, target, top, args.unit * (1 + 2 * args.z_coefficient * log_sum) / total);
}

/// What a row's logits of this part say.
template <class T>
__global__ void __launch_bounds__(threads) row_parts(LossArgs args) {
    const int64_t r = blockIdx.x;
    if (r >= args.offsets[1]) return;
    Shared shared;
    float* const piece = shared.take<float>(2 * block_sum_piece);
    const int32_t global = args.targets[args.rows[r]], target = global - args.first_id;
    float* const row = args.logits + r * args.ld;
    float largest = -INFINITY, sum = 0, first = INFINITY;
    for (int32_t v = static_cast<int32_t>(threadIdx.x) * wide; v < args.vocabulary; v += threads * wide) {
        float x[wide], most = largest;
        load_logits(row, v, args.vocabulary, args.scale, x);
#pragma unroll
        for (int j = 0; j < wide; ++j) {
            if (x[j] > most) first = static_cast<float>(v + j);
            most = fmaxf(most, x[j]);
        }
        sum *= exponential<T>(largest - most);
        largest = most;
#pragma unroll
        for (int j = 0; j < wide; ++j) sum += exponential<T>(x[j] - largest);
    }
    const float top = block_max(largest, piece);
    const float total = block_sum(sum * exponential<T>(largest - top), piece + block_sum_piece);
    const float before = block_max(largest == top ? -first : -INFINITY, piece);
    if (threadIdx.x != 0) return;
    double* const to = args.part + r * 4;
    to[0] = top, to[1] = total;
    to[2] = target >= 0 && target < args.vocabulary ? row[target] * args.scale : global >= 0 && global < args.ids ? 0.0f : NAN;
    to[3] = args.first_id - before;
}

/// The row's loss and gradient, once all parts are here.
template <class T>
__global__ void __launch_bounds__(threads) join_parts(LossArgs args) {
    const int64_t r = blockIdx.x;
    if (r >= args.offsets[1]) return;
    const int64_t n = args.rows[r];
    const double* const whole = args.whole + r * 4;
    double top = whole[0], total = 0, chosen = 0, first = -1;
    for (int64_t p = 1; p < args.parts; ++p) top = max(top, whole[p * args.rows_here * 4]);
    for (int64_t p = 0; p < args.parts; ++p) {
        const double* const part = whole + p * args.rows_here * 4;
        total += part[1] * exp(part[0] - top);
        chosen += part[2];
        if (part[0] == top && first < 0) first = part[3];
    }
    const float log_sum = static_cast<float>(top + log(total)), nll = log_sum - static_cast<float>(chosen);
    if (threadIdx.x == 0) {
        args.nll[r] = nll;
        args.log_sum[r] = log_sum;
        args.correct[r] = first == args.targets[n];
        if (args.token_nll) args.token_nll[n] = nll;
    }
    const float factor = args.unit * (1 + 2 * args.z_coefficient * log_sum) / static_cast<float>(total);
    if (args.backward) write_gradient<T>(args, args.logits + r * args.ld, args.targets[n] - args.first_id, static_cast<float>(top), factor);
}

/// sums += nll, z, rows, correct of all rows; each thread every 512th row, then a tree.
__global__ void add_losses(const float* nll, const float* log_sum, const int32_t* correct, const int32_t* total, double* sums) {
    Shared shared;
    double* const piece = shared.take<double>(block_sum_piece);
    double nll_sum = 0, z_sum = 0, correct_sum = 0;
    for (int32_t i = static_cast<int32_t>(threadIdx.x); i < *total; i += threads) {
        nll_sum += nll[i];
        z_sum += static_cast<double>(log_sum[i]) * log_sum[i];
        correct_sum += correct[i];
    }
    nll_sum = block_sum(nll_sum, piece);
    z_sum = block_sum(z_sum, piece);
    correct_sum = block_sum(correct_sum, piece);
    if (threadIdx.x == 0) sums[0] += nll_sum, sums[1] += z_sum, sums[2] += *total, sums[3] += correct_sum;
}

/// One call of the operation: its temporaries and its chunks.
template <class T>
class LinearCrossEntropy {
public:
    LinearCrossEntropy(Context& context, const ops::LinearCrossEntropyArgs& args)
        : context_(context), args_(args), count_(args.targets.elements()), vocabulary_(args.weight.rows()), width_(args.weight.cols()),
          ld_(wide_ld(vocabulary_)) {
        require(count_ < INT32_MAX && vocabulary_ < INT32_MAX, "fewer than 2^31 rows and ids");
        // As many chunks as the rows need if all count, of about the same length, a multiple of the products' tiles.
        const int64_t most = args.chunk_rows ? args.chunk_rows : std::max<int64_t>(128, chunk_bytes / (wide_ld(ops::largest_part(args.part, vocabulary_)) * 4) / 128 * 128);
        chunks_ = (count_ + most - 1) / most;
        const int64_t even = chunks_ ? (count_ + chunks_ - 1) / chunks_ : 0;
        chunk_rows_ = args.chunk_rows ? even : std::min(count_, (even + 127) / 128 * 128);
    }

    void run() {
        Arena::Scope scope(context_.arena);
        list();
        if (args_.d_hidden || args_.token_nll) clear();
        const int64_t width = (width_ + wide - 1) / wide * wide;
        hidden_ = context_.allocate(dtype_of<T>, {chunk_rows_, width}).columns(0, width_);
        logits_ = context_.allocate(DType::f32, {chunk_rows_, ld_}).columns(0, vocabulary_);
        if (args_.d_hidden) d_hidden_ = context_.allocate(dtype_of<T>, {chunk_rows_, width}).columns(0, width_);
        nll_ = context_.allocate(DType::f32, {count_}), log_sum_ = context_.allocate(DType::f32, {count_}), correct_ = context_.allocate(DType::i32, {count_});
        if (args_.part.parts > 1) {
            part_ = context_.allocate(DType::f64, {chunk_rows_, 4}), parts_ = context_.allocate(DType::f64, {args_.part.parts * chunk_rows_, 4});
            context_.engine->zero(part_.data, part_.bytes());  // of rows that do not count
        }
        for (int64_t c = 0; c < chunks_; ++c) chunk(c);
        launch(context_, "cross entropy sums", add_losses, count_ ? 1 : 0, threads, shared_bytes<double>(block_sum_piece), pointer<float>(nll_), pointer<float>(log_sum_),
               pointer<int32_t>(correct_), pointer<int32_t>(total_), args_.sums.template as<double>());
    }

private:
    static int64_t wide_ld(int64_t cols) { return (cols + wide - 1) / wide * wide; }
    template <class U>
    static const U* pointer(const Tensor& tensor) {
        return tensor ? tensor.as<U>() : nullptr;
    }

    void list() {
        rows_ = context_.allocate(DType::i32, {count_}), offsets_ = context_.allocate(DType::i32, {chunks_, 2}), total_ = context_.allocate(DType::i32, {1});
        const unsigned tiles = blocks_for(count_, tile);
        const Tensor counts = context_.allocate(DType::i32, {tiles});
        const int32_t* const targets = pointer<int32_t>(args_.targets);
        launch(context_, "cross entropy count", count_rows, tiles, threads, shared_bytes<int32_t>(warps), targets, count_, counts.as<int32_t>());
        const ListArgs list{targets, count_, pointer<int32_t>(counts), rows_.as<int32_t>(), offsets_.as<int32_t>(), chunks_, chunk_rows_, total_.as<int32_t>()};
        launch(context_, "cross entropy list", list_rows, tiles, threads, shared_bytes<int32_t>(warps), list);
    }

    void clear() {
        const Tensor& d = args_.d_hidden;
        const bool vectors = !d || has_aligned_rows(d);
        float* const token_nll = args_.token_nll ? args_.token_nll.template as<float>() : nullptr;
        launch(context_, "cross entropy clear", vectors ? clear_ignored<T, wide> : clear_ignored<T, 1>, blocks_for(count_, move_warps), move_warps * 32, 0,
               pointer<int32_t>(args_.targets), count_, d ? d.as<T>() : nullptr, d.ld, width_, token_nll);
    }

    void chunk(int64_t c) {
        const Tensor offsets = offsets_.slice_rows(c, 1).view({2});
        const int64_t first = c * chunk_rows_, rows = std::min(chunk_rows_, count_ - first);
        move<true>(args_.hidden, hidden_, first, rows, offsets);
        const Tensor hidden = hidden_.slice_rows(0, rows), logits = logits_.slice_rows(0, rows);
        grouped_matmul(context_, {.a = hidden, .b = args_.weight, .offsets = offsets, .out = logits, .transpose_b = true});
        losses(first, rows, offsets);
        const Tensor d_logits(logits.data, dtype_of<T>, logits.shape, ld_ * static_cast<int64_t>(sizeof(float) / sizeof(T)));
        if (args_.d_hidden) {
            const Tensor d_hidden = d_hidden_.slice_rows(0, rows);
            grouped_matmul(context_, {.a = d_logits, .b = args_.weight, .offsets = offsets, .out = d_hidden});
            move<false>(args_.d_hidden, d_hidden, first, rows, offsets);
        }
        if (args_.d_weight) {
            grouped_matmul_weight(context_, {.a = d_logits, .b = hidden, .offsets = offsets, .out = args_.d_weight, .accumulate = true});
        }
    }

    void losses(int64_t first, int64_t rows, const Tensor& offsets) {
        LossArgs loss{};
        loss.logits = logits_.as<float>(), loss.ld = ld_, loss.vocabulary = static_cast<int32_t>(vocabulary_);
        loss.rows = pointer<int32_t>(rows_) + first, loss.offsets = pointer<int32_t>(offsets), loss.targets = pointer<int32_t>(args_.targets);
        loss.scale = static_cast<float>(args_.scale), loss.unit = static_cast<float>(args_.loss_scale * args_.scale);
        loss.z_coefficient = static_cast<float>(args_.z_coefficient), loss.backward = backward(args_);
        loss.nll = nll_.as<float>() + first, loss.log_sum = log_sum_.as<float>() + first, loss.correct = correct_.as<int32_t>() + first;
        loss.token_nll = args_.token_nll ? args_.token_nll.template as<float>() : nullptr;
        if (args_.part.parts > 1) return exchanged_losses(rows, loss);
        launch(context_, "cross entropy", row_losses<T>, static_cast<unsigned>(rows), threads, shared_bytes<float>(2 * block_sum_piece), loss);
    }

    void exchanged_losses(int64_t rows, LossArgs& loss) {
        const ops::VocabularyPart& part = args_.part;
        const Tensor own = part_.slice_rows(0, rows), whole = parts_.slice_rows(0, part.parts * rows);
        loss.first_id = static_cast<int32_t>(part.first_id), loss.ids = static_cast<int32_t>(part.vocabulary);
        loss.parts = part.parts, loss.rows_here = rows, loss.part = own.as<double>(), loss.whole = whole.as<double>();
        launch(context_, "cross entropy part", row_parts<T>, static_cast<unsigned>(rows), threads, shared_bytes<float>(2 * block_sum_piece), loss);
        part.gather(own, whole);
        launch(context_, "cross entropy join", join_parts<T>, static_cast<unsigned>(rows), threads, 0, loss);
    }

    template <bool gather>
    void move(const Tensor& whole, const Tensor& buffer, int64_t first, int64_t rows, const Tensor& offsets) {
        const bool vectors = has_aligned_rows(whole) && has_aligned_rows(buffer);
        launch(context_, gather ? "cross entropy gather" : "cross entropy scatter", vectors ? move_rows<T, wide, gather> : move_rows<T, 1, gather>,
               blocks_for(rows, move_warps), move_warps * 32, 0, whole.as<T>(), whole.ld, buffer.as<T>(), buffer.ld, width_, pointer<int32_t>(rows_) + first,
               pointer<int32_t>(offsets));
    }

    Context& context_;
    const ops::LinearCrossEntropyArgs& args_;
    int64_t count_, vocabulary_, width_, ld_;  // ld: of logits, a multiple of 8
    int64_t chunks_, chunk_rows_;
    Tensor rows_, offsets_, total_;
    Tensor hidden_, logits_, d_hidden_;  // of one chunk
    Tensor part_, parts_;                // of its rows, if the vocabulary is shared
    Tensor nll_, log_sum_, correct_;     // of all rows that count
};

}  // namespace

void linear_cross_entropy(Context& context, const ops::LinearCrossEntropyArgs& args) {
    with_storage(args.hidden.dtype, [&]<class T>() { LinearCrossEntropy<T>(context, args).run(); });
}

}  // namespace flanmoe::cuda

// Attention backward on the GPU: probabilities recomputed tile by tile from log_sum; nothing of size S x S, no atomics.
//
//   p = exp(score - log_sum), f the dropout factor, delta_i = d_out_i . out_i
//   d_v = (p f)^T d_out,  d_s = p (f (d_out v^T) - delta),  d_q = scale d_s k,  d_k = scale d_s^T q,  d_bias[distance] = sum of d_s along a diagonal
//
// Every gradient has one owner and a fixed order of sums. Two sweeps of one kernel: blocks that own 64 keys sweep over the queries (d_k, d_v; all query
// heads of a key head one after the other), blocks that own 64 queries sweep over the keys (d_q, d_bias). With rows for what is owned and columns for what
// passes by, both compute rows x columns^T twice (scores, d_out v^T) and d_s x columns. That is 7 products instead of 5, in exchange for neither atomics nor
// a d_q of every tile of keys in memory (4 * Sq * Sk / 64 * size bytes a head, read again: more time than two products for heads of 64).
// delta is summed by the same product as d_out v^T: where a query sees one key alone, out is its value and the gradient of the score exactly 0.
//
// Bias: a tile far from the diagonal lies in one bucket, its sum stays in a register. Near the diagonal each thread adds what it can (elements 8 rows and
// 8 columns apart), the warp the rest through shared memory, by distance. At the end of the sweep a block's distances are summed to buckets; a last
// kernel adds the blocks' sums in order. Memory: buckets * 4 bytes for 64 queries of a head.
//
// bf16, heads of 64: at most 255 registers, nothing spilled (sm_80, sm_90a), 62 and 75 KiB of shared memory: 2 blocks a multiprocessor.
// Counted: 14 Sq Sk 64 FLOPs a head on tensor cores, two exponentials a score, global memory about three times the forward's. Predicted for an H100 with
// 128 rows of 512, 12 heads of 64: 0.6 ms of tensor cores, 0.5 ms of other instructions partly beside them: 0.8 to 1.3 ms. Not yet measured on hardware.
#include "attention_diagonals.cuh"

namespace flanmoe::cuda {

namespace {

constexpr int owned_rows = 16 * attention_warps;

template <class T>
struct GradientTensors {
    const T* d_out;
    T *d_q, *d_k, *d_v;
    const float* delta;
    float* d_bias;  ///< [heads, batch * tiles of queries, buckets], or null
    int64_t d_out_ld, d_q_ld, d_k_ld, d_v_ld;
};

/// delta of 64 queries of a head.
template <class T, int width>
struct DeltaBlock {
    struct Memory {
        T *d_out, *out;
    };
    template <class Take>
    __host__ __device__ static void pieces(const AttentionShape&, Take&& take) {
        take(&Memory::d_out, owned_rows * row_stride<T>(width));
        take(&Memory::out, owned_rows * row_stride<T>(width));
    }
};
template <class T, int width>
__global__ __launch_bounds__(attention_threads) void attention_delta(const __grid_constant__ AttentionShape s, const T* out, int64_t out_ld, const T* d_out, int64_t d_out_ld,
                                                                     float* delta) {
    constexpr int stride = row_stride<T>(width);
    const typename DeltaBlock<T, width>::Memory memory = take_pieces<DeltaBlock<T, width>>(s);
    const BlockPlace place(tiles_of(s.queries, owned_rows), s.heads);
    const int i0 = place.tile * owned_rows;
    const int64_t row = int64_t{place.row} * s.queries + i0;
    load_tile<T, width, owned_rows, attention_threads>(memory.d_out, d_out + row * d_out_ld + place.head * s.size, d_out_ld, s.queries - i0, s.size, s.aligned);
    load_tile<T, width, owned_rows, attention_threads>(memory.out, out + row * out_ld + place.head * s.size, out_ld, s.queries - i0, s.size, s.aligned);
    copy_async_commit();
    copy_async_wait<0>();
    __syncthreads();
    RowOperand<T, width, 1, false> left;
    left.set(memory.d_out + 16 * warp() * stride);
    Sums<1, 2> products;
    clear<1, 2>(products);
    add_product_transposed<width, 1, 2>(products, left, memory.out + 16 * warp() * stride);
    // On the diagonal: columns 0 to 7 for the upper rows, 8 to 15 for the lower ones.
    if (fragment_column() / 2 != fragment_row() / 2) return;
    float* const to = delta + (int64_t{place.row} * s.heads + place.head) * s.queries;
    const int i = i0 + 16 * warp() + fragment_row(), odd = fragment_row() % 2;
    if (i < s.queries) to[i] = odd ? products[0][0][1] : products[0][0][0];
    if (i + 8 < s.queries) to[i + 8] = odd ? products[0][1][3] : products[0][1][2];
}

/// One block of a sweep. Rows are keys and values if `by_key`, else queries and their d_out; columns are the others.
template <class T, int width, bool by_key>
class GradientBlock {
    static constexpr int rows = owned_rows, columns = (on_tensor_cores<T> ? 64 : 32) / (width > 64 ? 2 : 1), n_tiles = columns / 8;
    static constexpr int stride = row_stride<T>(width), staging = staging_floats<T>(1, n_tiles), column_tile = columns * stride;
    using Bias = TileBias<rows, columns>;
    using Mask = DropoutMask<by_key ? columns : rows, by_key ? rows : columns>;
    using Diagonals = DiagonalSums<rows, columns>;
    using Products = Sums<1, n_tiles>;

public:
    struct Memory {
        T *row_first, *row_second;  // k and v, or q and d_out
        T *first, *second;          // of columns: q and d_out, or k and v. This and what lies by column: twice, the tile at work and the next
        float *staging, *bias, *statistics, *diagonals, *distances;
        int32_t* segments;  // of keys
        uint32_t* mask;
        QueryView* views;
        Sight* sights;
    };
    template <class Take>
    __host__ __device__ static void pieces(const AttentionShape& s, Take&& take) {
        take(&Memory::row_first, rows * stride);
        take(&Memory::row_second, rows * stride);
        take(&Memory::first, 2 * column_tile);
        take(&Memory::second, 2 * column_tile);
        take(&Memory::staging, attention_warps * staging);
        take(&Memory::bias, 2 * Bias::floats);
        take(&Memory::mask, 2 * Mask::words);
        take(&Memory::segments, by_key ? rows : 2 * columns);
        take(&Memory::views, by_key ? 2 * columns : rows);
        take(&Memory::statistics, by_key ? 4 * columns : 0);  // of a stage: shifts, then deltas
        take(&Memory::diagonals, by_key || !s.bias ? 0 : attention_warps * Diagonals::staging_floats);
        take(&Memory::distances, by_key || !s.bias ? 0 : attention_warps * s.distances());
        take(&Memory::sights, tiles_of(by_key ? s.queries : s.keys, columns));
    }

    __device__ __forceinline__ GradientBlock(const AttentionShape& shape, const AttentionTensors<T>& tensors, const GradientTensors<T>& gradients, const BucketBegins& begins)
        : s_(shape), t_(tensors), g_(gradients), begins_(begins), group_(shape.heads / shape.kv_heads), tiles_(tiles_of(by_key ? shape.queries : shape.keys, columns)),
          place_(tiles_of(by_key ? shape.keys : shape.queries, rows), by_key ? shape.kv_heads : shape.heads), memory_(take_pieces<GradientBlock>(shape)),
          r0_(place_.tile * rows) {}

    __device__ __forceinline__ void run() {
        begin();
        const int first_tile = next(0), first_head = by_key ? place_.head * group_ : place_.head, end_head = by_key ? first_head + group_ : first_head + 1;
        int head = first_tile < tiles_ ? first_head : end_head, tile = first_tile, stage = 0;
        if (head < end_head) issue(head, tile, stage);
        copy_async_commit();
        copy_async_wait<0>();
        __syncthreads();
        operand_first_.set(memory_.row_first + warp() * 16 * stride);
        operand_second_.set(memory_.row_second + warp() * 16 * stride);
        while (head < end_head) {
            int next_head = head, next_tile = next(tile + 1);
            if (next_tile == tiles_) ++next_head, next_tile = first_tile;
            if (next_head < end_head) issue(next_head, next_tile, 1 - stage);
            copy_async_commit();
            multiply(tile, stage);
            copy_async_wait<0>();
            __syncthreads();  // the next tile is there, and nobody reads this one any more
            head = next_head, tile = next_tile, stage = 1 - stage;
        }
        finish();
    }

private:
    __device__ __forceinline__ const T* rows_of(const T* tensor, int64_t ld, int length, int head, int first) const {
        return tensor + (int64_t{place_.row} * length + first) * ld + head * s_.size;
    }
    __device__ __forceinline__ int64_t matrix(int head) const { return int64_t{place_.row} * s_.heads + head; }
    /// A finite number in place of -infinity, which queries that see nothing have, makes their probabilities zero.
    __device__ __forceinline__ float shift_of(int head, int i) const {
        const float log_sum = i < s_.queries ? t_.log_sum[matrix(head) * s_.queries + i] : 0.0f;
        return Exponential<T>::shift(log_sum == -INFINITY ? 0.0f : log_sum);
    }
    __device__ __forceinline__ float delta_of(int head, int i) const { return i < s_.queries ? g_.delta[matrix(head) * s_.queries + i] : 0.0f; }

    __device__ __forceinline__ void begin() {
        const int head = place_.head, length = by_key ? s_.keys : s_.queries;
        const Visibility visibility(s_, place_.row);
        const T *first = by_key ? t_.k : t_.q, *second = by_key ? t_.v : g_.d_out;
        const int64_t first_ld = by_key ? t_.k_ld : t_.q_ld, second_ld = by_key ? t_.v_ld : g_.d_out_ld;
        load_tile<T, width, rows, attention_threads>(memory_.row_first, rows_of(first, first_ld, length, head, r0_), first_ld, length - r0_, s_.size, s_.aligned);
        load_tile<T, width, rows, attention_threads>(memory_.row_second, rows_of(second, second_ld, length, head, r0_), second_ld, length - r0_, s_.size, s_.aligned);
        find_sights<rows, columns, by_key>(memory_.sights, visibility, r0_);
        for (int r = static_cast<int>(threadIdx.x); r < rows; r += attention_threads) {
            if constexpr (by_key) memory_.segments[r] = visibility.key_segment(r0_ + r);
            else memory_.views[r] = visibility.view(r0_ + r);
        }
        clear<1, width / 8>(sums_first_);
        if constexpr (by_key) {
            clear<1, width / 8>(sums_second_);
        } else {
            seen_keys_ = visibility.limit(min(r0_ + rows, s_.queries) - 1);
#pragma unroll
            for (int r = 0; r < 2; ++r) {
                const int i = r0_ + 16 * warp() + 8 * r + fragment_row();
                shift_[r] = shift_of(head, i), delta_[r] = delta_of(head, i);
            }
            if (g_.d_bias) diagonals_.begin(memory_.diagonals, memory_.distances, s_);
        }
        __syncthreads();
    }

    /// The first tile from `tile` on that sees a row or is seen.
    __device__ __forceinline__ int next(int tile) const {
        while (tile < tiles_ && memory_.sights[tile] == Sight::none) ++tile;
        return tile;
    }

    /// Starts to bring a tile of columns.
    __device__ __forceinline__ void issue(int head, int tile, int stage) const {
        const int c0 = tile * columns, length = by_key ? s_.queries : s_.keys, valid = (by_key ? s_.queries : seen_keys_) - c0, column_head = by_key ? head : head / group_;
        const T *first = by_key ? t_.q : t_.k, *second = by_key ? g_.d_out : t_.v;
        const int64_t first_ld = by_key ? t_.q_ld : t_.k_ld, second_ld = by_key ? g_.d_out_ld : t_.v_ld;
        load_tile<T, width, columns, attention_threads>(memory_.first + stage * column_tile, rows_of(first, first_ld, length, column_head, c0), first_ld, valid, s_.size, s_.aligned);
        load_tile<T, width, columns, attention_threads>(memory_.second + stage * column_tile, rows_of(second, second_ld, length, column_head, c0), second_ld, valid, s_.size,
                                                        s_.aligned);
        if (s_.bias) Bias::fill(memory_.bias + stage * Bias::floats, s_, head, first_relative(c0), by_key ? -1 : 1);
        if (s_.dropout.active()) Mask::draw(memory_.mask + stage * Mask::words, s_, s_.dropout_matrix(place_.row, head), by_key ? c0 : r0_, by_key ? r0_ : c0);
        for (int c = static_cast<int>(threadIdx.x); c < columns; c += attention_threads) {
            if constexpr (by_key) {
                memory_.views[stage * columns + c] = Visibility(s_, place_.row).view(c0 + c);
                memory_.statistics[2 * stage * columns + c] = shift_of(head, c0 + c);
                memory_.statistics[(2 * stage + 1) * columns + c] = delta_of(head, c0 + c);
            } else {
                memory_.segments[stage * columns + c] = Visibility(s_, place_.row).key_segment(c0 + c);
            }
        }
    }
    /// Relative position of key and query of the tile's first column and the block's last row.
    __device__ __forceinline__ int first_relative(int c0) const {
        const int column_from_row = c0 - (r0_ + rows - 1);
        return (by_key ? -column_from_row : column_from_row) - s_.query_offset;
    }

    __device__ __forceinline__ void multiply(int tile, int stage) {
        const T *first = memory_.first + stage * column_tile, *second = memory_.second + stage * column_tile;
        float* const exchange = memory_.staging + warp() * staging;
        Products p, d_s;
        clear<1, n_tiles>(p);
        clear<1, n_tiles>(d_s);
        add_product_transposed<width, 1, n_tiles>(p, operand_first_, first);
        if (s_.bias) Bias::template add<1>(p, s_.scale, memory_.bias + stage * Bias::floats);
        else for_fragment<1, n_tiles>([&](int m, int n, int e) { p[m][n][e] *= s_.scale; });
        if (memory_.sights[tile] == Sight::some) hide(p, tile, stage);
        add_product_transposed<width, 1, n_tiles>(d_s, operand_second_, second);
        differentiate(p, d_s, stage);
        if constexpr (by_key) add_product<width, 1, n_tiles>(sums_second_, p, second, exchange);
        else if (g_.d_bias) diagonals_.add(d_s, first_relative(tile * columns), s_);
        add_product<width, 1, n_tiles>(sums_first_, d_s, first, exchange);
    }

    /// Scores that are not seen become -infinity, and their probabilities and gradients 0.
    __device__ __forceinline__ void hide(Products& scores, int tile, int stage) const {
        const QueryView* views = memory_.views + (by_key ? stage * columns : 16 * warp());
        const int32_t* segments = memory_.segments + (by_key ? 16 * warp() : stage * columns);
        for_fragment<1, n_tiles>([&](int m, int n, int e) {
            const int row = fragment_row() + e / 2 * 8, column = 8 * n + fragment_column() + e % 2;
            const bool seen = by_key ? views[column].sees(r0_ + 16 * warp() + row, segments[row]) : views[row].sees(tile * columns + column, segments[column]);
            if (!seen) scores[m][n][e] = -INFINITY;
        });
    }

    /// Scores to p f (without the scale of what dropout keeps), and d_out v^T to d_s.
    __device__ __forceinline__ void differentiate(Products& p, Products& d_s, int stage) const {
        const bool drops = s_.dropout.active();
        const float factor = drops ? s_.dropout.scale : 1.0f;
        const uint32_t* mask = memory_.mask + stage * Mask::words;
        const float* statistics = memory_.statistics + (by_key ? 2 * stage * columns : 0);
        for_fragment<1, n_tiles>([&](int m, int n, int e) {
            const int column = 8 * n + fragment_column() + e % 2, row = 16 * warp() + fragment_row() + e / 2 * 8;
            const float value = Exponential<T>::of(p[m][n][e], by_key ? statistics[column] : shift_[e / 2]);
            const float delta = by_key ? statistics[columns + column] : delta_[e / 2];
            const int query = by_key ? column : row, key = by_key ? row : column;
            const bool keep = !drops || (mask[query * Mask::row_words + key / 32] >> (key % 32) & 1);
            d_s[m][n][e] = value * fmaf(keep ? factor : 0.0f, d_s[m][n][e], -delta);
            p[m][n][e] = keep ? value : 0.0f;
        });
    }

    __device__ __forceinline__ void finish() {
        const int r0 = r0_ + 16 * warp(), valid = (by_key ? s_.keys : s_.queries) - r0;
        const float scale[1][2] = {{s_.scale, s_.scale}};
        if constexpr (by_key) {
            const float factor = s_.dropout.active() ? s_.dropout.scale : 1.0f, factors[1][2] = {{factor, factor}};
            store(g_.d_k, g_.d_k_ld, s_.keys, r0, valid, sums_first_, scale, memory_.row_first);
            store(g_.d_v, g_.d_v_ld, s_.keys, r0, valid, sums_second_, factors, memory_.row_second);
        } else {
            store(g_.d_q, g_.d_q_ld, s_.queries, r0, valid, sums_first_, scale, memory_.row_first);
            if (!g_.d_bias) return;
            const int tiles = tiles_of(s_.queries, rows);
            const int64_t block = (int64_t{place_.head} * s_.batch + place_.row) * tiles + place_.tile;
            diagonals_.end(memory_.distances, begins_, s_, g_.d_bias + block * begins_.buckets());
        }
    }
    __device__ __forceinline__ void store(T* to, int64_t ld, int length, int r0, int valid, const Sums<1, width / 8>& sums, const float (&factors)[1][2], T* tile) const {
        store_tile<T, width, 1>(to + (int64_t{place_.row} * length + r0) * ld + place_.head * s_.size, ld, valid, s_.size, s_.aligned, sums, factors, tile + 16 * warp() * stride);
    }

    const AttentionShape& s_;
    const AttentionTensors<T>& t_;
    const GradientTensors<T>& g_;
    const BucketBegins& begins_;
    const int group_, tiles_;
    const BlockPlace place_;
    const Memory memory_;
    const int r0_;
    int seen_keys_ = 0;
    RowOperand<T, width, 1, width <= 64> operand_first_;
    RowOperand<T, width, 1, width <= 64 && !by_key> operand_second_;  // beside the sums of two gradients there are no registers left for it
    Sums<1, width / 8> sums_first_;
    Sums<1, by_key ? width / 8 : 1> sums_second_;
    float shift_[2] = {}, delta_[2] = {};
    Diagonals diagonals_;
};

template <class T, int width, bool by_key>
__global__ __launch_bounds__(attention_threads) void attention_gradient(const __grid_constant__ AttentionShape shape, const __grid_constant__ AttentionTensors<T> tensors,
                                                                        const __grid_constant__ GradientTensors<T> gradients, const __grid_constant__ BucketBegins begins) {
    GradientBlock<T, width, by_key>(shape, tensors, gradients, begins).run();
}

constexpr int adding_warps = 16;

/// Adds the blocks' sums of 32 buckets of a head: each warp every 16th block, then the warps in order.
__global__ void attention_bias_gradient(const float* partial, int64_t blocks, int buckets, float* d_table, int64_t ld) {
    Shared shared;
    float* const sums = shared.take<float>(adding_warps * 32);
    const int head = static_cast<int>(blockIdx.y), bucket = static_cast<int>(blockIdx.x) * 32 + lane();
    float sum = 0;
    if (bucket < buckets)
        for (int64_t n = warp(); n < blocks; n += adding_warps) sum += partial[(head * blocks + n) * buckets + bucket];
    sums[warp() * 32 + lane()] = sum;
    __syncthreads();
    if (warp() != 0 || bucket >= buckets) return;
    for (int w = 1; w < adding_warps; ++w) sum += sums[w * 32 + lane()];
    d_table[bucket * ld + head] += sum;
}

template <class T>
GradientTensors<T> gradient_tensors(const ops::AttentionBackwardArgs& args) {
    return {args.d_out.as<T>(), args.d_q.as<T>(), args.d_k.as<T>(), args.d_v.as<T>(), nullptr, nullptr, args.d_out.ld, args.d_q.ld, args.d_k.ld, args.d_v.ld};
}

template <class T, int width>
void sweep(Context& context, const AttentionShape& shape, const BucketBegins& begins, const AttentionTensors<T>& tensors, GradientTensors<T> gradients, float* d_bias) {
    const int64_t query_blocks = int64_t{shape.batch} * shape.heads * tiles_of(shape.queries, owned_rows);
    const Tensor delta = context.allocate(DType::f32, {shape.batch, shape.heads, shape.queries});
    launch(context, "attention_delta", attention_delta<T, width>, grid_of(query_blocks), attention_threads, bytes_of_pieces<DeltaBlock<T, width>>(shape), shape,
           tensors.out, tensors.out_ld, gradients.d_out, gradients.d_out_ld, delta.as<float>());
    gradients.delta = delta.as<float>(), gradients.d_bias = d_bias;
    launch(context, "attention_gradient of keys and values", attention_gradient<T, width, true>,
           grid_of(int64_t{shape.batch} * shape.kv_heads * tiles_of(shape.keys, owned_rows)), attention_threads, bytes_of_pieces<GradientBlock<T, width, true>>(shape), shape,
           tensors, gradients, begins);
    launch(context, "attention_gradient of queries", attention_gradient<T, width, false>, grid_of(query_blocks), attention_threads,
           bytes_of_pieces<GradientBlock<T, width, false>>(shape), shape, tensors, gradients, begins);
}

}  // namespace

void attention_backward(Context& context, const ops::AttentionBackwardArgs& args) {
    const ops::AttentionArgs& f = args.forward;
    const Arena::Scope scope(context.arena);
    AttentionShape shape = attention_shape(f);
    shape.aligned = shape.aligned && rows_are_aligned({args.d_out, args.d_q, args.d_k, args.d_v}, shape.size);
    const BucketBegins begins = bucket_begins(f.buckets);
    spread_bias(context, f, begins, shape);
    const int64_t blocks = int64_t{shape.batch} * tiles_of(shape.queries, owned_rows);
    float* const d_bias = args.d_bias_table ? context.allocate(DType::f32, {shape.heads, blocks, begins.buckets()}).as<float>() : nullptr;
    with_type_and_width(f.q.dtype, shape.size, [&]<class T, int width>() {
        sweep<T, width>(context, shape, begins, attention_tensors<T>(f), gradient_tensors<T>(args), d_bias);
    });
    if (!d_bias) return;
    launch(context, "attention_bias_gradient", attention_bias_gradient, dim3(static_cast<unsigned>(blocks_for(begins.buckets(), 32)), static_cast<unsigned>(shape.heads)),
           32 * adding_warps, shared_bytes<float>(adding_warps * 32), d_bias, blocks, begins.buckets(), args.d_bias_table.as<float>(), args.d_bias_table.ld);
}

}  // namespace flanmoe::cuda

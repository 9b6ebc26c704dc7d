// Attention forward on the GPU: flash-style, softmax accumulated over tiles of keys, products on tensor cores (bf16) or with FMA (fp32).
//
// A block of 4 warps owns 128 queries (bf16, heads up to 64 wide, more than 64 queries) or 64 of one head; a warp's 32 or 16 rows of scores,
// probabilities and output stay in its registers. While a tile of keys and values is multiplied, the next one is copied to the other half of shared
// memory; one barrier a tile. Two blocks of 16 rows a warp halve what it reads from shared memory for a product (8 KiB for 64 x 64 of keys), which
// otherwise bounds it.
//
// bf16, heads of 64: at most 255 registers, nothing spilled (sm_80, sm_90a), 63 KiB of shared memory: 2 blocks a multiprocessor.
// Counted: 4 Sq Sk 64 FLOPs a head on tensor cores; a score takes one exponential and about 10 fp32 and integer instructions (20 more for dropout); global
// memory (2 Sq + 2 Sk) * 128 bytes a head, tiles of later queries come from L2. Predicted for an H100 with 128 rows of 512, 12 heads of 64: 0.17 ms of tensor
// cores (103 GFLOP at the 600 TFLOP/s of mma.sync), 0.11 ms of exponentials and 0.14 ms of other instructions beside them: 0.25 to 0.4 ms. Not yet
// measured on hardware.
#include "attention_tile.cuh"

namespace flanmoe::cuda {

namespace {

template <class T, int width, int m_tiles>
class ForwardBlock {
    static constexpr int columns = on_tensor_cores<T> ? 64 : 32, n_tiles = columns / 8;
    static constexpr int stride = row_stride<T>(width), warp_rows = 16 * m_tiles;

public:
    static constexpr int rows = attention_warps * warp_rows;
    using Bias = TileBias<rows, columns>;
    using Mask = DropoutMask<rows, columns>;

    struct Memory {
        T *queries, *keys, *values;  // keys, values and what follows twice: the tile at work and the next
        float *staging, *bias;
        int32_t* segments;
        uint32_t* mask;
        QueryView* views;
        Sight* sights;
    };
    template <class Take>
    __host__ __device__ static void pieces(const AttentionShape& s, Take&& take) {
        take(&Memory::queries, rows * stride);
        take(&Memory::keys, 2 * columns * stride);
        take(&Memory::values, 2 * columns * stride);
        take(&Memory::staging, attention_warps * staging_floats<T>(m_tiles, n_tiles));
        take(&Memory::bias, 2 * Bias::floats);
        take(&Memory::segments, 2 * columns);
        take(&Memory::mask, 2 * Mask::words);
        take(&Memory::views, rows);
        take(&Memory::sights, tiles_of(s.keys, columns));
    }

    __device__ __forceinline__ ForwardBlock(const AttentionShape& shape, const AttentionTensors<T>& tensors)
        : s_(shape), t_(tensors), place_(tiles_of(shape.queries, rows), shape.heads), memory_(take_pieces<ForwardBlock>(shape)),
          first_query_(place_.tile * rows), kv_head_(place_.head / (shape.heads / shape.kv_heads)) {}

    __device__ __forceinline__ void run() {
        begin();
        int tile = next(0), stage = 0;
        if (tile < tiles_of(s_.keys, columns)) issue(tile, stage);
        copy_async_commit();
        copy_async_wait<0>();
        __syncthreads();
        queries_.set(memory_.queries + warp() * warp_rows * stride);
        while (tile < tiles_of(s_.keys, columns)) {
            const int following = next(tile + 1);
            if (following < tiles_of(s_.keys, columns)) issue(following, 1 - stage);
            copy_async_commit();
            attend(tile, stage);
            copy_async_wait<0>();
            __syncthreads();  // the next tile is there, and nobody reads this one any more
            tile = following, stage = 1 - stage;
        }
        finish();
    }

private:
    __device__ __forceinline__ void begin() {
        const Visibility visibility(s_, place_.row);
        seen_keys_ = visibility.limit(min(first_query_ + rows, s_.queries) - 1);
        load_tile<T, width, rows, attention_threads>(memory_.queries, head_rows(t_.q, t_.q_ld, s_.queries, place_.head) + first_query_ * t_.q_ld, t_.q_ld,
                                                     s_.queries - first_query_, s_.size, s_.aligned);
        for (int r = static_cast<int>(threadIdx.x); r < rows; r += attention_threads) memory_.views[r] = visibility.view(first_query_ + r);
        find_sights<rows, columns, false>(memory_.sights, visibility, first_query_);
        clear<m_tiles, width / 8>(out_);
#pragma unroll
        for (int m = 0; m < m_tiles; ++m)
#pragma unroll
            for (int r = 0; r < 2; ++r) largest_[m][r] = -INFINITY, sum_[m][r] = 0;
        __syncthreads();
    }

    /// The first tile from `tile` on that is seen.
    __device__ __forceinline__ int next(int tile) const {
        while (tile < tiles_of(s_.keys, columns) && memory_.sights[tile] == Sight::none) ++tile;
        return tile;
    }

    /// Starts to bring a tile of keys. What no query of the block may see yet is not read: a cache may hold anything there.
    __device__ __forceinline__ void issue(int tile, int stage) const {
        const int j0 = tile * columns;
        load_tile<T, width, columns, attention_threads>(memory_.keys + stage * columns * stride, head_rows(t_.k, t_.k_ld, s_.keys, kv_head_) + j0 * t_.k_ld, t_.k_ld,
                                                        seen_keys_ - j0, s_.size, s_.aligned);
        load_tile<T, width, columns, attention_threads>(memory_.values + stage * columns * stride, head_rows(t_.v, t_.v_ld, s_.keys, kv_head_) + j0 * t_.v_ld,
                                                        t_.v_ld, seen_keys_ - j0, s_.size, s_.aligned);
        if (s_.bias) Bias::fill(memory_.bias + stage * Bias::floats, s_, place_.head, j0 - first_query_ - (rows - 1) - s_.query_offset, 1);
        if (s_.dropout.active()) Mask::draw(memory_.mask + stage * Mask::words, s_, s_.dropout_matrix(place_.row, place_.head), first_query_, j0);
        for (int j = static_cast<int>(threadIdx.x); j < columns; j += attention_threads) memory_.segments[stage * columns + j] = Visibility(s_, place_.row).key_segment(j0 + j);
    }

    /// One tile: scores, probabilities relative to the largest score so far, output.
    __device__ __forceinline__ void attend(int tile, int stage) {
        Sums<m_tiles, n_tiles> scores;
        clear<m_tiles, n_tiles>(scores);
        add_product_transposed<width, m_tiles, n_tiles>(scores, queries_, memory_.keys + stage * columns * stride);
        if (s_.bias) Bias::template add<m_tiles>(scores, s_.scale, memory_.bias + stage * Bias::floats);
        else for_fragment<m_tiles, n_tiles>([&](int m, int n, int e) { scores[m][n][e] *= s_.scale; });
        if (memory_.sights[tile] == Sight::some) hide(scores, tile, stage);
#pragma unroll
        for (int m = 0; m < m_tiles; ++m)
#pragma unroll
            for (int r = 0; r < 2; ++r) to_probabilities(scores[m], m, r);
        if (s_.dropout.active()) drop(scores, stage);
        add_product<width, m_tiles, n_tiles>(out_, scores, memory_.values + stage * columns * stride, memory_.staging + warp() * staging_floats<T>(m_tiles, n_tiles));
    }

    __device__ __forceinline__ void hide(Sums<m_tiles, n_tiles>& scores, int tile, int stage) const {
        const int32_t* segments = memory_.segments + stage * columns;
#pragma unroll
        for (int m = 0; m < m_tiles; ++m)
#pragma unroll
            for (int r = 0; r < 2; ++r) {
                const QueryView view = memory_.views[warp() * warp_rows + 16 * m + 8 * r + fragment_row()];
#pragma unroll
                for (int n = 0; n < n_tiles; ++n)
#pragma unroll
                    for (int odd = 0; odd < 2; ++odd) {
                        const int column = 8 * n + fragment_column() + odd;
                        if (!view.sees(tile * columns + column, segments[column])) scores[m][n][2 * r + odd] = -INFINITY;
                    }
            }
    }

    /// Row 16 m + 8 r of this thread. A NaN among the scores is no maximum, but shows in the sum and in the output.
    __device__ __forceinline__ void to_probabilities(float (&scores)[n_tiles][4], int m, int r) {
        float largest = largest_[m][r];
#pragma unroll
        for (int n = 0; n < n_tiles; ++n) largest = fmaxf(largest, fmaxf(scores[n][2 * r], scores[n][2 * r + 1]));
        largest = fmaxf(largest, __shfl_xor_sync(full_mask, largest, 1));
        largest = fmaxf(largest, __shfl_xor_sync(full_mask, largest, 2));
        const float shift = Exponential<T>::shift(largest == -INFINITY ? 0.0f : largest), rescale = Exponential<T>::of(largest_[m][r], shift);
        largest_[m][r] = largest;
        float sum = 0;
#pragma unroll
        for (int n = 0; n < n_tiles; ++n)
#pragma unroll
            for (int odd = 0; odd < 2; ++odd) {
                const float p = Exponential<T>::of(scores[n][2 * r + odd], shift);
                scores[n][2 * r + odd] = p;
                sum += p;
            }
        sum_[m][r] = sum_[m][r] * rescale + sum;
#pragma unroll
        for (int n = 0; n < width / 8; ++n) out_[m][n][2 * r] *= rescale, out_[m][n][2 * r + 1] *= rescale;
    }

    /// What is kept is scaled at the end, all at once.
    __device__ __forceinline__ void drop(Sums<m_tiles, n_tiles>& p, int stage) const {
#pragma unroll
        for (int m = 0; m < m_tiles; ++m)
#pragma unroll
            for (int r = 0; r < 2; ++r) {
                const uint32_t* kept = memory_.mask + stage * Mask::words + (warp() * warp_rows + 16 * m + 8 * r + fragment_row()) * Mask::row_words;
#pragma unroll
                for (int n = 0; n < n_tiles; ++n)
#pragma unroll
                    for (int odd = 0; odd < 2; ++odd)
                        if ((kept[n / 4] >> (8 * (n % 4) + fragment_column() + odd) & 1) == 0) p[m][n][2 * r + odd] = 0;
            }
    }

    __device__ __forceinline__ void finish() {
        float factor[m_tiles][2];
        const int r0 = first_query_ + warp() * warp_rows;
#pragma unroll
        for (int m = 0; m < m_tiles; ++m)
#pragma unroll
            for (int r = 0; r < 2; ++r) {
                float sum = sum_[m][r];
                sum += __shfl_xor_sync(full_mask, sum, 1);
                sum += __shfl_xor_sync(full_mask, sum, 2);
                const float inverse = sum == 0 ? 0.0f : 1 / sum;
                factor[m][r] = s_.dropout.active() ? inverse * s_.dropout.scale : inverse;
                const int i = r0 + 16 * m + 8 * r + fragment_row();
                if (t_.log_sum && fragment_column() == 0 && i < s_.queries) t_.log_sum[matrix() * s_.queries + i] = sum == 0 ? -INFINITY : largest_[m][r] + logf(sum);
            }
        T* out = t_.out + (int64_t{place_.row} * s_.queries + r0) * t_.out_ld + place_.head * s_.size;
        store_tile<T, width, m_tiles>(out, t_.out_ld, s_.queries - r0, s_.size, s_.aligned, out_, factor, memory_.queries + warp() * warp_rows * stride);
    }

    /// Number of the matrix of scores.
    __device__ __forceinline__ int64_t matrix() const { return int64_t{place_.row} * s_.heads + place_.head; }
    __device__ __forceinline__ const T* head_rows(const T* tensor, int64_t ld, int length, int head) const {
        return tensor + int64_t{place_.row} * length * ld + head * s_.size;
    }

    const AttentionShape& s_;
    const AttentionTensors<T>& t_;
    const BlockPlace place_;
    const Memory memory_;
    const int first_query_, kv_head_;
    int seen_keys_;
    RowOperand<T, width, m_tiles, m_tiles == 1> queries_;
    Sums<m_tiles, width / 8> out_;
    float largest_[m_tiles][2], sum_[m_tiles][2];
};

template <class T, int width, int m_tiles>
__global__ __launch_bounds__(attention_threads) void attention_forward(const __grid_constant__ AttentionShape shape, const __grid_constant__ AttentionTensors<T> tensors) {
    ForwardBlock<T, width, m_tiles>(shape, tensors).run();
}

template <class T, int width, int m_tiles>
void launch_forward(Context& context, const AttentionShape& shape, const AttentionTensors<T>& tensors) {
    using Block = ForwardBlock<T, width, m_tiles>;
    const int64_t blocks = int64_t{shape.batch} * shape.heads * tiles_of(shape.queries, Block::rows);
    launch(context, "attention_forward", attention_forward<T, width, m_tiles>, grid_of(blocks), attention_threads, bytes_of_pieces<Block>(shape), shape, tensors);
}

}  // namespace

void attention(Context& context, const ops::AttentionArgs& args) {
    if (args.q.shape[1] <= ops::few_queries) return attend_few(context, args);
    Arena::Scope scope(context.arena);
    AttentionShape shape = attention_shape(args);
    spread_bias(context, args, bucket_begins(args.buckets), shape);
    with_type_and_width(args.q.dtype, shape.size, [&]<class T, int width>() {
        constexpr int most = on_tensor_cores<T> && width <= 64 ? 2 : 1;
        if (shape.queries > 16 * attention_warps) launch_forward<T, width, most>(context, shape, attention_tensors<T>(args));
        else launch_forward<T, width, 1>(context, shape, attention_tensors<T>(args));
    });
}

}  // namespace flanmoe::cuda

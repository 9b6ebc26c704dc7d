// Attention of a few queries over many keys (a step of decoding over a cache): bound by reading keys and values once.
//
// A block owns one query of one head and 256 keys, always, so that sums have the same order on every device; a second kernel joins the pieces
// in order, if there are several. Keys may lie in other rows than the query's (beams): a table says where. A key's row is read by 4, 8 or 16 lanes, 8 elements each; keys that are not seen are not read. Counted: 2 * size * Sk elements
// a head and query; 8 rows x 12 heads x 512 keys x 64 in bf16: 12.6 MB, 4 us at 3 TB/s. Not yet measured on hardware.
#include "attention_tile.cuh"

namespace flanmoe::cuda {

namespace {

constexpr int chunk_keys = 256;

/// What a block of keys contributes: largest score, sum of exponentials relative to it, and the values summed with those weights.
struct Piece {
    float *largest, *sum, *value;  ///< [queries of all heads and rows, chunks], [.., chunks], [.., chunks, size]; null if there is one chunk
    int chunks;
};

template <class T, int width>
class FewBlock {
    static constexpr int lanes = width <= 32 ? 4 : width <= 64 ? 8 : 16, keys_at_once = 32 / lanes;  // of a warp
    static constexpr int groups = attention_warps * keys_at_once;

public:
    struct Memory {
        float *weights, *reduced, *partial;
        T* query;
    };
    template <class Take>
    __host__ __device__ static void pieces(const AttentionShape&, Take&& take) {
        take(&Memory::weights, chunk_keys);
        take(&Memory::reduced, block_sum_piece);
        take(&Memory::partial, attention_warps * lanes * 8);
        take(&Memory::query, lanes * 8);
    }

    __device__ __forceinline__ FewBlock(const AttentionShape& shape, const AttentionTensors<T>& tensors, const Piece& piece)
        : s_(shape), t_(tensors), piece_(piece), memory_(take_pieces<FewBlock>(shape)), chunk_(static_cast<int>(blockIdx.x % static_cast<unsigned>(piece.chunks))),
          query_(static_cast<int>(blockIdx.x / static_cast<unsigned>(piece.chunks))), i_(query_ % shape.queries), matrix_(query_ / shape.queries),
          row_(matrix_ / shape.heads), head_(matrix_ % shape.heads), visibility_(shape, row_) {}

    __device__ __forceinline__ void run() {
        const T* q = t_.q + (int64_t{row_} * s_.queries + i_) * t_.q_ld + head_ * s_.size;
        for (int e = static_cast<int>(threadIdx.x); e < lanes * 8; e += attention_threads) memory_.query[e] = e < s_.size ? q[e] : from_float<T>(0);
        __syncthreads();
        score();
        __syncthreads();
        const float largest = normalise();
        sum_values(largest);
    }

private:
    /// Eight elements of a row of keys or values.
    __device__ __forceinline__ void load_eight(const T* row, float (&x)[8]) const {
        const int begin = lane() % lanes * 8;
        if (s_.aligned && begin < s_.size) {
            constexpr int n = 16 / static_cast<int>(sizeof(T));
#pragma unroll
            for (int part = 0; part < 8 / n; ++part) {
                if (begin + part * n < s_.size) {
                    const Vec<T, n> v = load_vec<n>(row + begin + part * n);
#pragma unroll
                    for (int e = 0; e < n; ++e) x[part * n + e] = to_float(v[e]);
                } else {
#pragma unroll
                    for (int e = 0; e < n; ++e) x[part * n + e] = 0;
                }
            }
        } else {
#pragma unroll
            for (int e = 0; e < 8; ++e) x[e] = begin + e < s_.size ? to_float(row[begin + e]) : 0.0f;
        }
    }
    /// Key or value j of the block's row and head.
    __device__ __forceinline__ const T* row_of(const T* tensor, int64_t ld, int j) const {
        const int row = s_.key_rows ? s_.key_rows[int64_t{row_} * s_.keys + j] : row_;
        return tensor + (int64_t{row} * s_.keys + j) * ld + head_ / (s_.heads / s_.kv_heads) * s_.size;
    }

    __device__ __forceinline__ void score() const {
        const QueryView view = visibility_.view(i_);
        const int begin = lane() % lanes * 8, first = warp() * keys_at_once + lane() / lanes;
        float q[8];
#pragma unroll
        for (int e = 0; e < 8; ++e) q[e] = to_float(memory_.query[begin + e]);
#pragma unroll 4
        for (int n = 0; n < chunk_keys / groups; ++n) {
            const int slot = n * groups + first, j = chunk_ * chunk_keys + slot;
            const bool seen = j < s_.keys && view.sees(j, visibility_.key_segment(j));
            float sum = 0;
            if (seen) {
                float k[8];
                load_eight(row_of(t_.k, t_.k_ld, j), k);
#pragma unroll
                for (int e = 0; e < 8; ++e) sum = fmaf(q[e], k[e], sum);
            }
#pragma unroll
            for (int distance = lanes / 2; distance > 0; distance /= 2) sum += __shfl_xor_sync(full_mask, sum, distance);
            if (lane() % lanes == 0) {
                sum *= s_.scale;
                if (s_.bias) sum += s_.bias[int64_t{head_} * s_.distances() + s_.left + min(max(j - i_ - s_.query_offset, -s_.left), s_.right)];
                memory_.weights[slot] = seen ? sum : -INFINITY;
            }
        }
    }

    /// Scores to exponentials, dropped ones to 0. Returns the largest score.
    __device__ __forceinline__ float normalise() {
        static_assert(chunk_keys == 2 * attention_threads);
        float* mine = memory_.weights + threadIdx.x;
        const float largest = block_max(fmaxf(mine[0], mine[attention_threads]), memory_.reduced);
        const float base = largest == -INFINITY ? 0.0f : largest;
        float sum = 0;
        for (int n = 0; n < 2; ++n) {
            float& weight = mine[n * attention_threads];
            weight = expf(weight - base);
            sum += weight;
            const int j = chunk_ * chunk_keys + static_cast<int>(threadIdx.x) + n * attention_threads;
            if (s_.dropout.active()) weight *= s_.dropout.factor(static_cast<uint64_t>((s_.dropout_matrix(row_, head_) * s_.queries + i_) * s_.keys + j));
        }
        sum_ = block_sum(sum, memory_.reduced);
        return largest;
    }
    __device__ __forceinline__ void sum_values(float largest) const {
        const int first = warp() * keys_at_once + lane() / lanes;
        float sums[8] = {};
#pragma unroll 4
        for (int n = 0; n < chunk_keys / groups; ++n) {
            const int slot = n * groups + first;
            const float weight = memory_.weights[slot];
            if (weight == 0) continue;  // not seen, dropped, or too small to count: the value is not read
            float v[8];
            load_eight(row_of(t_.v, t_.v_ld, chunk_ * chunk_keys + slot), v);
#pragma unroll
            for (int e = 0; e < 8; ++e) sums[e] = fmaf(weight, v[e], sums[e]);
        }
#pragma unroll
        for (int distance = lanes; distance < 32; distance *= 2)
#pragma unroll
            for (int e = 0; e < 8; ++e) sums[e] += __shfl_xor_sync(full_mask, sums[e], distance);
        if (lane() < lanes)
            for (int e = 0; e < 8; ++e) memory_.partial[warp() * lanes * 8 + lane() * 8 + e] = sums[e];
        __syncthreads();
        write(largest);
    }

    __device__ __forceinline__ void write(float largest) const {
        const int e = static_cast<int>(threadIdx.x);
        const int64_t at = int64_t{query_} * piece_.chunks + chunk_;
        if (e < s_.size) {
            float sum = 0;
            for (int w = 0; w < attention_warps; ++w) sum += memory_.partial[w * lanes * 8 + e];
            if (piece_.value) piece_.value[at * s_.size + e] = sum;
            else t_.out[(int64_t{row_} * s_.queries + i_) * t_.out_ld + head_ * s_.size + e] = from_float<T>(sum_ == 0 ? 0.0f : sum / sum_);
        }
        if (e != 0) return;
        if (piece_.value) piece_.largest[at] = largest, piece_.sum[at] = sum_;
        else if (t_.log_sum) t_.log_sum[query_] = sum_ == 0 ? -INFINITY : largest + logf(sum_);
    }

    const AttentionShape& s_;
    const AttentionTensors<T>& t_;
    const Piece& piece_;
    const Memory memory_;
    const int chunk_, query_, i_, matrix_, row_, head_;  // query_: counted over rows, heads and queries, as in log_sum
    const Visibility visibility_;
    float sum_ = 0;
};

template <class T, int width>
__global__ __launch_bounds__(attention_threads) void attention_few(const __grid_constant__ AttentionShape shape, const __grid_constant__ AttentionTensors<T> tensors,
                                                                   const __grid_constant__ Piece piece) {
    FewBlock<T, width>(shape, tensors, piece).run();
}

/// Joins the pieces of one query in the order of the keys.
template <class T>
__global__ void attention_join(const __grid_constant__ AttentionShape s, const __grid_constant__ AttentionTensors<T> t, const __grid_constant__ Piece piece) {
    const int query = static_cast<int>(blockIdx.x), i = query % s.queries, matrix = query / s.queries, row = matrix / s.heads, head = matrix % s.heads;
    const int64_t first = int64_t{query} * piece.chunks;
    float largest = -INFINITY;
    for (int c = 0; c < piece.chunks; ++c) largest = fmaxf(largest, piece.largest[first + c]);
    const float base = largest == -INFINITY ? 0.0f : largest;
    const int e = static_cast<int>(threadIdx.x);
    float sum = 0, value = 0;
    for (int c = 0; c < piece.chunks; ++c) {
        const float weight = expf(piece.largest[first + c] - base);
        sum += weight * piece.sum[first + c];
        if (e < s.size) value += weight * piece.value[(first + c) * s.size + e];
    }
    if (e < s.size) t.out[(int64_t{row} * s.queries + i) * t.out_ld + head * s.size + e] = from_float<T>(sum == 0 ? 0.0f : value / sum);
    if (e == 0 && t.log_sum) t.log_sum[query] = sum == 0 ? -INFINITY : largest + logf(sum);
}

}  // namespace

void attend_few(Context& context, const ops::AttentionArgs& args) {
    Arena::Scope scope(context.arena);
    AttentionShape shape = attention_shape(args);
    spread_bias(context, args, bucket_begins(args.buckets), shape);
    // The part of a cache that no position allows is not visited. How far prefixes reach is known to the device alone.
    const int64_t reach = shape.causal && !shape.prefix_ends ? std::min<int64_t>(shape.keys, shape.query_offset + shape.queries) : shape.keys;
    const int64_t queries = int64_t{shape.batch} * shape.heads * shape.queries, chunks = std::max<int64_t>(1, (reach + chunk_keys - 1) / chunk_keys);
    Piece piece{nullptr, nullptr, nullptr, static_cast<int>(chunks)};
    if (chunks > 1) {
        piece.largest = context.allocate(DType::f32, {queries, chunks}).template as<float>();
        piece.sum = context.allocate(DType::f32, {queries, chunks}).template as<float>();
        piece.value = context.allocate(DType::f32, {queries, chunks, shape.size}).template as<float>();
    }
    with_type_and_width(args.q.dtype, shape.size, [&]<class T, int width>() {
        const AttentionTensors<T> tensors = attention_tensors<T>(args);
        launch(context, "attention_few", attention_few<T, width>, grid_of(queries * chunks), dim3(attention_threads), bytes_of_pieces<FewBlock<T, width>>(shape), shape,
               tensors, piece);
        if (chunks > 1) launch(context, "attention_join", attention_join<T>, grid_of(queries), dim3(128), 0, shape, tensors, piece);
    });
}

}  // namespace flanmoe::cuda

// What the kernels of attention share: the problem as they see it, which tiles and elements are visible, bias by distance, dropout bits, exponentials.
//
// A block of 128 threads owns a tile of rows (queries, or keys in the backward) of one head of one batch row and sweeps over tiles of columns. Before the
// sweep its warps decide for each tile of columns whether none, some or all of it is seen, from the positions and from the segments that really occur in it:
// tiles that nobody sees are neither loaded nor computed, and only those seen in part ask element by element.
//
// Bias: a kernel spreads the table over the distances that have buckets of their own (attention_bias, at most 2 * max_distance + 1 a head). A tile of
// R rows and C columns has R + C - 1 distances, kept in shared memory; as a thread's rows are 8 apart and its columns too, elements (row, column)
// and (row + 8, column + 8) share an entry, and a thread reads columns/8 + 1 pairs instead of columns/4. A second copy, shifted by one, aligns the odd ones.
// Dropout: a Philox block serves eight elements of a query's row; the block of threads draws a tile's bits once, 1 bit an element, whatever the alignment.
#pragma once

#include "launch.hpp"
#include "ops/attention.hpp"
#include "tile_product.cuh"

#include <climits>
#include <cmath>

namespace flanmoe::cuda {

constexpr int attention_threads = 128, attention_warps = 4;

// ---- the problem ----------------------------------------------------------------------------------------------------------------------

struct AttentionShape {
    int batch, heads, kv_heads, queries, keys, size;  ///< size: of a head
    float scale;
    bool causal, aligned;  ///< aligned: rows of all tensors begin at multiples of 16 bytes
    int query_offset, window;  ///< window: INT_MAX without one
    const int32_t *query_segments, *key_segments, *prefix_ends, *key_rows;
    const float* bias;  ///< [heads, left + 1 + right] by distance key - query, clamped to [-left, right]
    int left, right;
    Dropout dropout;
    int dropout_heads;  ///< heads of the whole layer

    __host__ __device__ int distances() const { return left + 1 + right; }
    /// Number of a matrix of scores in the layer, which keys its dropout.
    __device__ int64_t dropout_matrix(int row, int head) const { return int64_t{row} * dropout_heads + head; }
};

template <class T>
struct AttentionTensors {
    const T *q, *k, *v;
    T* out;
    float* log_sum;
    int64_t q_ld, k_ld, v_ld, out_ld;
};

/// First distance of each bucket of one direction.
struct BucketBegins {
    static constexpr int most = 512;
    int count = 0;
    bool bidirectional = false;
    int begin[most] = {};

    __host__ __device__ int last() const { return begin[count - 1]; }
    __host__ __device__ int buckets() const { return bidirectional ? 2 * count : count; }
    /// Bucket of relative position key - query.
    __host__ __device__ int of(int relative) const {
        const int distance = relative < 0 ? -relative : bidirectional ? relative : 0;
        int low = 0, high = count;  // the last bucket that begins at `distance` or before lies in [low, high)
        while (high - low > 1) {
            const int middle = (low + high) / 2;
            if (begin[middle] <= distance) low = middle;
            else high = middle;
        }
        return low + (bidirectional && relative > 0 ? count : 0);
    }
};

AttentionShape attention_shape(const ops::AttentionArgs& args);
template <class T>
AttentionTensors<T> attention_tensors(const ops::AttentionArgs& args) {
    return {args.q.as<T>(), args.k.as<T>(), args.v.as<T>(), args.out.as<T>(), args.log_sum ? args.log_sum.as<float>() : nullptr, args.q.ld, args.k.ld, args.v.ld, args.out.ld};
}
/// Rows begin at multiples of 16 bytes, and so does every head in them.
bool rows_are_aligned(std::initializer_list<Tensor> tensors, int64_t size);
BucketBegins bucket_begins(const ops::BucketRule& rule);
/// Spreads the bias table over distances: memory of the context's arena, entered into the shape. Without a table, nothing.
void spread_bias(Context& context, const ops::AttentionArgs& args, const BucketBegins& begins, AttentionShape& shape);
/// attention() for a few queries: split over keys.
void attend_few(Context& context, const ops::AttentionArgs& args);

[[noreturn]] void refuse_width(int64_t size);
/// Calls body.template operator()<T, width>() for the type and the least supported width that holds the heads.
template <class Body>
void with_type_and_width(DType type, int64_t size, Body&& body) {
    with_storage(type, [&]<class T>() {
        if (size <= 32) body.template operator()<T, 32>();
        else if (size <= 64) body.template operator()<T, 64>();
        else if (size <= 96) body.template operator()<T, 96>();
        else if (size <= 128) body.template operator()<T, 128>();
        else refuse_width(size);
    });
}

/// Which tile of which head of which batch row a block owns.
struct BlockPlace {
    int row, head, tile;
    __device__ BlockPlace(int tiles, int heads) {
        const unsigned block = blockIdx.x, matrix = block / static_cast<unsigned>(tiles);
        tile = static_cast<int>(block % static_cast<unsigned>(tiles));
        row = static_cast<int>(matrix / static_cast<unsigned>(heads)), head = static_cast<int>(matrix % static_cast<unsigned>(heads));
    }
};
inline dim3 grid_of(int64_t blocks) {
    require(blocks <= INT_MAX, "fewer than 2^31 tiles of attention; use smaller micro-batches");
    return dim3(static_cast<unsigned>(blocks));
}
__host__ __device__ constexpr int tiles_of(int length, int tile) { return (length + tile - 1) / tile; }

/// A block's shared memory: Block::pieces names each piece of Block::Memory with its length, here for the host, there for the device.
template <class Block>
size_t bytes_of_pieces(const AttentionShape& shape) {
    size_t bytes = 0;
    Block::pieces(shape, [&]<class U>(U* Block::Memory::*, int count) { bytes += shared_bytes<U>(count); });
    return bytes;
}
template <class Block>
__device__ __forceinline__ typename Block::Memory take_pieces(const AttentionShape& shape) {
    typename Block::Memory memory;
    Shared shared;
    Block::pieces(shape, [&]<class U>(U* Block::Memory::*piece, int count) { memory.*piece = shared.take<U>(count); });
    return memory;
}

// ---- visibility -----------------------------------------------------------------------------------------------------------------------

enum class Sight : uint8_t { none, some, all };

/// What one query sees.
struct alignas(16) QueryView {
    int segment, first, limit, unused;  ///< keys [first, limit) by position
    __device__ bool sees(int key, int key_segment) const {
        return key >= first && key < limit && key_segment != 0 && (segment == 0 || segment == key_segment);
    }
};

/// Segments that occur in a tile; low > high if there are none but padding.
struct TileSegments {
    int low = 1, high = 1;
    bool padding = false;
};
/// By one warp. Without segments, everything is of segment 1.
__device__ inline TileSegments segments_in(const int32_t* segments, int begin, int end) {
    if (!segments) return {};
    int low = INT_MAX, high = 0, padding = 0;
    for (int i = begin + lane(); i < end; i += 32) {
        const int segment = segments[i];
        low = min(low, segment == 0 ? INT_MAX : segment), high = max(high, segment), padding |= segment == 0;
    }
    return {__reduce_min_sync(full_mask, low), __reduce_max_sync(full_mask, high), __any_sync(full_mask, padding) != 0};
}

/// Of one batch row.
struct Visibility {
    const int32_t *query, *key, *prefix_end;  ///< null without
    int queries, keys, offset, window;
    bool causal;

    __device__ Visibility(const AttentionShape& s, int row)
        : query(s.query_segments ? s.query_segments + int64_t{row} * s.queries : nullptr), key(s.key_segments ? s.key_segments + int64_t{row} * s.keys : nullptr),
          prefix_end(s.prefix_ends ? s.prefix_ends + int64_t{row} * s.queries : nullptr), queries(s.queries), keys(s.keys), offset(s.query_offset),
          window(s.window), causal(s.causal) {}

    /// Keys from 0 that query i sees by position; never less for a later query.
    __device__ int limit(int i) const {
        if (!causal) return keys;
        const int seen = i + offset + 1;
        return min(max(prefix_end ? max(prefix_end[i], seen) : seen, 0), keys);
    }
    /// Keys before this one lie outside of query i's window.
    __device__ int first(int i) const { return causal ? max(0, i + offset + 1 - window) : 0; }
    __device__ QueryView view(int i) const {
        if (i >= queries) return {0, 0, 0, 0};
        return {query ? query[i] : 1, first(i), limit(i), 0};
    }
    __device__ int key_segment(int j) const { return j >= keys ? 0 : key ? key[j] : 1; }

    /// What queries [i0, i1) see of keys [j0, j1); `whole`: no row or column of the tile lies beyond the ends.
    __device__ Sight sight(int i0, int i1, const TileSegments& q, int j0, int j1, const TileSegments& k, bool whole) const {
        if (j0 >= limit(i1 - 1) || j1 <= first(i0)) return Sight::none;
        const bool any_key = k.low <= k.high, any_query = q.low <= q.high;
        if (!any_key) return Sight::none;
        if (!q.padding && !(any_query && q.low <= k.high && k.low <= q.high)) return Sight::none;
        const bool same = k.low == k.high && !k.padding && (!any_query || (q.low == q.high && q.low == k.low));
        return whole && same && j1 <= limit(i0) && first(i1 - 1) <= j0 ? Sight::all : Sight::some;
    }
};

/// The sight of every tile of columns, for rows from r0. Ends without a barrier.
template <int rows, int columns, bool rows_are_keys>
__device__ void find_sights(Sight* sights, const Visibility& v, int r0) {
    const int row_count = rows_are_keys ? v.keys : v.queries, column_count = rows_are_keys ? v.queries : v.keys, r1 = min(r0 + rows, row_count);
    const bool by_segment = v.key != nullptr;
    const int32_t *row_segments = by_segment ? (rows_are_keys ? v.key : v.query) : nullptr, *column_segments = by_segment ? (rows_are_keys ? v.query : v.key) : nullptr;
    const TileSegments own = segments_in(row_segments, r0, r1);
    for (int tile = warp(); tile < tiles_of(column_count, columns); tile += attention_warps) {
        const int c0 = tile * columns, c1 = min(c0 + columns, column_count);
        const TileSegments other = segments_in(column_segments, c0, c1);
        const bool whole = r1 - r0 == rows && c1 - c0 == columns;
        const Sight sight = rows_are_keys ? v.sight(c0, c1, other, r0, r1, own, whole) : v.sight(r0, r1, own, c0, c1, other, whole);
        if (lane() == 0) sights[tile] = sight;
    }
}

// ---- scores ---------------------------------------------------------------------------------------------------------------------------

/// The bias of a tile by column - row: entry x belongs to column - row = x - (rows - 1).
template <int rows, int columns>
struct TileBias {
    static constexpr int length = rows + columns, floats = 2 * length;

    /// By the whole block. `first`: relative position of entry 0; `step` 1, or -1 where the rows are keys.
    __device__ static void fill(float* to, const AttentionShape& s, int head, int first, int step) {
        const float* bias = s.bias + int64_t{head} * s.distances() + s.left;
        for (int x = static_cast<int>(threadIdx.x); x < length; x += attention_threads) {
            const float value = bias[min(max(first + step * x, -s.left), s.right)];
            to[x] = value;
            if (x > 0) to[length + x - 1] = value;
        }
    }
    /// sums = sums * scale + bias, for this warp's 16 * m_tiles rows.
    template <int m_tiles>
    __device__ __forceinline__ static void add(Sums<m_tiles, columns / 8>& sums, float scale, const float* tile) {
        constexpr int before = 2 * m_tiles - 1;  // pairs to the left of this thread's first columns that its later rows need
        const int x = rows - 1 - 16 * m_tiles * warp() - fragment_row() + fragment_column() - 8 * before;
        const float* from = tile + (x % 2 == 0 ? x : length + x - 1);
        Vec<float, 2> pair[before + columns / 8];
#pragma unroll
        for (int t = 0; t < before + columns / 8; ++t) pair[t] = load_vec<2>(from + 8 * t);
        for_fragment<m_tiles, columns / 8>([&](int m, int n, int e) { sums[m][n][e] = fmaf(sums[m][n][e], scale, pair[before + n - 2 * m - e / 2][e % 2]); });
    }
};

/// exp(score - base), with the base prepared once a row.
template <class T>
struct Exponential {
    static constexpr float log2_e = 1.44269504f;
    __device__ static float shift(float base) { return on_tensor_cores<T> ? base * log2_e : base; }
    __device__ static float of(float score, float shift) {
        if constexpr (on_tensor_cores<T>) return exp2_fast(fmaf(score, log2_e, -shift));
        else return expf(score - shift);
    }
};

// ---- dropout --------------------------------------------------------------------------------------------------------------------------

/// Bits of a tile of probabilities: 1 for what is kept. Rows are queries; bit b of a row's word w is key 32 w + b of the tile.
template <int queries, int keys>
struct DropoutMask {
    static constexpr int row_words = (keys + 31) / 32, words = queries * row_words;

    /// By the whole block: each thread draws a piece of a row.
    __device__ static void draw(uint32_t* mask, const AttentionShape& s, int64_t matrix, int i0, int j0) {
        constexpr int bits = queries * keys / attention_threads, pieces = keys / bits;
        static_assert(bits == 8 || bits == 16 || bits == 32 || bits == 64);
        const int row = static_cast<int>(threadIdx.x) / pieces, piece = static_cast<int>(threadIdx.x) % pieces;
        const uint64_t first = s.dropout.draw(static_cast<uint64_t>((matrix * s.queries + i0 + row) * s.keys + j0 + piece * bits));
        const int before = static_cast<int>(first % 8);  // elements of the first block of eight that lie before the piece
        uint64_t kept = 0;
#pragma unroll 1
        for (int block = 0; 8 * block < bits + before; ++block) {
            const uint64_t eight = kept_of_eight(s.dropout, first / 8 + static_cast<uint64_t>(block));
            const int place = 8 * block - before;
            kept |= place < 0 ? eight >> -place : eight << place;
        }
        using Piece = std::conditional_t<bits == 8, uint8_t, std::conditional_t<bits == 16, uint16_t, std::conditional_t<bits == 32, uint32_t, uint64_t>>>;
        reinterpret_cast<Piece*>(mask + row * row_words)[piece] = static_cast<Piece>(kept);
    }

private:
    __device__ static uint32_t kept_of_eight(const Dropout& dropout, uint64_t block) {
        const auto words = random_block(dropout.key, block);
        uint32_t kept = 0;
#pragma unroll
        for (uint32_t w = 0; w < 4; ++w)
            kept |= uint32_t{(words[w] & 0xffffu) >= dropout.threshold} << (2 * w) | uint32_t{(words[w] >> 16) >= dropout.threshold} << (2 * w + 1);
        return kept;
    }
};

}  // namespace flanmoe::cuda

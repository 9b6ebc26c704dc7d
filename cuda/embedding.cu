// Embedding lookup, a copy of rows; and its gradient, without atomics on floats.
//
// Forward: a warp a row, 16 bytes a lane.
//
// Backward: the positions are sorted by id (sort.cu). The sorted list is cut into pieces of 64 positions; a block adds the rows of one piece, in order, for some
// columns. A run of equal ids that lies within a piece goes to its row of the table at once: nobody else has that row. Of a run that crosses borders each
// piece leaves a partial sum, and the piece in which the run begins adds them in a second launch. So an id that half of all positions have (padding, "the")
// is spread over as many blocks as it has pieces, and rare ids cost one read of their row. The order of all sums follows from the ids alone.
//
// Of a part of a table, ids that it does not have become V, which the sort puts last and the sums pass over.
//
// Bytes at N = 64 Ki positions, D = 768, bf16, 20 k different ids: d_out 101 MB, table 2 x 61 MB, partial sums at most 2 x 6 MB, ids and sort 4 MB: about
// 0.24 GB, 0.09 ms at 2.7 TB/s, and nine launches. Not yet measured on hardware. Registers on sm_90a: 114 in
// the sums of pieces (of which 64 hold rows read ahead), 32 in the lookup, 48 in the join with 4 KB of shared memory.
#include "ops/embedding.hpp"

#include "device.cuh"
#include "launch.hpp"
#include "sort.hpp"

namespace flanmoe::cuda {

namespace {

constexpr int wide = 8;              // elements of a row that a thread takes at once
constexpr int copy_warps = 8;        // of a block of the lookup
constexpr int piece = 64;            // sorted positions that one block adds at a time
constexpr int batch = 8;             // rows of them that are read ahead
constexpr int sum_threads = 128;
constexpr int join_slices = 8, join_columns = 128;  // of a block that joins partial sums

template <class T, int N>
__global__ void copy_rows(const T* table, int64_t table_ld, int64_t first_id, int64_t table_rows, const int32_t* ids, T* out, int64_t out_ld, int64_t rows, int64_t cols) {
    const int64_t n = int64_t{blockIdx.x} * copy_warps + warp();
    if (n >= rows) return;
    const int64_t id = ids[n] - first_id;
    const bool own = id >= 0 && id < table_rows;
    for (int64_t c = lane() * N; c < cols; c += 32 * N) {
        float x[N] = {};
        if (own) load_floats<N>(table + id * table_ld + c, left_of<N>(cols, c), x);
        store_floats<N>(out + n * out_ld + c, left_of<N>(cols, c), x);
    }
}

/// own[n] = the row of the part that ids[n] is, or table_rows.
__global__ void find_own(const int32_t* ids, int64_t count, int32_t first_id, int32_t table_rows, int32_t* own) {
    const int64_t n = int64_t{blockIdx.x} * sum_threads + threadIdx.x;
    if (n >= count) return;
    const int32_t id = ids[n] - first_id;
    own[n] = id >= 0 && id < table_rows ? id : table_rows;
}

struct SumArgs {
    const int32_t *ids, *positions;  // sorted
    int64_t count, cols;
    const void* d_out;
    int64_t out_ld;
    float* d_table;
    int64_t table_ld;
    int32_t table_rows;  ///< ids from here on are passed over
    float* partial;  // [pieces][2][partial_ld]: the piece's share of a run that began before it; of one that begins in it and goes on
    int64_t partial_ld;
};

template <class T, int N>
__global__ void sum_pieces(SumArgs args) {
    const int64_t c = (int64_t{blockIdx.y} * sum_threads + threadIdx.x) * N;
    if (c >= args.cols) return;
    const int left = left_of<N>(args.cols, c);
    const int64_t begin = int64_t{blockIdx.x} * piece, end = min(args.count, begin + piece);
    const T* const rows = static_cast<const T*>(args.d_out) + c;
    bool began_before = begin > 0 && args.ids[begin - 1] == args.ids[begin];
    float sum[N] = {};
    for (int64_t first = begin; first < end; first += batch) {
        float row[batch][N];
#pragma unroll
        for (int i = 0; i < batch; ++i)
            if (first + i < end) load_floats<N>(rows + args.positions[first + i] * args.out_ld, left, row[i]);
#pragma unroll
        for (int i = 0; i < batch; ++i) {
            const int64_t p = first + i;
            if (p >= end) break;
#pragma unroll
            for (int j = 0; j < N; ++j) sum[j] += row[i][j];
            const int32_t id = args.ids[p];
            const bool goes_on = p + 1 < args.count && args.ids[p + 1] == id;
            if (goes_on && p + 1 < end) continue;
            if (began_before || goes_on) {
                store_floats<N>(args.partial + (int64_t{blockIdx.x} * 2 + !began_before) * args.partial_ld + c, N, sum);
            } else if (id < args.table_rows) {
                float value[N];
                load_floats<N>(args.d_table + id * args.table_ld + c, left, value);
#pragma unroll
                for (int j = 0; j < N; ++j) value[j] += sum[j];
                store_floats<N>(args.d_table + id * args.table_ld + c, left, value);
            }
            began_before = false;
#pragma unroll
            for (int j = 0; j < N; ++j) sum[j] = 0;
        }
    }
}

/// First index in [begin, end) whose id is greater.
__device__ int64_t end_of_run(const int32_t* ids, int32_t id, int64_t begin, int64_t end) {
    while (begin < end) {
        const int64_t middle = begin + (end - begin) / 2;
        if (ids[middle] > id) end = middle;
        else begin = middle + 1;
    }
    return begin;
}

/// Adds the partial sums of the run that begins in piece blockIdx.x and goes on behind it, if there is one: slices of every eighth piece, then the slices.
__global__ void join_pieces(SumArgs args) {
    const int64_t here = blockIdx.x, begin = here * piece, end = begin + piece;
    const int32_t id = args.ids[end - 1];
    if (id >= args.table_rows || args.ids[end] != id || (begin > 0 && args.ids[begin - 1] == id)) return;
    const int64_t last = (end_of_run(args.ids, id, end, args.count) - 1) / piece;

    Shared shared;
    float* const slices = shared.take<float>(join_slices * join_columns);
    const int slice = warp(), column = lane() * 4;
    const int64_t c = int64_t{blockIdx.y} * join_columns + column;
    float sum[4] = {};
    if (c < args.partial_ld) {
        for (int64_t p = here + 1 + slice; p <= last; p += join_slices) {
            float part[4];
            load_floats<4>(args.partial + p * 2 * args.partial_ld + c, 4, part);
#pragma unroll
            for (int j = 0; j < 4; ++j) sum[j] += part[j];
        }
    }
    store_floats<4>(slices + slice * join_columns + column, 4, sum);
    __syncthreads();
    const int64_t mine = int64_t{blockIdx.y} * join_columns + threadIdx.x;
    if (threadIdx.x >= join_columns || mine >= args.cols) return;
    float total = args.partial[(here * 2 + 1) * args.partial_ld + mine];
    for (int s = 0; s < join_slices; ++s) total += slices[s * join_columns + threadIdx.x];
    args.d_table[id * args.table_ld + mine] += total;
}

template <class T, int N>
void launch_sums(Context& context, const SumArgs& args) {
    const unsigned pieces = blocks_for(args.count, piece);
    launch(context, "embedding backward", sum_pieces<T, N>, dim3(pieces, blocks_for(args.cols, sum_threads * N)), sum_threads, 0, args);
    launch(context, "embedding backward join", join_pieces, dim3(pieces - 1, blocks_for(args.cols, join_columns)), join_slices * 32,
           shared_bytes<float>(join_slices * join_columns), args);
}

template <class T>
void lookup(Context& context, const ops::EmbeddingArgs& args) {
    const bool vectors = has_aligned_rows(args.table) && has_aligned_rows(args.out);
    launch(context, "embedding", vectors ? copy_rows<T, wide> : copy_rows<T, 1>, blocks_for(args.out.rows(), copy_warps), copy_warps * 32, 0, args.table.as<T>(),
           args.table.ld, args.first_id, args.table.rows(), args.ids.as<int32_t>(), args.out.as<T>(), args.out.ld, args.out.rows(), args.out.cols());
}

template <class T>
void backward(Context& context, const ops::EmbeddingBackwardArgs& args) {
    const int64_t count = args.d_out.rows(), cols = args.d_out.cols(), partial_ld = (cols + wide - 1) / wide * wide;
    if (count == 0 || cols == 0) return;
    Arena::Scope scope(context.arena);
    Tensor ids = args.ids;
    const int64_t table_rows = args.d_table.rows();
    if (args.vocabulary) {
        ids = context.allocate(DType::i32, {count});
        launch(context, "embedding own ids", find_own, blocks_for(count, sum_threads), sum_threads, 0, args.ids.as<int32_t>(), count, static_cast<int32_t>(args.first_id),
               static_cast<int32_t>(table_rows), ids.as<int32_t>());
    }
    const SortedPositions sorted = sort_positions(context, ids, table_rows + (args.vocabulary ? 1 : 0));
    const Tensor partial = context.allocate(DType::f32, {(count + piece - 1) / piece, 2, partial_ld});
    const SumArgs sums{sorted.keys.as<int32_t>(), sorted.positions.as<int32_t>(), count, cols, args.d_out.data, args.d_out.ld,
                       args.d_table.as<float>(), args.d_table.ld, static_cast<int32_t>(table_rows), partial.as<float>(), partial_ld};
    if (has_aligned_rows(args.d_out) && has_aligned_rows(args.d_table)) launch_sums<T, wide>(context, sums);
    else launch_sums<T, 1>(context, sums);
}

}  // namespace

void embedding(Context& context, const ops::EmbeddingArgs& args) {
    with_storage(args.table.dtype, [&]<class T>() { lookup<T>(context, args); });
}

void embedding_backward(Context& context, const ops::EmbeddingBackwardArgs& args) {
    with_storage(args.d_out.dtype, [&]<class T>() { backward<T>(context, args); });
}

}  // namespace flanmoe::cuda

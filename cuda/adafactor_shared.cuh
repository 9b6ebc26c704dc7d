// What Adafactor's kernels know of the tensors, and the kernels for those that ranks share: between the statistics of a rank's part and what all parts say.
//
// Sums of a shared tensor, in double: squares of the parameter; if it is factored also the sum of the state along the shared dimension, then the sums of
// squares along the other one. `sums` has those of all shared tensors one after the other and is added up over the ranks in one go; so are the squares of the
// updates, one number a tensor.
#pragma once

#include "device.cuh"

#include <cstdint>

namespace flanmoe::cuda {

namespace {

constexpr int threads = 256, warps = threads / 32;
constexpr int piece_rows = 64, piece_cols = 512;       // of a factored tensor
constexpr int lane_vectors = piece_cols / (32 * 4);    // of four columns, a lane's share of a row of a piece
constexpr int64_t flat_piece = 16384;                  // elements of any other tensor

struct Factored {
    float *parameter, *row_state, *col_state;  // row_state: one entry a row of the matrix, whether T5X calls it v_row or v_col
    const float* gradient;
    int64_t rows, cols;
    int64_t row_sums, col_sums;  // where this tensor's partial sums begin: [rows][tiles], [bands][cols]
    int32_t first, first_state;  // pieces, and blocks of (2), of the tensors before
    int32_t tiles, bands;        // pieces along a row and a column
    int32_t row_is_v_row, vectors;  // vectors: rows begin at multiples of 16 bytes
    int64_t whole_rows, whole_cols;  // of all ranks that share the tensor
    int64_t sums;                    // where its sums over ranks are
    int64_t shared;                  // dimension that ranks share; -1: none
};
struct Flat {
    float *parameter, *m, *v;
    const float* gradient;
    int64_t elements;
    int32_t first;
    int16_t decay, vectors;
};
struct Pieces {
    int64_t elements;  // of the whole tensor
    int32_t first, count;
    int64_t sums, squares;  // where its sums over ranks are; -1: nobody shares it
    int64_t factored;       // index among factored tensors, or -1
};

struct Adafactor {
    const Factored* factored;
    const Flat* flat;
    const Pieces* pieces;  // of all tensors, factored ones first, and numbered in that order
    int factored_count, flat_count;
    int32_t factored_pieces;
    float *row_sums, *col_sums;            // partial sums of squares of factored tensors
    double *parameter_sums, *update_sums;  // a piece
    float *root_means, *steps;             // a tensor: sqrt(mean of v_row); what the update is multiplied by
    const float* factor;                   // of gradients
    double *sums, *squares;                // of shared tensors, over their ranks: see shared_totals; squares of the update
    double decay, epsilon, rate, threshold, minimum_scale;
    bool scale_by_parameter;
};

/// A block a tensor (only shared ones do anything): what is summed over its pieces, and over the state along the shared dimension.
__global__ void shared_totals(Adafactor args) {
    const float factor = *args.factor;
    const Pieces t = args.pieces[blockIdx.x];
    if (factor != factor || t.sums < 0) return;
    Shared shared;
    double* const piece = shared.take<double>(block_sum_piece);
    double parameters = 0, state = 0;
    for (int32_t i = static_cast<int32_t>(threadIdx.x); i < t.count; i += threads) parameters += args.parameter_sums[t.first + i];
    parameters = block_sum(parameters, piece);
    if (threadIdx.x == 0) args.sums[t.sums] = parameters;
    if (t.factored < 0) return;
    const Factored& f = args.factored[t.factored];
    const float* const own = f.shared == 0 ? f.row_state : f.col_state;
    for (int64_t i = threadIdx.x; i < (f.shared == 0 ? f.rows : f.cols); i += threads) state += own[i];
    state = block_sum(state, piece);
    if (threadIdx.x == 0) args.sums[t.sums + 1] = state;
}

/// The state along the dimension that is not shared, from the sums over all ranks. A block a tensor.
__global__ void shared_states(Adafactor args) {
    const float factor = *args.factor;
    const Factored t = args.factored[blockIdx.x];
    if (factor != factor || t.shared < 0) return;
    float* const state = t.shared == 0 ? t.col_state : t.row_state;
    const int64_t count = t.shared == 0 ? t.cols : t.rows, whole = t.shared == 0 ? t.whole_rows : t.whole_cols;
    for (int64_t i = threadIdx.x; i < count; i += threads)
        state[i] = static_cast<float>(args.decay * state[i] + (1 - args.decay) * (args.sums[t.sums + 2 + i] / static_cast<double>(whole) + args.epsilon));
}

/// Squares of the updates of shared tensors. A block a tensor.
__global__ void shared_squares(Adafactor args) {
    const float factor = *args.factor;
    const Pieces t = args.pieces[blockIdx.x];
    if (factor != factor || t.sums < 0) return;
    Shared shared;
    double updates = 0;
    for (int32_t i = static_cast<int32_t>(threadIdx.x); i < t.count; i += threads) updates += args.update_sums[t.first + i];
    updates = block_sum(updates, shared.take<double>(block_sum_piece));
    if (threadIdx.x == 0) args.squares[t.squares] = updates;
}

}  // namespace

}  // namespace flanmoe::cuda

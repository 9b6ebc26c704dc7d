// Adafactor and AdamW, all tensors in one launch a pass.
//
// What kernels must know of the tensors (addresses, shapes, where each one's pieces begin) is a table in device memory, kept by the engine and uploaded only when
// it differs from all before (tables.hpp): once a run. A block finds its tensor by bisection. Every expert's matrix is a tensor of its own.
//
// Factored Adafactor. A piece is 64 rows x 512 columns. (1) Statistics: a warp takes every eighth row; squares are added by row (over the piece's columns), by
// column (over its rows) and of the parameter. (2) A thread per entry adds these partial sums to v_row and v_col. (3) A block per tensor takes the mean of v_row.
// (4) Squares of the update, which need all of the above. (5) A block per tensor: step size from both roots of mean squares. (6) The update.
// Unfactored: v, squares of parameter and update in one pass, (5), the update. AdamW: one pass.
//
// The gradient's factor is computed on the device, clipping included, from the squared norm if there is one; if that says no, every kernel returns at once.
// Sums: float inside a thread's part of a piece (at most 128 squares) and of a row or column of a piece, double beyond, in a fixed order that depends on a
// tensor's shape alone.
//
// Bytes an element (f32): factored 24 (gradient read three times, parameter twice, written once; the partial sums are 3 %), unfactored 32, AdamW 28. T5-base, 223 M
// parameters, factored: 5.4 GB, 2.0 ms at 2.7 TB/s and nine launches. Not yet measured on hardware. Registers on sm_90a: 54 in (1), with 16.3
// KB of shared memory, 56 in (4), 68 in (6), 56 and 40 unfactored, 52 AdamW.
#include "ops/optimizer.hpp"

#include "adafactor_shared.cuh"
#include "device.cuh"
#include "engine.hpp"
#include "launch.hpp"

#include <cmath>

namespace flanmoe::cuda {

namespace {

/// The last entry that begins at or before `piece`.
template <class Entry>
__device__ int entry_of(const Entry* table, int count, int32_t piece, int32_t Entry::*first) {
    int begin = 0;
    while (count > 1) {
        const int half = count / 2;
        if (table[begin + half].*first <= piece) begin += half, count -= half;
        else count = half;
    }
    return begin;
}

/// Elements at `p`, zeros from the `left`-th on.
__device__ Vec<float, 4> load_four(const float* p, int64_t left, bool vectors) {
    if (vectors && left >= 4) return load_vec<4>(p);
    Vec<float, 4> value;
#pragma unroll
    for (int j = 0; j < 4; ++j) value[j] = j < left ? p[j] : 0.0f;
    return value;
}
__device__ void store_four(float* p, const Vec<float, 4>& value, int64_t left, bool vectors) {
    if (vectors && left >= 4) return store_vec(p, value);
#pragma unroll
    for (int j = 0; j < 4; ++j)
        if (j < left) p[j] = value[j];
}

/// The factor of gradients, NaN = change nothing.
__global__ void gradient_factor(double scale, const double* squared_norm, double clip, float* factor) {
    *factor = static_cast<float>(squared_norm ? ops::clipped_scale(scale, sqrt(*squared_norm), clip) : scale);
}

/// Where a block works on a factored tensor.
struct Place {
    int64_t row, rows, col;  // this warp's first row, the piece's end, this lane's first column
    int32_t tile, band;
};
__device__ Place place_of(const Factored& t) {
    const int32_t piece = static_cast<int32_t>(blockIdx.x) - t.first, tile = piece % t.tiles, band = piece / t.tiles;
    return {int64_t{band} * piece_rows + warp(), min(t.rows, int64_t{band + 1} * piece_rows), int64_t{tile} * piece_cols + lane() * 4, tile, band};
}

__global__ void __launch_bounds__(threads) factored_statistics(Adafactor args) {
    const float factor = *args.factor;
    if (factor != factor) return;
    Shared shared;
    float* const by_col = shared.take<float>(warps * piece_cols);
    double* const piece = shared.take<double>(block_sum_piece);
    const Factored t = args.factored[entry_of(args.factored, args.factored_count, static_cast<int32_t>(blockIdx.x), &Factored::first)];
    const Place at = place_of(t);
    float cols[lane_vectors][4] = {}, parameters = 0;
    for (int64_t r = at.row; r < at.rows; r += warps) {
        float row = 0;
#pragma unroll
        for (int i = 0; i < lane_vectors; ++i) {
            const int64_t c = at.col + i * 128, left = t.cols - c;
            if (left <= 0) continue;
            const Vec<float, 4> g = load_four(t.gradient + r * t.cols + c, left, t.vectors);
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                const float q = (factor * g[j]) * (factor * g[j]);
                row += q;
                cols[i][j] += q;
            }
            if (!args.scale_by_parameter) continue;
            const Vec<float, 4> p = load_four(t.parameter + r * t.cols + c, left, t.vectors);
#pragma unroll
            for (int j = 0; j < 4; ++j) parameters += p[j] * p[j];
        }
        row = warp_sum(row);
        if (lane() == 0) args.row_sums[t.row_sums + r * t.tiles + at.tile] = row;
    }
#pragma unroll
    for (int i = 0; i < lane_vectors; ++i) store_vec(by_col + warp() * piece_cols + i * 128 + lane() * 4, Vec<float, 4>{cols[i][0], cols[i][1], cols[i][2], cols[i][3]});
    __syncthreads();
    for (int i = threadIdx.x; i < piece_cols; i += threads) {
        const int64_t c = int64_t{at.tile} * piece_cols + i;
        if (c >= t.cols) break;
        float sum = 0;
        for (int w = 0; w < warps; ++w) sum += by_col[w * piece_cols + i];
        args.col_sums[t.col_sums + at.band * t.cols + c] = sum;
    }
    const double sum = block_sum(static_cast<double>(parameters), piece);
    if (threadIdx.x == 0) args.parameter_sums[blockIdx.x] = sum;
}

/// v_row and v_col from the partial sums. A thread an entry.
__global__ void factored_states(Adafactor args) {
    const float factor = *args.factor;
    if (factor != factor) return;
    const Factored t = args.factored[entry_of(args.factored, args.factored_count, static_cast<int32_t>(blockIdx.x), &Factored::first_state)];
    const int64_t i = (int64_t{blockIdx.x} - t.first_state) * threads + threadIdx.x, c = i - t.rows;
    if (c >= t.cols) return;
    double sum = 0;
    if (c < 0)
        for (int32_t tile = 0; tile < t.tiles; ++tile) sum += args.row_sums[t.row_sums + i * t.tiles + tile];
    else
        for (int32_t band = 0; band < t.bands; ++band) sum += args.col_sums[t.col_sums + band * t.cols + c];
    if (t.shared == (c < 0 ? 1 : 0)) {  // only a part of what this entry's sum is made of is here
        args.sums[t.sums + 2 + (c < 0 ? i : c)] = sum;
        return;
    }
    float& state = c < 0 ? t.row_state[i] : t.col_state[c];
    state = static_cast<float>(args.decay * state + (1 - args.decay) * (sum / static_cast<double>(c < 0 ? t.cols : t.rows) + args.epsilon));
}

/// Square root of the mean of v_row. A block a tensor.
__global__ void factored_means(Adafactor args) {
    const float factor = *args.factor;
    if (factor != factor) return;
    Shared shared;
    double* const piece = shared.take<double>(block_sum_piece);
    const Factored& t = args.factored[blockIdx.x];
    if (t.shared == (t.row_is_v_row ? 0 : 1)) {
        if (threadIdx.x == 0) args.root_means[blockIdx.x] = static_cast<float>(sqrt(args.sums[t.sums + 1] / static_cast<double>(t.row_is_v_row ? t.whole_rows : t.whole_cols)));
        return;
    }
    const float* const state = t.row_is_v_row ? t.row_state : t.col_state;
    const int64_t count = t.row_is_v_row ? t.rows : t.cols;
    double sum = 0;
    for (int64_t i = threadIdx.x; i < count; i += threads) sum += state[i];
    sum = block_sum(sum, piece);
    if (threadIdx.x == 0) args.root_means[blockIdx.x] = static_cast<float>(sqrt(sum / static_cast<double>(count)));
}

/// What the update's columns c .. c + 3 are multiplied by, and its row r: together sqrt(mean v_row / (v_row v_col)).
__device__ Vec<float, 4> column_factors(const Factored& t, int64_t c, float root_mean) {
    Vec<float, 4> state = load_four(t.col_state + c, t.cols - c, false);
#pragma unroll
    for (int j = 0; j < 4; ++j) state[j] = c + j < t.cols ? rsqrtf(state[j]) * (t.row_is_v_row ? 1.0f : root_mean) : 0.0f;
    return state;
}
__device__ float row_factor(const Factored& t, int64_t r, float root_mean) { return rsqrtf(t.row_state[r]) * (t.row_is_v_row ? root_mean : 1.0f); }

/// Passes over the update: its squares are added, or (apply) the parameter is changed.
template <bool apply>
__global__ void __launch_bounds__(threads) factored_update(Adafactor args) {
    const float factor = *args.factor;
    if (factor != factor) return;
    const int index = entry_of(args.factored, args.factored_count, static_cast<int32_t>(blockIdx.x), &Factored::first);
    const Factored t = args.factored[index];
    const Place at = place_of(t);
    const float root_mean = args.root_means[index], step = apply ? args.steps[index] : 1.0f;
    Vec<float, 4> by_col[lane_vectors];
#pragma unroll
    for (int i = 0; i < lane_vectors; ++i) by_col[i] = column_factors(t, at.col + i * 128, root_mean);
    float squares = 0;
    for (int64_t r = at.row; r < at.rows; r += warps) {
        const float by_row = step * factor * row_factor(t, r, root_mean);
#pragma unroll
        for (int i = 0; i < lane_vectors; ++i) {
            const int64_t c = at.col + i * 128, left = t.cols - c;
            if (left <= 0) continue;
            const Vec<float, 4> g = load_four(t.gradient + r * t.cols + c, left, t.vectors);
            if constexpr (apply) {
                float* const parameter = t.parameter + r * t.cols + c;
                Vec<float, 4> p = load_four(parameter, left, t.vectors);
#pragma unroll
                for (int j = 0; j < 4; ++j) p[j] -= by_row * g[j] * by_col[i][j];
                store_four(parameter, p, left, t.vectors);
            } else {
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    const float u = by_row * g[j] * by_col[i][j];
                    squares += u * u;
                }
            }
        }
    }
    if constexpr (!apply) {
        Shared shared;
        const double sum = block_sum(static_cast<double>(squares), shared.take<double>(block_sum_piece));
        if (threadIdx.x == 0) args.update_sums[blockIdx.x] = sum;
    }
}

/// Calls body(i, left) for the beginnings i of fours of elements of this block's piece; `left` elements are left there.
template <class Body>
__device__ void for_fours(const Flat& t, int32_t piece, Body&& body) {
    const int64_t begin = int64_t{piece - t.first} * flat_piece, end = min(t.elements, begin + flat_piece);
#pragma unroll 2
    for (int64_t i = begin + threadIdx.x * 4; i < end; i += threads * 4) body(i, end - i);
}

__global__ void __launch_bounds__(threads) flat_statistics(Adafactor args) {
    const float factor = *args.factor;
    if (factor != factor) return;
    Shared shared;
    double* const sums = shared.take<double>(block_sum_piece);
    const int32_t piece = static_cast<int32_t>(blockIdx.x);
    const Flat t = args.flat[entry_of(args.flat, args.flat_count, piece, &Flat::first)];
    const float decay = static_cast<float>(args.decay), fresh = static_cast<float>(1 - args.decay), epsilon = static_cast<float>(args.epsilon);
    float parameters = 0, updates = 0;
    for_fours(t, piece, [&](int64_t i, int64_t left) {
        const Vec<float, 4> g = load_four(t.gradient + i, left, t.vectors), p = load_four(t.parameter + i, left, t.vectors);
        Vec<float, 4> v = load_four(t.v + i, left, t.vectors);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            const float q = (factor * g[j]) * (factor * g[j]);
            v[j] = decay * v[j] + fresh * (q + epsilon);
            parameters += p[j] * p[j];
            if (j < left) updates += q / v[j];
        }
        store_four(t.v + i, v, left, t.vectors);
    });
    const double parameter_sum = block_sum(static_cast<double>(parameters), sums), update_sum = block_sum(static_cast<double>(updates), sums);
    if (threadIdx.x != 0) return;
    args.parameter_sums[args.factored_pieces + piece] = parameter_sum;
    args.update_sums[args.factored_pieces + piece] = update_sum;
}

/// Rate, parameter scale and clipping of the update's root mean square. A block a tensor.
__global__ void step_sizes(Adafactor args) {
    const float factor = *args.factor;
    if (factor != factor) return;
    Shared shared;
    double* const piece = shared.take<double>(block_sum_piece);
    const Pieces t = args.pieces[blockIdx.x];
    double parameters = 0, updates = 0;
    for (int32_t i = static_cast<int32_t>(threadIdx.x); i < t.count; i += threads) parameters += args.parameter_sums[t.first + i], updates += args.update_sums[t.first + i];
    parameters = block_sum(parameters, piece);
    updates = block_sum(updates, piece);
    if (threadIdx.x != 0) return;
    if (t.sums >= 0) parameters = args.sums[t.sums], updates = args.squares[t.squares];
    const double n = static_cast<double>(t.elements);
    const double clip = args.threshold > 0 ? max(1.0, sqrt(updates / n) / args.threshold) : 1.0;
    const double size = args.scale_by_parameter ? max(sqrt(parameters / n), args.minimum_scale) : 1.0;
    args.steps[blockIdx.x] = static_cast<float>(args.rate * size / clip);
}

__global__ void __launch_bounds__(threads) flat_update(Adafactor args) {
    const float factor = *args.factor;
    if (factor != factor) return;
    const int32_t piece = static_cast<int32_t>(blockIdx.x);
    const int index = entry_of(args.flat, args.flat_count, piece, &Flat::first);
    const Flat t = args.flat[index];
    const float step = args.steps[args.factored_count + index] * factor;
    for_fours(t, piece, [&](int64_t i, int64_t left) {
        const Vec<float, 4> g = load_four(t.gradient + i, left, t.vectors), v = load_four(t.v + i, left, t.vectors);
        Vec<float, 4> p = load_four(t.parameter + i, left, t.vectors);
#pragma unroll
        for (int j = 0; j < 4; ++j) p[j] -= j < left ? step * g[j] * rsqrtf(v[j]) : 0.0f;
        store_four(t.parameter + i, p, left, t.vectors);
    });
}

struct AdamW {
    const Flat* flat;
    int count;
    const float* factor;
    float beta1, fresh1, beta2, fresh2, step, root, keep, epsilon;
};

__global__ void __launch_bounds__(threads) adamw_update(AdamW args) {
    const float factor = *args.factor;
    if (factor != factor) return;
    const int32_t piece = static_cast<int32_t>(blockIdx.x);
    const Flat t = args.flat[entry_of(args.flat, args.count, piece, &Flat::first)];
    const float keep = t.decay ? args.keep : 1.0f;
    for_fours(t, piece, [&](int64_t i, int64_t left) {
        const Vec<float, 4> g = load_four(t.gradient + i, left, t.vectors);
        Vec<float, 4> m = load_four(t.m + i, left, t.vectors), v = load_four(t.v + i, left, t.vectors), p = load_four(t.parameter + i, left, t.vectors);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            const float x = g[j] * factor;
            m[j] = args.beta1 * m[j] + args.fresh1 * x;
            v[j] = args.beta2 * v[j] + args.fresh2 * (x * x);
            p[j] = keep * p[j] - args.step * m[j] / (sqrtf(v[j]) * args.root + args.epsilon);
        }
        store_four(t.m + i, m, left, t.vectors);
        store_four(t.v + i, v, left, t.vectors);
        store_four(t.parameter + i, p, left, t.vectors);
    });
}

// The host's side: tables, temporaries, launches.

template <class Row>
const Row* device_table(Context& context, const std::vector<Row>& rows) {
    static_assert(std::has_unique_object_representations_v<Row>, "rows without padding, whose bytes would be anything");
    return static_cast<const Row*>(engine_of(context).tables().find(rows.data(), static_cast<int64_t>(rows.size() * sizeof(Row))));
}

const float* factor_of(Context& context, double scale, const Tensor& squared_norm, double clip) {
    const Tensor factor = context.allocate(DType::f32, {1});
    launch(context, "gradient factor", gradient_factor, 1, 1, 0, scale, static_cast<const double*>(squared_norm ? squared_norm.as<double>() : nullptr), clip,
           factor.as<float>());
    return factor.as<float>();
}

/// Tensors in pieces, numbered through.
struct Plan {
    std::vector<Factored> factored;
    std::vector<Flat> flat;
    std::vector<Pieces> pieces;
    int64_t row_sums = 0, col_sums = 0;
    int64_t shared_sums = 0, shared_tensors = 0;  // numbers that ranks add up
    int32_t factored_pieces = 0, state_blocks = 0, flat_pieces = 0;

    void add_factored(const ops::AdafactorTensor& tensor) {
        Factored t{};
        t.parameter = tensor.parameter.as<float>(), t.gradient = tensor.gradient.as<float>();
        t.rows = tensor.parameter.shape[0], t.cols = tensor.parameter.shape[1];
        t.row_is_v_row = ops::rows_are_smaller(tensor);
        t.shared = tensor.shared, t.sums = shared_sums;
        t.whole_rows = tensor.shared == 0 ? tensor.whole : t.rows, t.whole_cols = tensor.shared == 1 ? tensor.whole : t.cols;
        t.row_state = (t.row_is_v_row ? tensor.v_row : tensor.v_col).as<float>();
        t.col_state = (t.row_is_v_row ? tensor.v_col : tensor.v_row).as<float>();
        t.row_sums = row_sums, t.col_sums = col_sums, t.first = factored_pieces, t.first_state = state_blocks;
        t.tiles = static_cast<int32_t>((t.cols + piece_cols - 1) / piece_cols), t.bands = static_cast<int32_t>((t.rows + piece_rows - 1) / piece_rows);
        t.vectors = t.cols % 4 == 0 && is_aligned(t.parameter) && is_aligned(t.gradient);
        factored.push_back(t);
        add_pieces(tensor, t.whole_rows * t.whole_cols, t.first, t.tiles * t.bands, 2 + (tensor.shared == 0 ? t.cols : t.rows));
        pieces.back().factored = static_cast<int64_t>(factored.size()) - 1;
        row_sums += t.rows * t.tiles, col_sums += t.cols * t.bands, factored_pieces += t.tiles * t.bands;
        state_blocks += static_cast<int32_t>((t.rows + t.cols + threads - 1) / threads);
    }

    void add_pieces(const ops::AdafactorTensor& tensor, int64_t elements, int32_t first, int32_t count, int64_t sums) {
        const bool shared = tensor.shared >= 0;
        pieces.push_back({elements, first, count, shared ? shared_sums : -1, shared ? shared_tensors : -1, -1});
        if (shared) shared_sums += sums, ++shared_tensors;
    }

    void add_unfactored(const ops::AdafactorTensor& tensor) {
        const int64_t elements = tensor.parameter.elements();
        const int32_t first = factored_pieces + flat_pieces;
        add_flat(tensor.parameter, tensor.gradient, {}, tensor.v, false);
        add_pieces(tensor, tensor.shared < 0 ? elements : elements / tensor.parameter.shape[tensor.shared] * tensor.whole, first, factored_pieces + flat_pieces - first, 1);
    }

    void add_flat(const Tensor& parameter, const Tensor& gradient, const Tensor& m, const Tensor& v, bool decay) {
        Flat t{};
        t.parameter = parameter.as<float>(), t.gradient = gradient.as<float>(), t.m = m ? m.as<float>() : nullptr, t.v = v.as<float>();
        t.elements = parameter.elements(), t.first = flat_pieces, t.decay = decay;
        t.vectors = is_aligned(t.parameter) && is_aligned(t.gradient) && is_aligned(t.m) && is_aligned(t.v);
        flat.push_back(t);
        const auto count = static_cast<int32_t>((t.elements + flat_piece - 1) / flat_piece);
        flat_pieces += count;
    }
};

}  // namespace

void adafactor(Context& context, std::span<const ops::AdafactorTensor> tensors, const ops::AdafactorSettings& settings) {
    Plan plan;
    for (const ops::AdafactorTensor& t : tensors)
        if (!t.v) plan.add_factored(t);
    for (const ops::AdafactorTensor& t : tensors)
        if (t.v) plan.add_unfactored(t);

    Arena::Scope scope(context.arena);
    const auto count = static_cast<int64_t>(tensors.size()), pieces = int64_t{plan.factored_pieces} + plan.flat_pieces;
    Adafactor args{};
    args.factored = device_table(context, plan.factored), args.flat = device_table(context, plan.flat), args.pieces = device_table(context, plan.pieces);
    args.factored_count = static_cast<int>(plan.factored.size()), args.flat_count = static_cast<int>(plan.flat.size());
    args.factored_pieces = plan.factored_pieces;
    args.row_sums = context.allocate(DType::f32, {plan.row_sums}).as<float>(), args.col_sums = context.allocate(DType::f32, {plan.col_sums}).as<float>();
    args.parameter_sums = context.allocate(DType::f64, {pieces}).as<double>();
    args.update_sums = context.allocate(DType::f64, {pieces}).as<double>();
    args.root_means = context.allocate(DType::f32, {args.factored_count}).as<float>(), args.steps = context.allocate(DType::f32, {count}).as<float>();
    const Tensor shared_sums = context.allocate(DType::f64, {plan.shared_sums}), shared_squares_of = context.allocate(DType::f64, {plan.shared_tensors});
    args.sums = shared_sums.as<double>(), args.squares = shared_squares_of.as<double>();
    args.factor = factor_of(context, settings.gradient_scale, settings.squared_norm, settings.clip);
    args.decay = settings.decay, args.epsilon = settings.epsilon, args.rate = settings.rate, args.threshold = settings.clipping_threshold;
    args.minimum_scale = settings.minimum_scale, args.scale_by_parameter = settings.scale_by_parameter;

    const auto factored_pieces = static_cast<unsigned>(plan.factored_pieces), flat_pieces = static_cast<unsigned>(plan.flat_pieces);
    const size_t sums = shared_bytes<double>(block_sum_piece);
    const bool shared = plan.shared_tensors > 0;
    const auto tensor_count = static_cast<unsigned>(count), factored_count = static_cast<unsigned>(args.factored_count);
    launch(context, "adafactor statistics", factored_statistics, factored_pieces, threads, shared_bytes<float>(warps * piece_cols) + sums, args);
    launch(context, "adafactor unfactored statistics", flat_statistics, flat_pieces, threads, sums, args);
    launch(context, "adafactor states", factored_states, static_cast<unsigned>(plan.state_blocks), threads, 0, args);
    if (shared) {
        launch(context, "adafactor shared sums", shared_totals, tensor_count, threads, sums, args);
        settings.add_parts(shared_sums);
        launch(context, "adafactor shared states", shared_states, factored_count, threads, 0, args);
    }
    launch(context, "adafactor means", factored_means, factored_count, threads, sums, args);
    launch(context, "adafactor update squares", factored_update<false>, factored_pieces, threads, sums, args);
    if (shared) {
        launch(context, "adafactor shared squares", shared_squares, tensor_count, threads, sums, args);
        settings.add_parts(shared_squares_of);
    }
    launch(context, "adafactor step sizes", step_sizes, tensor_count, threads, sums, args);
    launch(context, "adafactor update", factored_update<true>, factored_pieces, threads, 0, args);
    launch(context, "adafactor unfactored update", flat_update, flat_pieces, threads, 0, args);
}

void adamw(Context& context, std::span<const ops::AdamWTensor> tensors, const ops::AdamWSettings& settings) {
    Plan plan;
    for (const ops::AdamWTensor& t : tensors) plan.add_flat(t.parameter, t.gradient, t.m, t.v, t.decay);
    Arena::Scope scope(context.arena);
    const double t = static_cast<double>(settings.step + 1);
    AdamW args{};
    args.flat = device_table(context, plan.flat), args.count = static_cast<int>(plan.flat.size());
    args.factor = factor_of(context, settings.gradient_scale, settings.squared_norm, settings.clip);
    args.beta1 = static_cast<float>(settings.beta1), args.fresh1 = static_cast<float>(1 - settings.beta1);
    args.beta2 = static_cast<float>(settings.beta2), args.fresh2 = static_cast<float>(1 - settings.beta2);
    args.step = static_cast<float>(settings.rate / (1 - std::pow(settings.beta1, t))), args.root = static_cast<float>(1 / std::sqrt(1 - std::pow(settings.beta2, t)));
    args.keep = static_cast<float>(1 - settings.rate * settings.weight_decay), args.epsilon = static_cast<float>(settings.epsilon);
    launch(context, "adamw", adamw_update, static_cast<unsigned>(plan.flat_pieces), threads, 0, args);
}

}  // namespace flanmoe::cuda

// Choices of generation: a block a row.
//
// A draw needs the ids in descending order of their logits only up to the drawn one, so nothing is sorted. Every id has a key of 56 bits that orders as
// (logit, lower id first). A descent finds the first id at which the mass (or the number) of ids so far reaches a goal: 8 bits of the key a pass, with the mass and the
// number of ids by digit in shared memory, until a digit holds one id. top-k is a descent by number, top-p one by mass, the draw another. Masses are integers,
// 2^40 for the most probable id, so atomics add them in any order.
// Beams: the C best of every row one after the other, each the best behind the one before; then a warp an input merges those of its rows.
//
// Reads of a row of V logits, which stay in L2: 2 without temperature, else 3 and 4 to 9 a descent; C + 2 for beams. V = 32128: about 10 us a reading of a block in double,
// so 20 us greedy with scores, 60 to 250 us sampled, 100 us with 4 beams; rows side by side. Not yet measured on hardware.
#include "ops/decode.hpp"

#include "device.cuh"
#include "launch.hpp"

#include <limits>

namespace flanmoe::cuda {

namespace {

using Mass = unsigned long long;
constexpr int threads = 512, digits = 256;
constexpr int id_bits = 24, key_bits = 32 + id_bits;
constexpr double unit_mass = 1099511627776.0;  // 2^40

/// The logits of a block's row.
struct Row {
    const float* x;
    int valid;
};

__device__ double minus_infinity() { return -std::numeric_limits<double>::infinity(); }

template <class T>
__device__ bool is_finite(T x) {
    return x - x == 0;
}

/// Unsigned integers that order as floats do; NaN below all, and both zeros alike.
__device__ uint32_t ordered(float x) {
    if (x != x) return 0;
    const uint32_t bits = x == 0 ? 0 : __float_as_uint(x);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
__device__ Mass key_of(const Row& row, int id) { return static_cast<Mass>(ordered(row.x[id])) << id_bits | static_cast<Mass>((1 << id_bits) - 1 - id); }
__device__ int id_of(Mass key) { return (1 << id_bits) - 1 - static_cast<int>(key & ((1 << id_bits) - 1)); }

/// Sum of body(id) over the row, in a fixed order.
template <class T, class Body>
__device__ T sum_over(const Row& row, T* piece, Body&& body) {
    T sum = 0;
    for (int id = static_cast<int>(threadIdx.x); id < row.valid; id += threads) sum += body(id);
    return block_sum(sum, piece);
}

/// Id of the largest logit, the lowest of equal ones.
__device__ int largest_of(const Row& row, Mass* piece) {
    Mass largest = 0;
    for (int id = static_cast<int>(threadIdx.x); id < row.valid; id += threads) {
        const Mass key = key_of(row, id);
        largest = key > largest ? key : largest;
    }
    const auto larger = [](Mass a, Mass b) { return a > b ? a : b; };
    for (int step = warp_size / 2; step > 0; step /= 2) largest = larger(largest, __shfl_xor_sync(full_mask, largest, step));
    return id_of(combine_warps(largest, piece, larger));
}

/// Log of the sum of exponentials beyond the largest logit.
__device__ double log_sum_of(const Row& row, float largest, double* piece) {
    return log(sum_over<double>(row, piece, [&](int id) { return exp(static_cast<double>(row.x[id]) - static_cast<double>(largest)); }));
}

struct Weights {
    const Row& row;
    double largest, temperature;
    __device__ Mass operator()(int id) const { return static_cast<Mass>(exp((static_cast<double>(row.x[id]) - largest) / temperature) * unit_mass); }
};

/// Where a descent stands; in shared memory.
struct Place {
    Mass prefix;  ///< leading bits of the keys that are left, the others 0
    Mass mass, number;  ///< of the ids before them
    int shift;  ///< lowest known bit
    int alone;  ///< one id is left
};
struct Descent {
    Place* place;
    Mass *masses, *numbers;  ///< by digit
};
struct Found {
    int id;
    Mass mass;  ///< up to it and with it
};

/// Chooses the digit at which the goal is reached, from the largest on.
__device__ void choose_digit(const Descent& d, bool by_number, Mass goal) {
    Place& place = *d.place;
    int digit = digits - 1;
    for (; digit > 0; --digit) {
        if ((by_number ? place.number + d.numbers[digit] : place.mass + d.masses[digit]) >= goal) break;
        place.mass += d.masses[digit], place.number += d.numbers[digit];
    }
    place.shift -= 8;
    place.prefix |= static_cast<Mass>(digit) << place.shift;
    place.alone = d.numbers[digit] <= 1;
}

/// Adds the lanes' ids that count to their digits. Most ids of a warp have the same first digit, which is little more than an exponent: then one lane adds for all, since
/// atomics of 64 bits on one word of shared memory wait for each other. For whole warps.
template <class Weight>
__device__ void add_to_digit(const Descent& d, bool counts, int digit, Weight&& weight) {
    const uint32_t counted = __ballot_sync(full_mask, counts);
    if (!counted) return;
    const int common = __shfl_sync(full_mask, digit, __ffs(static_cast<int>(counted)) - 1);
    const Mass mass = counts ? weight() : 0;
    if (__all_sync(full_mask, !counts || digit == common)) {
        const Mass all = warp_sum(mass);
        if (lane() == 0) atomicAdd(&d.masses[common], all), atomicAdd(&d.numbers[common], static_cast<Mass>(__popc(counted)));
    } else if (counts) {
        atomicAdd(&d.masses[digit], mass);
        atomicAdd(&d.numbers[digit], Mass{1});
    }
}

/// The first id, in descending order, at which the mass or the number of ids so far is at least `goal`, which all together reach.
__device__ Found descend(const Row& row, const Weights& weight, const Descent& d, bool by_number, Mass goal) {
    if (threadIdx.x == 0) *d.place = {0, 0, 0, key_bits, 0};
    __syncthreads();
    while (d.place->shift > 0 && !d.place->alone) {
        const int shift = d.place->shift - 8;
        const Mass prefix = d.place->prefix;
        for (int i = static_cast<int>(threadIdx.x); i < digits; i += threads) d.masses[i] = d.numbers[i] = 0;
        __syncthreads();
        for (int first = static_cast<int>(threadIdx.x) - lane(); first < row.valid; first += threads) {
            const int id = first + lane();
            const Mass key = id < row.valid ? key_of(row, id) : 0;
            add_to_digit(d, id < row.valid && key >> (shift + 8) == prefix >> (shift + 8), static_cast<int>(key >> shift & (digits - 1)), [&] { return weight(id); });
        }
        __syncthreads();
        if (threadIdx.x == 0) choose_digit(d, by_number, goal);
        __syncthreads();
    }
    const int shift = d.place->shift;
    const Mass prefix = d.place->prefix, before = d.place->mass;
    __syncthreads();
    for (int id = static_cast<int>(threadIdx.x); id < row.valid; id += threads)
        if (key_of(row, id) >> shift == prefix >> shift) d.place->prefix = static_cast<Mass>(id);
    __syncthreads();
    const int id = static_cast<int>(d.place->prefix);
    __syncthreads();
    return {id, before + weight(id)};
}

struct Choosing {
    Rows<const float> logits;
    int valid;
    double temperature;
    int64_t top_k;
    double top_p;
    const double* draws;
    int32_t* ids;
    double* log_probabilities;
};

__device__ int draw(const Row& row, const Weights& weight, const Descent& d, const Choosing& c, Mass* sums) {
    Mass mass = c.top_k > 0 && c.top_k < row.valid ? descend(row, weight, d, true, static_cast<Mass>(c.top_k)).mass : sum_over<Mass>(row, sums, weight);
    if (c.top_p < 1) {
        const Mass goal = static_cast<Mass>(ceil(c.top_p * static_cast<double>(mass)));
        mass = descend(row, weight, d, false, goal > 0 ? goal : 1).mass;
    }
    const Mass goal = static_cast<Mass>(c.draws[blockIdx.x] * static_cast<double>(mass)) + 1;
    return descend(row, weight, d, false, goal < mass ? goal : mass).id;
}

__global__ void __launch_bounds__(threads) choose_kernel(const Choosing c) {
    Shared shared;
    double* const reals = shared.take<double>(block_sum_piece);
    Mass* const sums = shared.take<Mass>(block_sum_piece);
    const Descent d{shared.take<Place>(1), shared.take<Mass>(digits), shared.take<Mass>(digits)};
    const Row row{c.logits.row(blockIdx.x), c.valid};
    int id = largest_of(row, sums);
    const float largest = row.x[id];
    const bool sampled = c.temperature > 0;
    double log_sum = 0;
    if (sampled || c.log_probabilities) log_sum = log_sum_of(row, largest, reals);
    const bool finite = is_finite(largest) && (!sampled || is_finite(log_sum));
    if (finite && sampled) id = draw(row, {row, largest, c.temperature}, d, c, sums);
    if (threadIdx.x != 0) return;
    c.ids[blockIdx.x] = finite ? id : -1;
    if (c.log_probabilities && finite) c.log_probabilities[blockIdx.x] = static_cast<double>(row.x[id]) - static_cast<double>(largest) - log_sum;
}

struct Candidate {
    double total;
    int row, id;  ///< row < 0: none
};
__device__ bool better(const Candidate& a, const Candidate& b) {
    if ((a.row < 0) != (b.row < 0)) return b.row < 0;
    return a.total != b.total ? a.total > b.total : (a.row != b.row ? a.row < b.row : a.id < b.id);
}
__device__ Candidate best_of_warp(Candidate best) {
    for (int step = warp_size / 2; step > 0; step /= 2) {
        const Candidate other{__shfl_xor_sync(full_mask, best.total, step), __shfl_xor_sync(full_mask, best.row, step), __shfl_xor_sync(full_mask, best.id, step)};
        if (better(other, best)) best = other;
    }
    return best;
}

/// The `count` best continuations of a row, which has `vocabulary` of them; ids[0] = -1 if they are not finite.
__global__ void __launch_bounds__(threads) beam_row_kernel(Rows<const float> logits, int valid, int vocabulary, const double* sums, int beams, int count, double* totals, int32_t* ids) {
    Shared shared;
    double* const reals = shared.take<double>(block_sum_piece);
    Mass* const pieces = shared.take<Mass>(block_sum_piece);
    Candidate* const candidates = shared.take<Candidate>(block_sum_piece);
    const Row row{logits.row(blockIdx.x), valid};
    const float largest = row.x[largest_of(row, pieces)];
    const double log_sum = static_cast<double>(largest) + log_sum_of(row, largest, reals);
    totals += int64_t{blockIdx.x} * count, ids += int64_t{blockIdx.x} * count;
    if (!is_finite(log_sum)) {
        if (threadIdx.x == 0) ids[0] = -1;
        return;
    }
    const double sum = sums[blockIdx.x];
    const int own = static_cast<int>(blockIdx.x) % beams;
    Candidate last{0, -1, 0};
    for (int i = 0; i < count; ++i) {
        Candidate best{0, -1, 0};
        for (int id = static_cast<int>(threadIdx.x); id < vocabulary; id += threads) {
            const Candidate c{sum + (id < valid ? static_cast<double>(row.x[id]) - log_sum : minus_infinity()), own, id};
            if ((last.row < 0 || better(last, c)) && better(c, best)) best = c;
        }
        last = combine_warps(best_of_warp(best), candidates, [](const Candidate& a, const Candidate& b) { return better(b, a) ? b : a; });
        if (threadIdx.x == 0) totals[i] = last.total, ids[i] = last.id;
    }
}

/// The `wanted` best of an input, from the `count` best of each of its rows: a warp.
__global__ void merge_beams_kernel(const double* row_totals, const int32_t* row_ids, int beams, int count, int wanted, double* totals, int32_t* rows, int32_t* ids) {
    const int64_t first = int64_t{blockIdx.x} * beams * count, out = int64_t{blockIdx.x} * wanted;
    bool finite = true;
    for (int b = 0; b < beams; ++b) finite = finite && row_ids[first + int64_t{b} * count] >= 0;
    if (!finite) {
        if (threadIdx.x == 0) ids[out] = -1;
        return;
    }
    Candidate last{0, -1, 0};
    for (int i = 0; i < wanted; ++i) {
        Candidate best{0, -1, 0};
        for (int j = lane(); j < beams * count; j += warp_size) {
            const Candidate c{row_totals[first + j], j / count, row_ids[first + j]};
            if ((last.row < 0 || better(last, c)) && better(c, best)) best = c;
        }
        last = best_of_warp(best);
        if (lane() == 0) totals[out + i] = last.total, rows[out + i] = last.row, ids[out + i] = last.id;
    }
}

}  // namespace

void choose_tokens(Context& context, const ops::ChooseArgs& a) {
    const Choosing choosing{rows_of<const float>(a.logits), static_cast<int>(a.valid), a.temperature, a.top_k, a.top_p, a.temperature > 0 ? a.draws.as<double>() : nullptr,
                            a.ids.as<int32_t>(), a.log_probabilities ? a.log_probabilities.as<double>() : nullptr};
    const size_t bytes = shared_bytes<double>(block_sum_piece) + shared_bytes<Mass>(block_sum_piece) + shared_bytes<Place>(1) + 2 * shared_bytes<Mass>(digits);
    launch(context, "choice of tokens", choose_kernel, static_cast<unsigned>(a.logits.rows()), threads, bytes, choosing);
}

void beam_candidates(Context& context, const ops::BeamArgs& a) {
    Arena::Scope scope(context.arena);
    const int64_t rows = a.logits.rows(), inputs = a.totals.rows(), wanted = a.totals.cols(), count = wanted < a.logits.cols() ? wanted : a.logits.cols();
    const Tensor totals = context.allocate(DType::f64, {rows, count}), ids = context.allocate(DType::i32, {rows, count});
    const size_t bytes = shared_bytes<double>(block_sum_piece) + shared_bytes<Mass>(block_sum_piece) + shared_bytes<Candidate>(block_sum_piece);
    launch(context, "best of a beam", beam_row_kernel, static_cast<unsigned>(rows), threads, bytes, rows_of<const float>(a.logits), static_cast<int>(a.valid), static_cast<int>(a.logits.cols()),
           static_cast<const double*>(a.sums.as<double>()), static_cast<int>(a.beams), static_cast<int>(count), totals.as<double>(), ids.as<int32_t>());
    launch(context, "best of all beams", merge_beams_kernel, static_cast<unsigned>(inputs), warp_size, 0, static_cast<const double*>(totals.as<double>()),
           static_cast<const int32_t*>(ids.as<int32_t>()), static_cast<int>(a.beams), static_cast<int>(count), static_cast<int>(wanted), a.totals.as<double>(), a.rows.as<int32_t>(),
           a.ids.as<int32_t>());
}

}  // namespace flanmoe::cuda

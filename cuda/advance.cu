// The steps of generation: what the chosen tokens do to the rows.
//
// advance_tokens: a thread a row. advance_beams: a warp an input; its lanes take the continuations, a vote says which place each one that runs on gets, and the
// finished ones, old and new, both in order, are merged by counting for each how many of the others are better. follow_rows: a thread an entry. Counts of the status are
// integers, so atomics add them in any order.
//
// Bytes: 30 a row; about 100 a row of beams; 8 an entry of a table, 1.2 MB at 256 rows of 600 positions (moving keys and values of T5-base instead would move 36 KB a
// row and position). Launches, 2 to 4 us each, are what it costs. Not yet measured on hardware.
#include "ops/advance.hpp"

#include "device.cuh"
#include "launch.hpp"

#include <cmath>

namespace flanmoe::cuda {

namespace {

constexpr int threads = 256;

struct Tokens {
    int rows;
    const int32_t* ids;
    const double* log_probabilities;
    int64_t end_id;
    int32_t* next;
    double* sums;
    uint8_t* ended;
    int32_t *tokens, *status;
};

__global__ void advance_tokens_kernel(const Tokens t) {
    const int r = static_cast<int>(blockIdx.x) * threads + static_cast<int>(threadIdx.x);
    const bool runs = r < t.rows && !t.ended[r];
    const int32_t id = runs ? t.ids[r] : -1;
    const bool takes = id >= 0, goes_on = takes && id != t.end_id;
    if (r < t.rows) t.tokens[r] = id;
    if (takes) {
        t.next[r] = id;
        if (t.log_probabilities) t.sums[r] += t.log_probabilities[r];
        t.ended[r] = !goes_on;
    }
    const int going_on = __popc(__ballot_sync(full_mask, goes_on)), not_finite = __popc(__ballot_sync(full_mask, runs && !takes));
    if (lane() == 0 && going_on > 0) atomicAdd(t.status, going_on);
    if (lane() == 0 && not_finite > 0) atomicAdd(t.status + 1, not_finite);
}

struct Hypothesis {
    double score;
    int length, row, id;
};

struct Beams {
    const double* totals;
    const int32_t *rows, *ids;
    int beams;
    int64_t end_id;
    int length;
    double length_term;
    bool last, early_stopping;
    const int32_t* fed;
    double* sums;
    int32_t *tokens, *parents;
    double* scores;
    int32_t *lengths, *finished_rows, *finished_ids;
    uint8_t* done;
    int32_t* status;

    __device__ Hypothesis finished(int64_t at) const { return {scores[at], lengths[at], finished_rows[at], finished_ids[at]}; }
    __device__ void finish(int64_t at, const Hypothesis& h) const { scores[at] = h.score, lengths[at] = h.length, finished_rows[at] = h.row, finished_ids[at] = h.id; }
};

/// Merges `count` new sequences, best first, with those of the input that are finished; of equal ones the old come first.
__device__ void merge_finished(const Beams& b, int64_t first, const Hypothesis* before, const Hypothesis* fresh, int count) {
    int known = 0;
    while (known < b.beams && before[known].length > 0) ++known;
    const auto place = [&](const Hypothesis& h, int at) {
        if (at < b.beams) b.finish(first + at, h);
    };
    for (int i = lane(); i < known; i += warp_size) {
        int better = 0;
        while (better < count && fresh[better].score > before[i].score) ++better;
        place(before[i], i + better);
    }
    for (int i = lane(); i < count; i += warp_size) {
        int better = 0;
        while (better < known && !(before[better].score < fresh[i].score)) ++better;
        place(fresh[i], i + better);
    }
}

__global__ void __launch_bounds__(warp_size) advance_beams_kernel(const Beams b) {
    Shared shared;
    Hypothesis *const before = shared.take<Hypothesis>(b.beams), *const fresh = shared.take<Hypothesis>(b.beams);
    const int64_t n = blockIdx.x, first = n * b.beams;
    const double* const totals = b.totals + 2 * first;
    const int32_t *const rows = b.rows + 2 * first, *const ids = b.ids + 2 * first;
    const bool was_done = b.done[n];
    if (was_done || ids[0] < 0) {
        for (int64_t r = first + lane(); r < first + b.beams; r += warp_size) b.tokens[r] = b.fed[r], b.parents[r] = static_cast<int32_t>(r);
        if (lane() == 0 && !was_done) atomicAdd(b.status + 1, 1);
        return;
    }
    int running = 0, finishing = 0;  // so far
    for (int i = lane(); i - lane() < 2 * b.beams; i += warp_size) {
        const bool there = i < 2 * b.beams, ends = there && ids[i] == b.end_id, finishes = (ends || b.last) && i < b.beams;
        const uint32_t runners = __ballot_sync(full_mask, there && !ends), finishers = __ballot_sync(full_mask, finishes);
        const int place = running + __popc(runners & lanes_below());
        if (there && !ends && place < b.beams) b.tokens[first + place] = ids[i], b.parents[first + place] = static_cast<int32_t>(first) + rows[i], b.sums[first + place] = totals[i];
        if (finishes) fresh[finishing + __popc(finishers & lanes_below())] = {totals[i] / b.length_term, b.length, static_cast<int32_t>(first) + rows[i], ids[i]};
        running += __popc(runners), finishing += __popc(finishers);
    }
    for (int i = lane(); i < b.beams; i += warp_size) before[i] = b.finished(first + i);
    __syncthreads();
    merge_finished(b, first, before, fresh, finishing);
    __syncthreads();
    if (lane() != 0) return;
    const int64_t worst = first + b.beams - 1;
    const bool done = b.last || (b.lengths[worst] > 0 && (b.early_stopping || b.sums[first] / b.length_term <= b.scores[worst]));
    b.done[n] = done;
    if (!done) atomicAdd(b.status, 1);
}

__global__ void follow_rows_kernel(const int32_t* source, const int32_t* from, int64_t rows, int64_t length, int64_t written, int32_t* to) {
    const int64_t at = int64_t{blockIdx.x} * threads + threadIdx.x;
    if (at >= rows * length) return;
    const int64_t r = at / length, p = at % length;
    to[at] = p >= written ? static_cast<int32_t>(r) : from ? from[source[r] * length + p] : source[r];
}

}  // namespace

void advance_tokens(Context& context, const ops::AdvanceTokensArgs& a) {
    const int64_t rows = a.ids.elements();
    launch(context, "tokens taken", advance_tokens_kernel, blocks_for(rows, threads), threads, 0,
           Tokens{static_cast<int>(rows), a.ids.as<int32_t>(), a.log_probabilities ? a.log_probabilities.as<double>() : nullptr, a.end_id, a.next.as<int32_t>(), a.sums.as<double>(),
                  a.ended.as<uint8_t>(), a.tokens.as<int32_t>(), a.status.as<int32_t>()});
}

void advance_beams(Context& context, const ops::AdvanceBeamsArgs& a) {
    const ops::Finished& f = a.finished;
    launch(context, "beams going on", advance_beams_kernel, static_cast<unsigned>(a.done.elements()), warp_size, 2 * shared_bytes<Hypothesis>(a.beams),
           Beams{a.totals.as<double>(), a.rows.as<int32_t>(), a.ids.as<int32_t>(), static_cast<int>(a.beams), a.end_id, static_cast<int>(a.length),
                 std::pow(static_cast<double>(a.length), a.length_penalty), a.last, a.early_stopping, a.fed.as<int32_t>(), a.sums.as<double>(), a.tokens.as<int32_t>(), a.parents.as<int32_t>(),
                 f.scores.as<double>(), f.lengths.as<int32_t>(), f.rows.as<int32_t>(), f.ids.as<int32_t>(), a.done.as<uint8_t>(), a.status.as<int32_t>()});
}

void follow_rows(Context& context, const ops::FollowRowsArgs& a) {
    const int64_t rows = a.to.rows(), length = a.to.cols();
    launch(context, "rows followed", follow_rows_kernel, blocks_for(rows * length, threads), threads, 0, static_cast<const int32_t*>(a.source.as<int32_t>()),
           static_cast<const int32_t*>(a.from ? a.from.as<int32_t>() : nullptr), rows, length, a.written, a.to.as<int32_t>());
}

}  // namespace flanmoe::cuda

// The steps of generation on the CPU.
#include "ops/advance.hpp"

#include "core/parallel.hpp"

#include <algorithm>
#include <cmath>

namespace flanmoe::cpu {

namespace {

/// What an input's finished sequences are kept in, best first.
struct FinishedOfInput {
    double* scores;
    int32_t *lengths, *rows, *ids;
    int64_t most;

    FinishedOfInput(const ops::Finished& f, int64_t first, int64_t most)
        : scores(f.scores.as<double>() + first), lengths(f.lengths.as<int32_t>() + first), rows(f.rows.as<int32_t>() + first), ids(f.ids.as<int32_t>() + first), most(most) {}

    bool full() const { return lengths[most - 1] > 0; }
    double worst() const { return scores[most - 1]; }
    /// Behind those that are as good; the last one makes room.
    void add(double score, int32_t length, int32_t row, int32_t id) {
        int64_t at = 0;
        while (at < most && lengths[at] > 0 && !(scores[at] < score)) ++at;
        if (at == most) return;
        for (int64_t i = most - 1; i > at; --i) scores[i] = scores[i - 1], lengths[i] = lengths[i - 1], rows[i] = rows[i - 1], ids[i] = ids[i - 1];
        scores[at] = score, lengths[at] = length, rows[at] = row, ids[at] = id;
    }
};

void advance_input(const ops::AdvanceBeamsArgs& args, int64_t n) {
    const int64_t beams = args.beams, first = n * beams;
    const double* const totals = args.totals.as<double>() + 2 * first;
    const int32_t *const rows = args.rows.as<int32_t>() + 2 * first, *const ids = args.ids.as<int32_t>() + 2 * first;
    int32_t *const tokens = args.tokens.as<int32_t>() + first, *const parents = args.parents.as<int32_t>() + first, *const status = args.status.as<int32_t>();
    uint8_t& done = args.done.as<uint8_t>()[n];
    if (done || ids[0] < 0) {
        if (!done) ++status[1];
        for (int64_t b = 0; b < beams; ++b) tokens[b] = args.fed.as<int32_t>()[first + b], parents[b] = static_cast<int32_t>(first + b);
        return;
    }
    const double length_term = std::pow(static_cast<double>(args.length), args.length_penalty);
    FinishedOfInput finished(args.finished, first, beams);
    double* const sums = args.sums.as<double>() + first;
    int64_t running = 0;
    for (int64_t i = 0; i < 2 * beams; ++i) {
        const int32_t row = static_cast<int32_t>(first) + rows[i];
        const bool ends = ids[i] == args.end_id;
        if ((ends || args.last) && i < beams) finished.add(totals[i] / length_term, static_cast<int32_t>(args.length), row, ids[i]);
        if (!ends && running < beams) tokens[running] = ids[i], parents[running] = row, sums[running] = totals[i], ++running;
    }
    done = args.last || (finished.full() && (args.early_stopping || sums[0] / length_term <= finished.worst()));
    if (!done) ++status[0];
}

}  // namespace

void advance_tokens(Context&, const ops::AdvanceTokensArgs& args) {
    int32_t *const tokens = args.tokens.as<int32_t>(), *const status = args.status.as<int32_t>();
    uint8_t* const ended = args.ended.as<uint8_t>();
    for (int64_t r = 0; r < args.ids.elements(); ++r) {
        const int32_t id = args.ids.as<int32_t>()[r];
        tokens[r] = -1;
        if (ended[r]) continue;
        if (id < 0) {
            ++status[1];
            continue;
        }
        tokens[r] = args.next.as<int32_t>()[r] = id;
        if (args.log_probabilities) args.sums.as<double>()[r] += args.log_probabilities.as<double>()[r];
        ended[r] = id == args.end_id;
        if (!ended[r]) ++status[0];
    }
}

void advance_beams(Context&, const ops::AdvanceBeamsArgs& args) {
    for (int64_t n = 0; n < args.done.elements(); ++n) advance_input(args, n);
}

void follow_rows(Context&, const ops::FollowRowsArgs& args) {
    const int64_t length = args.to.cols();
    parallel_for(args.to.rows(), 16, [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r) {
            const int32_t source = args.source.as<int32_t>()[r];
            int32_t* const to = args.to.as<int32_t>() + r * length;
            if (args.from) std::copy_n(args.from.as<int32_t>() + source * length, args.written, to);
            else std::fill_n(to, args.written, source);
            std::fill(to + args.written, to + length, static_cast<int32_t>(r));
        }
    });
}

}  // namespace flanmoe::cpu

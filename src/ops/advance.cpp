#include "ops/advance.hpp"

#include "ops/run.hpp"

namespace flanmoe::cpu {
void advance_tokens(Context&, const ops::AdvanceTokensArgs&);
void advance_beams(Context&, const ops::AdvanceBeamsArgs&);
void follow_rows(Context&, const ops::FollowRowsArgs&);
}  // namespace flanmoe::cpu
namespace flanmoe::cuda {
void advance_tokens(Context&, const ops::AdvanceTokensArgs&);
void advance_beams(Context&, const ops::AdvanceBeamsArgs&);
void follow_rows(Context&, const ops::FollowRowsArgs&);
}  // namespace flanmoe::cuda

namespace flanmoe::ops {

namespace {

bool are_integers(std::initializer_list<Tensor> tensors, int64_t elements) {
    for (const Tensor& t : tensors)
        if (!is_vector(t, DType::i32, elements)) return false;
    return true;
}

}  // namespace

void advance_tokens(Context& context, const AdvanceTokensArgs& args) {
    const int64_t rows = args.ids.elements();
    require(are_integers({args.ids, args.next, args.tokens}, rows), "an id chosen, one to feed and one to keep for every row");
    require(is_vector(args.sums, DType::f64, rows) && is_vector(args.ended, DType::u8, rows), "a sum and an end for every row");
    require(!args.log_probabilities || is_vector(args.log_probabilities, DType::f64, rows), "a log-probability for every row");
    require(are_integers({args.status}, 2), "a status of two counts");
    dispatch(context, DType::i32, [&] { cpu::advance_tokens(context, args); }, [&] { cuda::advance_tokens(context, args); });
}

void advance_beams(Context& context, const AdvanceBeamsArgs& args) {
    const int64_t inputs = args.done.elements(), rows = inputs * args.beams;
    require(args.beams >= 1 && args.length >= 1, "at least one beam and one token");
    require(is_vector(args.totals, DType::f64, 2 * rows) && are_integers({args.rows, args.ids}, 2 * rows), "2 x beams continuations of every input");
    require(is_vector(args.sums, DType::f64, rows) && are_integers({args.fed, args.tokens, args.parents}, rows), "a sum, tokens and a parent for every row");
    const Finished& f = args.finished;
    require(is_vector(f.scores, DType::f64, rows) && are_integers({f.lengths, f.rows, f.ids}, rows), "as many finished sequences of an input as it has beams");
    require(is_vector(args.done, DType::u8, inputs) && are_integers({args.status}, 2), "an end for every input and a status of two counts");
    dispatch(context, DType::i32, [&] { cpu::advance_beams(context, args); }, [&] { cuda::advance_beams(context, args); });
}

void follow_rows(Context& context, const FollowRowsArgs& args) {
    const int64_t rows = args.to.rows(), length = args.to.cols();
    require(are_integers({args.to}, rows * length) && are_integers({args.source}, rows), "a table [rows, positions] and a source for every row");
    require(!args.from || (are_integers({args.from}, rows * length) && args.from.data != args.to.data), "two tables of one shape");
    require(args.written >= 0 && args.written <= length, "at most as many written positions as there are");
    dispatch(context, DType::i32, [&] { cpu::follow_rows(context, args); }, [&] { cuda::follow_rows(context, args); });
}

}  // namespace flanmoe::ops

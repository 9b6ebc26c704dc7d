#include "ops/decode.hpp"

#include "ops/run.hpp"

namespace flanmoe::cpu {
void choose_tokens(Context&, const ops::ChooseArgs&);
void beam_candidates(Context&, const ops::BeamArgs&);
}  // namespace flanmoe::cpu
namespace flanmoe::cuda {
void choose_tokens(Context&, const ops::ChooseArgs&);
void beam_candidates(Context&, const ops::BeamArgs&);
}  // namespace flanmoe::cuda

namespace flanmoe::ops {

namespace {

constexpr int64_t most_ids = int64_t{1} << 22;  // masses of all ids are added as integers on CUDA

void check_logits(const Tensor& logits, int64_t valid) {
    require((logits.dtype == DType::f32 || logits.dtype == DType::f64) && is_matrix(logits, logits.dtype, logits.rows(), logits.cols()), "logits in f32 or f64");
    require(valid >= 1 && valid <= logits.cols() && logits.cols() <= most_ids, "1 to V valid ids, V at most 2^22");
}

}  // namespace

void choose_tokens(Context& context, const ChooseArgs& args) {
    const int64_t rows = args.logits.rows();
    check_logits(args.logits, args.valid);
    require(args.temperature >= 0 && args.top_k >= 0 && args.top_p > 0, "a temperature and top_k of at least 0, top_p above 0");
    require(args.temperature == 0 || is_vector(args.draws, DType::f64, rows), "a draw for every row");
    require(is_vector(args.ids, DType::i32, rows) && (!args.log_probabilities || is_vector(args.log_probabilities, DType::f64, rows)), "an id and a log-probability for every row");
    dispatch(context, args.logits.dtype, [&] { cpu::choose_tokens(context, args); }, [&] { cuda::choose_tokens(context, args); });
}

void beam_candidates(Context& context, const BeamArgs& args) {
    const int64_t inputs = args.totals.rows(), count = args.totals.cols();
    check_logits(args.logits, args.valid);
    require(args.beams >= 1 && args.logits.rows() == inputs * args.beams && is_vector(args.sums, DType::f64, args.logits.rows()), "`beams` rows of logits and sums for every input");
    require(count >= 1 && count <= args.beams * args.logits.cols() && is_vector(args.totals, DType::f64, inputs * count), "at most beams x V candidates");
    require(is_vector(args.rows, DType::i32, inputs * count) && is_vector(args.ids, DType::i32, inputs * count), "a row and an id for every candidate");
    dispatch(context, args.logits.dtype, [&] { cpu::beam_candidates(context, args); }, [&] { cuda::beam_candidates(context, args); });
}

}  // namespace flanmoe::ops

#include "ops/elementwise.hpp"

#include "ops/run.hpp"

namespace flanmoe::cpu {
void dropout(Context&, const ops::DropoutArgs&);
void cast(Context&, const Tensor&, const Tensor&);
void add(Context&, const Tensor&, const Tensor&);
void scale(Context&, const Tensor&, double);
void sum_of_squares(Context&, const Tensor&, const Tensor&);
void jitter(Context&, const ops::JitterArgs&);
void sampling_scores(Context&, const ops::SamplingScoresArgs&);
}  // namespace flanmoe::cpu

namespace flanmoe::cuda {
void dropout(Context&, const ops::DropoutArgs&);
void cast(Context&, const Tensor&, const Tensor&);
void add(Context&, const Tensor&, const Tensor&);
void scale(Context&, const Tensor&, double);
void sum_of_squares(Context&, const Tensor&, const Tensor&);
void jitter(Context&, const ops::JitterArgs&);
void sampling_scores(Context&, const ops::SamplingScoresArgs&);
}  // namespace flanmoe::cuda

namespace flanmoe::ops {

namespace {

bool is_flat(const Tensor& tensor) { return is_float(tensor.dtype) && is_vector(tensor, tensor.dtype, tensor.elements()); }

void check_pair(const Tensor& from, const Tensor& to) {
    require(is_flat(from) && is_flat(to) && from.elements() == to.elements(), "two compact floating tensors of as many elements");
}

// The type that decides where an operation on two types runs: double if either is.
DType type_of_both(const Tensor& a, const Tensor& b) { return a.dtype == DType::f64 ? a.dtype : b.dtype; }

}  // namespace

void dropout(Context& context, const DropoutArgs& args) {
    check_pair(args.in, args.out);
    require(args.in.dtype == args.out.dtype, "dropout's output of its input's type");
    dispatch(context, args.in.dtype, [&] { cpu::dropout(context, args); }, [&] { cuda::dropout(context, args); });
}

void cast(Context& context, const Tensor& from, const Tensor& to) {
    check_pair(from, to);
    dispatch(context, type_of_both(from, to), [&] { cpu::cast(context, from, to); }, [&] { cuda::cast(context, from, to); });
}

void add(Context& context, const Tensor& from, const Tensor& to) {
    check_pair(from, to);
    dispatch(context, type_of_both(from, to), [&] { cpu::add(context, from, to); }, [&] { cuda::add(context, from, to); });
}

void scale(Context& context, const Tensor& values, double factor) {
    require(is_flat(values), "a compact floating tensor");
    dispatch(context, values.dtype, [&] { cpu::scale(context, values, factor); }, [&] { cuda::scale(context, values, factor); });
}

void sum_of_squares(Context& context, const Tensor& values, const Tensor& sum) {
    require(is_flat(values), "a compact floating tensor");
    require(is_vector(sum, DType::f64, 1), "a sum in double");
    dispatch(context, values.dtype, [&] { cpu::sum_of_squares(context, values, sum); }, [&] { cuda::sum_of_squares(context, values, sum); });
}

void jitter(Context& context, const JitterArgs& args) {
    check_pair(args.in, args.out);
    dispatch(context, type_of_both(args.in, args.out), [&] { cpu::jitter(context, args); }, [&] { cuda::jitter(context, args); });
}

void sampling_scores(Context& context, const SamplingScoresArgs& args) {
    check_pair(args.logits, args.scores);
    require(args.logits.dtype == args.scores.dtype && args.logits.dtype != DType::bf16, "logits and scores of f32 or f64, both alike");
    require(args.temperature > 0, "a positive temperature");
    dispatch(context, args.logits.dtype, [&] { cpu::sampling_scores(context, args); }, [&] { cuda::sampling_scores(context, args); });
}

}  // namespace flanmoe::ops

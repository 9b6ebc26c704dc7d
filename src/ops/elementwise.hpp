// Small operations over whole tensors: dropout by itself, casts, sums, finite checks, and how a router explores: jitter and sampling.
#pragma once

#include "core/context.hpp"
#include "core/random.hpp"

namespace flanmoe::ops {

struct DropoutArgs {
    Tensor in;   ///< any shape, compact
    Dropout dropout;
    Tensor out;  ///< may be the same memory
};
void dropout(Context& context, const DropoutArgs& args);  ///< its own backward, applied to the gradient

/// to[i] = from[i], converting between f32, bf16 and f64.
void cast(Context& context, const Tensor& from, const Tensor& to);
/// to[i] += from[i]; any two floating types.
void add(Context& context, const Tensor& from, const Tensor& to);
/// values[i] *= factor.
void scale(Context& context, const Tensor& values, double factor);

/// sum[0] += sum of squares in double (f64 [1]), over fixed blocks in a fixed order: the same bits for any number of threads. NaN or infinity in the
/// tensor gives a non-finite sum (finite values cannot overflow it), so this is the finite check of the gradients too.
void sum_of_squares(Context& context, const Tensor& values, const Tensor& sum);

/// Jitter of a router's input copy: out = in * (1 - epsilon + 2 epsilon u), u uniform per element (first + i of the key's stream). Switch: training only,
/// experts see the clean input. Types may differ (the router computes in float). Its backward is the same product on the gradient.
struct JitterArgs {
    Tensor in, out;  ///< [N, D]
    double epsilon = 0;
    RandomKey key;
    uint64_t first = 0;
};
void jitter(Context& context, const JitterArgs& args);

/// Scores whose k largest are k experts drawn from softmax(logits / temperature) without replacement: logits / temperature - ln(-ln(u)), u uniform per element
/// (first + i of the key's stream) and never 0 or 1 (Gumbel's trick, as Mesh TensorFlow's sample_with_temperature).
struct SamplingScoresArgs {
    Tensor logits, scores;  ///< [N, E], f32 or f64
    double temperature = 1;
    RandomKey key;
    uint64_t first = 0;
};
void sampling_scores(Context& context, const SamplingScoresArgs& args);

}  // namespace flanmoe::ops

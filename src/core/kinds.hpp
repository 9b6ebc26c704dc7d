// The alternatives that both configs and operations name.
#pragma once

#include <cstdint>

namespace flanmoe {

/// What computes.
enum class Device : uint8_t { cpu, cuda };
constexpr const char* name_of(Device device) { return device == Device::cuda ? "cuda" : "cpu"; }

/// Activation of a feed-forward. T5's "gelu" is the tanh form when gated, the erf form when not.
enum class Activation : uint8_t { relu, gelu_tanh, gelu_erf, silu };

/// Who decides: tokens choose experts; experts choose tokens; or nobody, tokens go round (forced balanced, for measurements).
enum class RouterKind : uint8_t { token_choice, expert_choice, balanced };
/// What happens to choices after the first: always sent, never, when gate > threshold, or when a uniform draw < gate / threshold.
enum class SecondPolicy : uint8_t { all, none, threshold, random };
/// What counts as load in the balance loss: first choices (sums to 1) or any of the k choices (sums to k).
enum class Density : uint8_t { first, any };

/// What a training step computes again in its backward pass instead of keeping it: nothing; what is cheap (norms' outputs, activations); or all that
/// lies between two sums of the residual stream.
enum class Recompute : uint8_t { none, cheap, full };

}  // namespace flanmoe

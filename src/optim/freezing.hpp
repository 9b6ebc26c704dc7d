// Parts of a model that are not trained: no gradient is applied to them, no optimizer state is held for them, they do not count in the gradient norm, and their
// weights stay the same bits. The parts are those of the FLAN-MoE study (gate, experts, moe, non_moe: what is *frozen*, where ST-MoE lists what is updated) and
// the kinds of parameters that non_moe consists of.
#pragma once

#include "model/parameters.hpp"

#include <string>
#include <vector>

namespace flanmoe {

/// Marks the records of every part of `train.freeze`; before optimizer and store are made. Exit::usage for a part of which the model has nothing, and if nothing
/// is left to train. A frozen gate still has its losses reported; they then act on what the router reads.
void freeze_parameters(ParameterStore& store, const std::vector<std::string>& parts);

}  // namespace flanmoe

// Models of cases: config.json with the case's routing over it, weights, and batches from the case's inputs.
#pragma once

#include "checkpoint/hf_names.hpp"
#include "cli/parity/parity.hpp"
#include "model/transformer.hpp"
#include "ops/engine.hpp"
#include "train/step.hpp"

namespace flanmoe::cli {

/// The case's model with weights and, if asked for, gradients.
std::unique_ptr<Transformer> load_case_model(const ParityCase& given, const Context& context, bool gradients, const Mesh& mesh = one_rank());
/// The layout of the case's config.json, in whose names results are given.
HfLayout case_layout(const ParityCase& given);
/// Loss coefficients of field "loss".
LossCoefficients loss_of(const ParityCase& given);
/// All rows of `input_ids` + suffix and so on as one batch: labels shifted right for an encoder-decoder, shifted left as targets for a decoder-only model.
Batch case_batch(const ParityCase& given, const ModelConfig& config, const std::string& suffix = "");
/// Rows [first, first + count) of a batch as a micro-batch of the same step.
Batch rows_of(const Batch& batch, int64_t first, int64_t count);

}  // namespace flanmoe::cli

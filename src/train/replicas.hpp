// What the ranks of a run must have in common, and sums over those that have rows of their own.
#pragma once

#include "comm/mesh.hpp"
#include "config/config.hpp"
#include "data/loader.hpp"
#include "model/parameters.hpp"
#include "model/transformer.hpp"

#include <string>

namespace flanmoe {

/// Rows that stay together because they are routed together; 0: the whole batch.
int64_t rows_of_group(const ModelConfig& config);
/// This rank's share of the rows of every step; none where the batch has fewer routing groups than there are replicas: then it computes padding. Exit::usage if the batch is
/// one group.
Share share_of(const Config& config, const Mesh& mesh);
/// Losses and routing statistics of all replicas' rows, on every rank.
LossSums sum_over_replicas(const Mesh& mesh, const LossSums& own);
/// Compares, bit by bit, the weights that several ranks have alike. SharedError (Exit::corruption) with tensor and ranks if they differ: those that most others disagree
/// with, or all of them where no side has more.
void check_equal_weights(const ParameterStore& store, const Mesh& mesh, int64_t step);
/// A hash of this program's file.
std::string program_hash();

}  // namespace flanmoe

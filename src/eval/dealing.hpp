// Rows of evaluation over the ranks of a mesh: dealt over its replicas, and what comes of them known to all ranks.
//
// Every rank has the whole batch, whose ids are small, and computes every n-th row of it; tensor ranks share theirs. A replica's rows have the lengths of the
// whole batch, and where ranks exchange rows with experts all have equally many, as such ranks must: one that is left without a row takes the first of the batch,
// and nobody reads what comes of it. Since no row's result depends on the rows beside it, this changes nothing but rounding.
#pragma once

#include "comm/mesh.hpp"
#include "data/batch.hpp"

#include <cstddef>
#include <span>
#include <vector>

namespace flanmoe {

struct Hand {
    std::vector<size_t> rows;  ///< of the batch that this rank computes; may be empty
    size_t own = 0;            ///< the first so many are its own
};
/// This rank's of a batch of so many rows.
Hand hand_of(const Mesh& mesh, int64_t rows);
/// Some rows of a batch, with its lengths.
Batch chosen_rows(const Batch& batch, std::span<const size_t> rows);

/// The largest of the values that ranks give who share experts: how many rows they go on with.
int64_t largest_of_expert_ranks(const Mesh& mesh, int64_t value);
/// Adds values over the replicas; every rank gets the sums.
void add_over_replicas(const Mesh& mesh, std::vector<double>& values);

}  // namespace flanmoe

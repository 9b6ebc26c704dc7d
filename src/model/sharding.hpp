// Who updates which tensor where optimizer state is divided over the ranks that have the same weights (parallel.shard_optimizer).
//
// Tensors stay whole: one rank updates a tensor, so that Adafactor's statistics and the arithmetic of a tensor are those of a run that is not sharded. The flat
// order of all tensors is cut at their borders into one run of nearly equal size a rank: dense tensors over the replicas, experts over the data ranks where
// expert ranks divide them. Gradients are summed to the owner (model/gradient_sync.hpp), which alone has state and, where layers read nothing but the compute
// copy, master weights; what it has updated goes to the others (WeightSync). Small tensors that the forward reads in full precision (norms, routers, biases of
// attention) are updated by everyone; of embeddings, which it reads so too, everyone keeps the master weights.
#pragma once

#include "model/parameters.hpp"

#include <functional>
#include <optional>
#include <vector>

namespace flanmoe {

/// Whether tensors of a record get owners.
bool is_owned(const Parameter& parameter);
/// Owners by record and tensor, of one expert rank's tensors where expert ranks divide them; of nothing where one rank has it alone, or all update it. The same on
/// every rank. The records may be those of a store without ranks.
std::vector<std::vector<int>> owners_of(const std::vector<Parameter>& records, const MeshShape& mesh);

/// Tensors that lie side by side in the flat arrays of a store.
struct FlatRun {
    int64_t first = 0, elements = 0;
    size_t first_record = 0;  ///< least index of the records in it
    Communicator* ranks = nullptr;
    int owner = -1;           ///< of the tensors at its end, as `ranks`
};
/// Cuts a store's tensors into runs of at most `most` elements (a larger tensor is a run of its own), last first. Tensors of a run have the same label; those
/// without one are left out.
std::vector<FlatRun> flat_runs(const ParameterStore& store, int64_t most, const std::function<std::optional<int>(const Parameter& parameter, int64_t tensor)>& label);
/// A label for those with the same owner among the same ranks.
int label_of(const ParameterStore& store, const Parameter& parameter, int64_t tensor);

/// After an update: brings what the owners have updated to the others, as compute copy or, where everyone has them, as master weights; and refreshes the compute
/// copy. Of a store that is not sharded it does the last alone.
class WeightSync {
public:
    /// The store must outlive it, and stay allocated.
    explicit WeightSync(const ParameterStore& store, int64_t piece_bytes = int64_t{64} << 20);
    void run(Context& context) const;

private:
    struct Piece {
        Tensor values;
        Communicator* ranks;
        int owner;
    };
    static void share(Context& context, const std::vector<Piece>& pieces);

    const ParameterStore& store_;
    std::vector<Piece> masters_, computes_;
};

}  // namespace flanmoe

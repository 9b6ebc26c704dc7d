// The order in which examples of several sources come: which slot of which source stands at any place of an endless stream.
//
// An epoch has a fixed number of slots; source s has share[s] of them, in exact proportion to the weights (largest remainders). In epoch e it gives
// the next share[s] slots of its own endless sequence of shuffled passes, so that a source with a cap or a large weight is gone through evenly. The
// slots of an epoch are shuffled. Every place is computed from the seed in constant time: nothing has to be replayed to resume.
#pragma once

#include "data/permutation.hpp"

#include <cstddef>
#include <cstdint>
#include <vector>

namespace flanmoe {

class Mixture {
public:
    /// `sizes`: slots of the sources. Without weights, source s gives min(sizes[s], cap) slots an epoch (cap 0 = all); with weights the epoch has as
    /// many slots in all, or `slots` if that is more, shared out by weight: so that small tasks of large mixtures have their exact share, too.
    Mixture(std::vector<int64_t> sizes, const std::vector<double>& weights, int64_t cap, int64_t seed, bool shuffle, int64_t slots = 0);

    struct Place {
        std::size_t source = 0;
        int64_t pass = 0, slot = 0;
    };
    /// What stands at place `index` of the endless stream; epoch index / epoch_size().
    Place at(int64_t index);
    int64_t epoch_size() const { return first_.back(); }
    /// Slots of a source in an epoch.
    int64_t share(std::size_t source) const { return first_[source + 1] - first_[source]; }

private:
    struct Order {
        int64_t pass = -1;
        Permutation permutation;
    };
    int64_t permuted(Order& order, int64_t pass, uint16_t stream, int64_t size, int64_t index) const;

    std::vector<int64_t> sizes_, first_;
    int64_t seed_;
    bool shuffle_;
    Order epoch_;
    std::vector<Order> passes_;
};

}  // namespace flanmoe

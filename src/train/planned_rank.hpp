// A rank of a mesh that is only planned: it knows its place, so that a model can be declared on it, and exchanges nothing.
#pragma once

#include "comm/communicator.hpp"

namespace flanmoe {

class PlannedRank final : public Communicator {
public:
    PlannedRank(int rank, int size) : rank_(rank), size_(size) {}
    int rank() const override { return rank_; }
    int size() const override { return size_; }
    void all_reduce(Context&, const Tensor&, Reduction) override { refuse(); }
    void all_gather(Context&, const Tensor&, const Tensor&) override { refuse(); }
    void reduce_scatter(Context&, const Tensor&, const Tensor&) override { refuse(); }
    void reduce(Context&, const Tensor&, int) override { refuse(); }
    void all_to_all(Context&, const Tensor&, const std::vector<RowBlock>&, const Tensor&, const std::vector<RowBlock>&) override { refuse(); }
    void broadcast(Context&, const Tensor&, int) override { refuse(); }
    void barrier() override { refuse(); }
    /// The others' colors are not known, nor therefore how many ranks are in the group; a mesh's keys are the ranks in it.
    std::unique_ptr<Communicator> split(int, int key) override { return std::make_unique<PlannedRank>(key, -1); }

private:
    static void refuse() { require(false, "ranks that exist"); }
    int rank_, size_;
};

}  // namespace flanmoe

// Collectives built on one primitive: an exchange of pieces of host memory between pairs of ranks.
//
// An all-reduce cuts the values into one part a rank: everyone sends each rank its part, that rank adds them in the order of ranks, and everyone gathers the
// sums: as many bytes as a ring moves, in two rounds, and the order of summation is fixed. Tensors on a device are staged through pinned host memory.
#pragma once

#include "comm/communicator.hpp"

#include <cstddef>
#include <span>

namespace flanmoe {

class HostCommunicator : public Communicator {
public:
    void all_reduce(Context& context, const Tensor& values, Reduction reduction) override;
    void all_gather(Context& context, const Tensor& part, const Tensor& whole) override;
    void reduce_scatter(Context& context, const Tensor& whole, const Tensor& part) override;
    void reduce(Context& context, const Tensor& values, int root) override;
    void all_to_all(Context& context, const Tensor& send, const std::vector<RowBlock>& blocks_to, const Tensor& receive, const std::vector<RowBlock>& blocks_from) override;
    void broadcast(Context& context, const Tensor& values, int root) override;
    void barrier() override;

protected:
    /// Bytes for, or from, one other rank. An exchange has at most one piece in each direction for a pair of ranks, with the same size on both sides.
    struct Piece {
        int rank = 0;
        std::byte* data = nullptr;
        int64_t bytes = 0;
    };
    /// Sends and receives all pieces; returns when this rank's have arrived and its own may change. `collective` is for messages about ranks that do not come.
    virtual void exchange(Collective collective, std::span<const Piece> sends, std::span<const Piece> receives) = 0;

private:
    void transfer(Collective collective, const std::vector<Piece>& sends, const std::vector<Piece>& receives);
    void reduce_parts(Collective collective, const std::byte* whole, std::byte* part, DType type, Reduction reduction, const std::vector<int64_t>& bounds);

    std::vector<std::byte> incoming_;  ///< the others' parts of a sum
};

}  // namespace flanmoe

#include "comm/communicator.hpp"

namespace flanmoe {

std::vector<RowBlock> side_by_side(const std::vector<int64_t>& rows) {
    std::vector<RowBlock> blocks;
    int64_t first = 0;
    for (const int64_t n : rows) blocks.push_back({first, n}), first += n;
    return blocks;
}

const char* name_of(Collective collective) {
    switch (collective) {
        case Collective::all_reduce: return "all-reduce";
        case Collective::all_gather: return "all-gather";
        case Collective::reduce_scatter: return "reduce-scatter";
        case Collective::reduce: return "reduce";
        case Collective::all_to_all: return "all-to-all";
        case Collective::broadcast: return "broadcast";
        default: return "barrier";
    }
}

void check_blocks(const Communicator& group, const Tensor& send, const std::vector<RowBlock>& blocks_to, const Tensor& receive, const std::vector<RowBlock>& blocks_from) {
    const auto ranks = static_cast<size_t>(group.size()), own = static_cast<size_t>(group.rank());
    require(blocks_to.size() == ranks && blocks_from.size() == ranks, "a block of rows for every rank and one from every rank");
    require(send.compact() && receive.compact() && send.dtype == receive.dtype && send.cols() == receive.cols(), "compact rows of one type and width to exchange");
    for (size_t r = 0; r < ranks; ++r)
        require(blocks_to[r].first + blocks_to[r].rows <= send.rows() && blocks_from[r].first + blocks_from[r].rows <= receive.rows(), "blocks within the rows that are exchanged");
    require(blocks_to[own].rows == blocks_from[own].rows, "as many rows from a rank to itself as it expects");
}

}  // namespace flanmoe

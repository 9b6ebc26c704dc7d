// The group of one rank: every collective is the identity.
#pragma once

#include "comm/communicator.hpp"

namespace flanmoe {

class SingleCommunicator : public Communicator {
public:
    int rank() const override { return 0; }
    int size() const override { return 1; }
    void all_reduce(Context&, const Tensor&, Reduction) override {}
    void all_gather(Context& context, const Tensor& part, const Tensor& whole) override { copy(context, part, whole); }
    void reduce_scatter(Context& context, const Tensor& whole, const Tensor& part) override { copy(context, whole, part); }
    void reduce(Context&, const Tensor&, int) override {}
    void all_to_all(Context& context, const Tensor& send, const std::vector<RowBlock>& blocks_to, const Tensor& receive, const std::vector<RowBlock>& blocks_from) override {
        check_blocks(*this, send, blocks_to, receive, blocks_from);
        copy(context, send.slice_rows(blocks_to[0].first, blocks_to[0].rows), receive.slice_rows(blocks_from[0].first, blocks_from[0].rows));
    }
    void broadcast(Context&, const Tensor&, int) override {}
    void barrier() override {}
    std::unique_ptr<Communicator> split(int, int) override { return std::make_unique<SingleCommunicator>(); }

private:
    static void copy(Context& context, const Tensor& from, const Tensor& to) {
        require(from.bytes() == to.bytes() && from.compact() && to.compact(), "compact tensors of one size");
        if (from.data != to.data) context.engine->copy(to.data, from.data, from.bytes());
    }
};

}  // namespace flanmoe

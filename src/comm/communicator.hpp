// A group of ranks that exchange tensors. Ranks are threads of one process (threads.hpp), processes under MPI (mpi.hpp), or one alone (single.hpp).
//
// Every rank of a group calls the same collectives in the same order with tensors of the same sizes; what that gives does not depend on timing: sums are
// taken in the order of ranks, so every rank gets the same bits, in every run. Tensors are compact and lie in the context's memory, on the host or on a
// device. A group of one is the identity and costs nothing. There is no global state: whoever communicates is given a group.
//
// A rank that fails, leaves or does not answer is an error of all who wait for it (Exit::rank_failed, Exit::hang), never a silent wait.
#pragma once

#include "core/context.hpp"

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

namespace flanmoe {

enum class Reduction : uint8_t { sum, max };

enum class Collective : uint8_t { all_reduce, all_gather, reduce_scatter, reduce, all_to_all, broadcast, barrier };
constexpr int collectives = 7;
const char* name_of(Collective collective);

/// Rows of a tensor that go to, or come from, one rank.
struct RowBlock {
    int64_t first = 0, rows = 0;
};
/// Blocks of so many rows, one behind the other.
std::vector<RowBlock> side_by_side(const std::vector<int64_t>& rows);

/// What this rank sent to others.
struct Traffic {
    int64_t calls = 0, bytes = 0;
};

class Communicator {
public:
    virtual ~Communicator() = default;
    virtual int rank() const = 0;
    virtual int size() const = 0;
    /// True if collectives on tensors of a device are queued there, so that an engine can record them (Engine::run_recorded).
    virtual bool recordable() const { return false; }

    /// In place, element by element over the ranks; f32, f64, bf16 (summed in f32, rounded once), i32 or i64. N bytes over n ranks: all ranks together send
    /// 2 (n - 1) N, each of them 2 (n - 1) / n N where n divides the elements.
    virtual void all_reduce(Context& context, const Tensor& values, Reduction reduction = Reduction::sum) = 0;
    /// whole = the ranks' parts one after the other, all of one size. Each rank sends (n - 1) times its part.
    virtual void all_gather(Context& context, const Tensor& part, const Tensor& whole) = 0;
    /// part = this rank's n-th of the sum of all wholes. Each rank sends (n - 1) times the size of a part.
    virtual void reduce_scatter(Context& context, const Tensor& whole, const Tensor& part) = 0;
    /// root's values become the sum of all, with the bits of all_reduce(); the others' stay. Each but root sends their size.
    virtual void reduce(Context& context, const Tensor& values, int root) = 0;
    /// Rows of `send` [.., D], a block for every rank; they arrive in `receive` [.., D], in a block from every rank. What one rank sends another must be what that
    /// one expects. Each rank sends its rows for others.
    virtual void all_to_all(Context& context, const Tensor& send, const std::vector<RowBlock>& blocks_to, const Tensor& receive, const std::vector<RowBlock>& blocks_from) = 0;
    /// Everyone's values become those of `root`, which sends (n - 1) times their size.
    virtual void broadcast(Context& context, const Tensor& values, int root) = 0;
    /// Returns when every rank has called it.
    virtual void barrier() = 0;
    /// The group of those that give the same color, ordered by key, then by rank. Every rank calls it.
    virtual std::unique_ptr<Communicator> split(int color, int key) = 0;

    const Traffic& traffic(Collective collective) const { return traffic_[static_cast<size_t>(collective)]; }
    void reset_traffic() { traffic_ = {}; }

protected:
    void count(Collective collective, int64_t bytes) {
        Traffic& t = traffic_[static_cast<size_t>(collective)];
        ++t.calls, t.bytes += bytes;
    }

private:
    std::array<Traffic, collectives> traffic_{};
};

/// What every all-to-all asks of its arguments.
void check_blocks(const Communicator& group, const Tensor& send, const std::vector<RowBlock>& blocks_to, const Tensor& receive, const std::vector<RowBlock>& blocks_from);

}  // namespace flanmoe

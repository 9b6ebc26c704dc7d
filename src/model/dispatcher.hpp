// The way of rows from the ranks that have the tokens to the ranks that have the experts, and back.
//
// Every rank routes its own tokens over all experts and sorts their rows by expert (ops/dispatch.hpp). Of G expert ranks, rank g has experts
// [g E / G, (g + 1) E / G): the rows for it lie side by side, and go to it in one all-to-all; it orders what has come by expert (ops/exchange.hpp). One rank alone
// has its rows where they are wanted, and nothing is done.
//
// With a capacity every rank sends every expert as many slots as it could at most fill, C = groups x capacity: the sizes are known before anything is
// computed, and the host waits for nothing. Without one (dropless, incremental decoding) the counts are exchanged first and the host waits for them.
// Ranks of an expert group therefore run micro-batches of the same shape; rows that one lacks are padding.
// The rows travel in chunks of whole experts, pass.exchange_chunks of them, on a lane of their own: while one chunk's rows are computed with, the next one's are
// on their way.
#pragma once

#include "model/pass.hpp"
#include "ops/route.hpp"

#include <functional>
#include <vector>

namespace flanmoe {

/// Consecutive ones of this rank's experts, whose rows lie side by side.
struct ExpertRange {
    int64_t first = 0, count = 0;
    Tensor offsets;  ///< i32 [count + 1] of their rows, among all at this rank
};
/// What is done with the rows of some experts.
using ExpertWork = std::function<void(const ExpertRange&)>;

struct Dispatch {
    int64_t rows = 0;  ///< room for rows at this rank's experts
    Tensor offsets;    ///< i32 [experts here + 1]
    Tensor row_ids;    ///< i64 [rows], as in RouteArgs

    bool exchanges = false;  ///< false: the rows above are those of the routing, and the rest is empty
    struct Chunk {
        ExpertRange experts;
        std::vector<RowBlock> send, receive;  ///< slots for, and from, each rank
    };
    std::vector<Chunk> chunks;
    int64_t sent_slots = 0, received_slots = 0;  ///< of all chunks
    Tensor local_offsets;    ///< of the rows sorted here
    Tensor send_slots;       ///< i32 [rows sorted here]; empty: they are sent as they are
    Tensor receive_slots;    ///< i32 [rows]
};

/// Agrees with the other expert ranks about the rows of one decision.
Dispatch plan_dispatch(Pass& pass, const ops::RouteArgs& route);

/// Pairs: the backward of either is the other. `local` [rows sorted here, W] in the order of the routing, `at_experts` [dispatch.rows, W]; without exchanges they
/// are one tensor. `work` reads the rows at the experts as they arrive,
void rows_to_experts(Pass& pass, const Dispatch& dispatch, const Tensor& local, const Tensor& at_experts, const ExpertWork& work);
/// or writes them before they leave.
void rows_from_experts(Pass& pass, const Dispatch& dispatch, const ExpertWork& work, const Tensor& at_experts, const Tensor& local);

}  // namespace flanmoe

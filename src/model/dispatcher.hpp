// The way of rows from the ranks that have the tokens to the ranks that have the experts, and back.
//
// Every rank routes its own tokens over all experts and sorts their rows by expert (ops/dispatch.hpp). Of G expert ranks, rank g has experts
// [g E / G, (g + 1) E / G): the rows for it lie side by side, and go to it in one all-to-all; it orders what has come by expert (ops/exchange.hpp). One rank alone
// has its rows where they are wanted, and nothing is done.
//
// With a capacity every rank sends every expert as many slots as it could at most fill, C = groups x capacity: the sizes are known before anything is
// computed, and the host waits for nothing. Without one (dropless, incremental decoding) the counts are exchanged first and the host waits for them.
// Ranks of an expert group therefore run micro-batches of the same shape; rows that one lacks are padding.
#pragma once

#include "model/pass.hpp"
#include "ops/route.hpp"

#include <vector>

namespace flanmoe {

struct Dispatch {
    int64_t rows = 0;  ///< room for rows at this rank's experts
    Tensor offsets;    ///< i32 [experts here + 1]
    Tensor row_ids;    ///< i64 [rows], as in RouteArgs

    bool exchanges = false;  ///< false: the rows above are those of the routing, and the rest is empty
    std::vector<int64_t> send, receive;  ///< slots for, and from, each rank
    Tensor local_offsets;    ///< of the rows sorted here
    Tensor send_slots;       ///< i32 [rows sorted here]; empty: they are sent as they are
    Tensor receive_slots;    ///< i32 [rows]
};

/// Agrees with the other expert ranks about the rows of one decision.
Dispatch plan_dispatch(Pass& pass, const ops::RouteArgs& route);

/// Pairs: the backward of either is the other. `local` [rows sorted here, W] in the order of the routing, `at_experts` [dispatch.rows, W]; with exchanges only.
void rows_to_experts(Pass& pass, const Dispatch& dispatch, const Tensor& local, const Tensor& at_experts);
void rows_from_experts(Pass& pass, const Dispatch& dispatch, const Tensor& at_experts, const Tensor& local);

}  // namespace flanmoe

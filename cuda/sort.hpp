// A stable sort of small integers on the device: the positions of equal keys stay in their order, so that sums over them have one.
#pragma once

#include "core/context.hpp"

namespace flanmoe::cuda {

struct SortedPositions {
    Tensor keys;       ///< i32 [N], ascending
    Tensor positions;  ///< i32 [N]: keys[i] = unsorted[positions[i]]; of equal keys ascending
};
/// Sorts compact i32 keys in [0, bound), N < 2^31, into memory of the context's arena that lasts until the caller's scope ends.
SortedPositions sort_positions(Context& context, const Tensor& keys, int64_t bound);

}  // namespace flanmoe::cuda

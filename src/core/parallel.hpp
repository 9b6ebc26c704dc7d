// Loops over threads (OpenMP) with results that do not depend on scheduling.
//
// parallel_for cuts [0, count) into one contiguous piece a thread. ordered_sum adds over fixed blocks in a fixed order: the same bits for any
// number of threads.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace flanmoe {

/// Calls body(begin, end) once a thread; grain = smallest piece worth a thread.
template <class Body>
void parallel_for(int64_t count, int64_t grain, Body&& body) {
    const int64_t pieces = std::min<int64_t>(omp_in_parallel() ? 1 : omp_get_max_threads(), (count + grain - 1) / std::max<int64_t>(grain, 1));
    if (pieces <= 1) {
        if (count > 0) body(int64_t{0}, count);
        return;
    }
#pragma omp parallel num_threads(static_cast<int>(pieces))
    {
        const int64_t n = omp_get_num_threads(), t = omp_get_thread_num();
        const int64_t begin = count * t / n, end = count * (t + 1) / n;
        if (begin < end) body(begin, end);
    }
}

/// Sum over [0, count) of block(begin, end), the blocks having fixed length and being added in order.
template <class T, class Block>
T ordered_sum(int64_t count, int64_t block_length, Block&& block) {
    const int64_t blocks = (count + block_length - 1) / block_length;
    std::vector<T> partial(static_cast<size_t>(blocks));
    parallel_for(blocks, 1, [&](int64_t begin, int64_t end) {
        for (int64_t b = begin; b < end; ++b) partial[static_cast<size_t>(b)] = block(b * block_length, std::min(count, (b + 1) * block_length));
    });
    T sum{};
    for (const T& p : partial) sum += p;
    return sum;
}

}  // namespace flanmoe

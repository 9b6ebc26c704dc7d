// Loops over threads (OpenMP) with results that do not depend on scheduling.
//
// parallel_for cuts [0, count) into one contiguous piece a thread; what a piece throws reaches the caller. ordered_sum adds over fixed blocks in a fixed
// order: the same bits for any number of threads.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <exception>
#include <vector>

namespace flanmoe {

/// Calls body(begin, end) once a thread; grain = smallest piece worth a thread. If pieces throw, the others still run to their ends, then what the
/// first of them in order threw is thrown on: the same error for any timing of the threads.
template <class Body>
void parallel_for(int64_t count, int64_t grain, Body&& body) {
    const int64_t pieces = std::min<int64_t>(omp_in_parallel() ? 1 : omp_get_max_threads(), (count + grain - 1) / std::max<int64_t>(grain, 1));
    if (pieces <= 1) {
        if (count > 0) body(int64_t{0}, count);
        return;
    }
    std::vector<std::exception_ptr> thrown(static_cast<size_t>(pieces));  // leaving a parallel region by an exception would end the program
#pragma omp parallel num_threads(static_cast<int>(pieces))
    {
        const int64_t n = omp_get_num_threads(), t = omp_get_thread_num();
        const int64_t begin = count * t / n, end = count * (t + 1) / n;
        try {
            if (begin < end) body(begin, end);
        } catch (...) {
            thrown[static_cast<size_t>(t)] = std::current_exception();
        }
    }
    for (const std::exception_ptr& exception : thrown)
        if (exception) std::rethrow_exception(exception);
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

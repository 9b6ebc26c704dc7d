// Loops over threads: every element exactly once; sums whose bits do not depend on the number of threads.
#include "core/parallel.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <bit>
#include <mutex>
#include <utility>

using namespace flanmoe;

namespace {

struct Threads {
    explicit Threads(int n) : before(omp_get_max_threads()) { omp_set_num_threads(n); }
    ~Threads() { omp_set_num_threads(before); }
    int before;
};

}  // namespace

TEST_SUITE("core/parallel") {
    TEST_CASE("parallel_for covers the range once, in contiguous pieces, no more of them than the grain allows") {
        for (int threads : {1, 2, 3, 7}) {
            const Threads scope(threads);
            for (int64_t count : {0, 1, 2, 3, 17, 127, 1000}) {
                for (int64_t grain : {0, 1, 10, 1000}) {
                    std::vector<int> seen(static_cast<size_t>(count));
                    std::mutex mutex;
                    std::vector<std::pair<int64_t, int64_t>> pieces;
                    parallel_for(count, grain, [&](int64_t begin, int64_t end) {
                        const std::lock_guard lock(mutex);
                        pieces.emplace_back(begin, end);
                        for (int64_t i = begin; i < end; ++i) ++seen[static_cast<size_t>(i)];
                    });
                    CHECK(std::all_of(seen.begin(), seen.end(), [](int n) { return n == 1; }));
                    const int64_t most = std::min<int64_t>(threads, (count + std::max<int64_t>(grain, 1) - 1) / std::max<int64_t>(grain, 1));
                    CHECK(static_cast<int64_t>(pieces.size()) <= most);
                    for (const auto& [begin, end] : pieces) CHECK(begin < end);
                }
            }
        }
    }

    TEST_CASE("what pieces throw is thrown on, the first in order of all, after the others have ended") {
        for (int threads : {1, 2, 7}) {
            const Threads scope(threads);
            std::atomic<int> ended = 0;
            int64_t thrown = -1;
            try {
                parallel_for(7000, 1, [&](int64_t begin, int64_t end) {
                    ended += static_cast<int>(end - begin);
                    if (end > 1500) throw begin;
                });
            } catch (int64_t begin) {
                thrown = begin;
            }
            CHECK(thrown == (threads == 7 ? 1000 : 0));  // the first piece that reaches beyond 1500
            CHECK(ended == 7000);
        }
    }

    TEST_CASE("inside a parallel region it stays on its thread") {
        const Threads scope(2);
        std::atomic<int> wrong = 0;
        parallel_for(2, 1, [&](int64_t, int64_t) {
            const int outer = omp_get_thread_num();
            parallel_for(100, 1, [&](int64_t begin, int64_t end) {
                if (begin != 0 || end != 100 || omp_get_thread_num() != outer) ++wrong;
            });
        });
        CHECK(wrong == 0);
    }

    TEST_CASE("ordered_sum has the same bits for any number of threads, those of the sum over blocks in order") {
        for (int64_t count : {0, 1, 3, 17, 127, 1000, 4096}) {
            std::vector<float> values(static_cast<size_t>(count));
            for (size_t i = 0; i < values.size(); ++i) values[i] = 1.0f / static_cast<float>(3 + i * 7 % 101);
            const auto block = [&](int64_t begin, int64_t end) {
                float sum = 0;
                for (int64_t i = begin; i < end; ++i) sum += values[static_cast<size_t>(i)];
                return sum;
            };
            float expected = 0;
            for (int64_t b = 0; b < count; b += 16) expected += block(b, std::min<int64_t>(count, b + 16));
            for (int threads : {1, 2, 5}) {
                const Threads scope(threads);
                const float sum = ordered_sum<float>(count, 16, block);
                CHECK(std::bit_cast<uint32_t>(sum) == std::bit_cast<uint32_t>(expected));
            }
        }
    }
}

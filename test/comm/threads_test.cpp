#include "comm/threads.hpp"

#include "comm/collectives.hpp"
#include "comm/single.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>

using namespace flanmoe;
using namespace flanmoe::test;

TEST_SUITE("comm/threads") {
    TEST_CASE("every collective gives what it is defined to, the sums in the order of ranks") {
        for (int n : {1, 2, 3, 4, 8}) {
            CAPTURE(n);
            std::atomic<int> failed = 0;
            run_ranks(n, [&](Communicator& world) {
                Context context;
                const int wrong = failed_collectives(world, context), miscounted = failed_traffic(world, context);
                failed += wrong + 1000 * miscounted;
            });
            CHECK(failed.load() == 0);
        }
    }

    TEST_CASE("a group of one is the identity and sends nothing") {
        SingleCommunicator one;
        Context context;
        CHECK(failed_collectives(one, context) == 0);
        CHECK(failed_traffic(one, context) == 0);
    }

    TEST_CASE("groups of a split, ordered by key, work on their own") {
        std::atomic<int> failed = 0;
        run_ranks(6, [&](Communicator& world) {
            Context context;
            const auto group = world.split(world.rank() % 2, -world.rank());  // 4 2 0 and 5 3 1
            failed += group->size() != 3 || group->rank() != 2 - world.rank() / 2;
            failed += failed_collectives(*group, context);
            const auto pair = group->split(group->rank() == 0 ? 0 : 1, 0);
            failed += pair->size() != (group->rank() == 0 ? 1 : 2);
            failed += failed_collectives(*pair, context);
            failed += failed_collectives(world, context);
        });
        CHECK(failed.load() == 0);
    }

    // Whoever waits must end, and say why.
    TEST_CASE("an error of one rank reaches all") {
        std::atomic<int> told = 0;
        const auto body = [&](Communicator& world) {
            if (world.rank() == 2) fail(Exit::bad_data, "the third rank's file is damaged");
            try {
                world.barrier();
            } catch (const Error& error) {
                told += error.code == Exit::bad_data || error.code == Exit::rank_failed;
                throw;
            }
        };
        CHECK_THROWS_AS(run_ranks(4, body), Error);
        CHECK(told == 3);
    }
    TEST_CASE("a rank that returned while others wait for it is named") {
        try {
            run_ranks(3, [](Communicator& world) {
                const auto pair = world.split(world.rank() == 0 ? 0 : 1, 0);
                if (world.rank() == 2) return;
                pair->barrier();
            });
            FAIL("no error");
        } catch (const Error& error) {
            CHECK(error.code == Exit::rank_failed);
            CHECK(std::string(error.what()) == "rank 2 has ended while others wait for it in barrier");
        }
    }
    TEST_CASE("a rank that does not come in time is named") {
        try {
            const auto late = [](Communicator& world) {
                Context context;
                if (world.rank() == 1) std::this_thread::sleep_for(std::chrono::milliseconds(300));
                world.all_reduce(context, context.zeros(DType::f32, {4}));
            };
            run_ranks(3, late, 0.05);
            FAIL("no error");
        } catch (const Error& error) {
            CHECK(error.code == Exit::hang);
            CHECK(std::string(error.what()) == "rank 1 did not come to all-reduce within 0.05 s");
        }
    }
    // The memory that a rank copies from belongs to another, which may leave only when it has.
    TEST_CASE("a rank that fails elsewhere lets nobody leave an exchange in the middle") {
        for (int delay = 0; delay < 20; ++delay) {
            std::atomic<int> torn = 0;
            const auto body = [&](Communicator& world) {
                const auto pair = world.split(world.rank() < 2 ? 0 : 1, 0);
                if (world.rank() == 2) {
                    std::this_thread::sleep_for(std::chrono::microseconds(100 * delay));
                    fail(Exit::bad_data, "the third rank's file is damaged");
                }
                for (;;) {
                    std::vector<float> mine(1 << 20, static_cast<float>(world.rank() + 1)), both(2 << 20, 0.0f);
                    Context context;
                    const int64_t half = 1 << 20;
                    try {
                        pair->all_gather(context, Tensor(mine.data(), DType::f32, {half}), Tensor(both.data(), DType::f32, {2 * half}));
                    } catch (...) {
                        std::fill(mine.begin(), mine.end(), -1.0f);  // as freed memory would change
                        throw;
                    }
                    torn += std::count(both.begin(), both.end(), -1.0f) > 0;
                }
            };
            CHECK_THROWS_AS(run_ranks(3, body), Error);
            CHECK(torn.load() == 0);
        }
    }
    TEST_CASE("different sizes on the ranks are an error, not a wrong sum") {
        CHECK_THROWS_AS(run_ranks(2,
                                  [](Communicator& world) {
                                      Context context;
                                      world.all_reduce(context, context.zeros(DType::f32, {4 + 2 * world.rank()}));
                                  }),
                        Error);
    }
}

#include "comm/agreement.hpp"

#include "comm/threads.hpp"

#include <doctest/doctest.h>

#include <atomic>

using namespace flanmoe;

TEST_SUITE("comm/agreement") {
    TEST_CASE("texts of any length reach every rank") {
        std::atomic<int> failed = 0;
        run_ranks(4, [&](Communicator& world) {
            const std::string own(static_cast<size_t>(world.rank() * 3), static_cast<char>('a' + world.rank()));  // rank 0 has none
            failed += gather_texts(world, own) != std::vector<std::string>{"", "bbb", "cccccc", "ddddddddd"};
            for (int root : {0, 3}) failed += broadcast_text(world, own, root) != std::string(static_cast<size_t>(root * 3), static_cast<char>('a' + root));
        });
        CHECK(failed.load() == 0);
    }

    TEST_CASE("an error of some ranks becomes that of all, the first one's") {
        std::atomic<int> right = 0;
        const auto body = [&](Communicator& world) {
            together(world, [] {});
            try {
                together(world, [&] {
                    if (world.rank() >= 1) fail(world.rank() == 1 ? Exit::bad_data : Exit::io, "trouble {}", world.rank());
                });
            } catch (const SharedError& error) {
                right += error.code == Exit::bad_data && std::string(error.what()) == "rank 1: trouble 1";
            }
            try {
                together(world, [] { fail(Exit::usage, "a wrong option"); });
            } catch (const SharedError& error) {
                right += error.code == Exit::usage && std::string(error.what()) == "a wrong option";
            }
        };
        run_ranks(3, body);
        CHECK(right.load() == 6);
    }

    TEST_CASE("what differs between ranks is named on all of them") {
        std::atomic<int> right = 0;
        run_ranks(3, [&](Communicator& world) {
            require_same(world, "vocabulary", "same", "");
            try {
                require_same(world, "vocabulary", world.rank() == 2 ? "b" : "a", "copy it");
            } catch (const SharedError& error) {
                right += error.code == Exit::usage && std::string(error.what()) == "rank 2 has another vocabulary than rank 0 (b, not a); copy it";
            }
        });
        CHECK(right.load() == 3);
    }
}

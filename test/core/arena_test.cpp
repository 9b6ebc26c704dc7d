// The bump allocator: alignment, no overlap, reuse after reset and scopes, peak.
#include "core/arena.hpp"

#include <doctest/doctest.h>

#include <cstring>
#include <vector>

using namespace flanmoe;

TEST_SUITE("core/arena") {
    TEST_CASE("allocations are aligned and do not overlap, across chunks too") {
        Arena arena;
        struct Piece {
            char* data;
            int64_t bytes;
        };
        std::vector<Piece> pieces;
        // The last ones are larger than what remains of the first chunk and than a whole chunk.
        constexpr int64_t mb = 1 << 20;
        for (int64_t bytes : {int64_t{0}, int64_t{1}, int64_t{63}, int64_t{64}, int64_t{65}, int64_t{1000}, 31 * mb, 8 * mb, 70 * mb, int64_t{5}}) {
            pieces.push_back({static_cast<char*>(arena.allocate_bytes(bytes)), bytes});
            CHECK(reinterpret_cast<uintptr_t>(pieces.back().data) % 64 == 0);
            std::memset(pieces.back().data, static_cast<int>(pieces.size()), static_cast<size_t>(bytes));
        }
        for (size_t i = 0; i < pieces.size(); ++i) {
            if (pieces[i].bytes == 0) continue;
            CHECK(pieces[i].data[0] == static_cast<char>(i + 1));
            CHECK(pieces[i].data[pieces[i].bytes - 1] == static_cast<char>(i + 1));
        }
        CHECK_THROWS_AS(arena.allocate_bytes(-1), Error);
    }

    TEST_CASE("reset gives the same memory again") {
        Arena arena;
        std::vector<void*> first, second;
        for (std::vector<void*>* round : {&first, &second}) {
            for (int64_t bytes : {int64_t{100}, int64_t{40} << 20, int64_t{7}, int64_t{40} << 20}) round->push_back(arena.allocate_bytes(bytes));
            arena.reset();
        }
        CHECK(first == second);
    }

    TEST_CASE("a settled arena has room for the most it has held, in one piece and without asking the engine") {
        Arena arena;
        const auto round = [&] {
            std::vector<char*> pieces;
            for (int64_t bytes : {int64_t{20} << 20, int64_t{100}, int64_t{40} << 20, int64_t{30} << 20}) pieces.push_back(static_cast<char*>(arena.allocate_bytes(bytes)));
            arena.reset();
            return pieces;
        };
        const std::vector<char*> apart = round();
        CHECK(apart[2] - apart[0] != (int64_t{20} << 20) + 128);  // in a chunk of its own
        arena.settle();
        const std::vector<char*> together = round();
        CHECK(together[1] - together[0] == int64_t{20} << 20);
        CHECK(together[2] - together[1] == 128);
        CHECK(together[3] - together[2] == int64_t{40} << 20);
        CHECK(round() == together);
        arena.settle();
        CHECK(round() == together);
    }

    TEST_CASE("a scope gives back what was allocated inside it, across chunks, and nothing else") {
        Arena arena;
        const Tensor kept = arena.zeros(DType::f32, {16});
        void* inside = nullptr;
        {
            const Arena::Scope scope(arena);
            inside = arena.allocate_bytes(128);
            arena.allocate_bytes(int64_t{64} << 20);
            {
                const Arena::Scope inner(arena);
                arena.allocate_bytes(int64_t{64} << 20);
            }
        }
        CHECK(arena.allocate_bytes(128) == inside);
        CHECK(inside != kept.data);
    }

    TEST_CASE("peak counts what was in use at once") {
        Arena arena;
        arena.allocate_bytes(640);
        {
            const Arena::Scope scope(arena);
            arena.allocate_bytes(6400);
        }
        {
            const Arena::Scope scope(arena);
            arena.allocate_bytes(1280);
        }
        CHECK(arena.peak_bytes() == 640 + 6400);
        arena.reset();
        arena.allocate_bytes(64);
        CHECK(arena.peak_bytes() == 640 + 6400);
    }

    TEST_CASE("zeros are zero in memory that was used before") {
        Arena arena;
        const Tensor used = arena.allocate(DType::f32, {33});
        std::memset(used.data, 0xff, static_cast<size_t>(used.bytes()));
        arena.reset();
        const Tensor zeros = arena.zeros(DType::f32, {33});
        CHECK(zeros.data == used.data);
        for (int i = 0; i < 33; ++i) CHECK(zeros.as<float>()[i] == 0.0f);
    }
}

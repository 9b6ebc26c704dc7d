#include "comm/mesh.hpp"

#include "comm/threads.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <string>

using namespace flanmoe;

namespace {

std::string refusal(MeshShape wanted, int ranks) {
    try {
        mesh_for(wanted, ranks);
    } catch (const Error& error) {
        CHECK(error.code == Exit::usage);
        return error.what();
    }
    return "";
}

/// Ranks of the world in a group, as digits.
std::string members(Communicator& world, Communicator& group) {
    Context context;
    const Tensor mine = context.upload(std::vector<int32_t>{world.rank()}, {1}), all = context.allocate(DType::i32, {group.size()});
    group.all_gather(context, mine, all);
    std::string text;
    for (int32_t r : context.download<int32_t>(all)) text += fmt::format("{}", r);
    return text;
}

}  // namespace

TEST_SUITE("comm/mesh") {
    TEST_CASE("the axes multiply to the ranks, or what to do is said") {
        CHECK(mesh_for({0, 2, 2}, 8) == MeshShape{2, 2, 2});
        CHECK(mesh_for({0, 1, 1}, 7) == MeshShape{7, 1, 1});
        CHECK(mesh_for({1, 4, 2}, 8) == MeshShape{1, 4, 2});
        CHECK(refusal({3, 1, 1}, 2) ==
              "there are 2 ranks, but parallel.data x parallel.expert x parallel.tensor is 3 x 1 x 1; start 3 ranks, or set parallel.data = 2 (0 takes what is left)");
        CHECK(refusal({0, 2, 2}, 6) == "there are 6 ranks, but parallel.data x parallel.expert x parallel.tensor is (what is left) x 2 x 2; start a multiple of 4 ranks, "
                                       "or change parallel.expert and parallel.tensor");
        CHECK(refusal({0, 65536, 65536}, 2).find("start a multiple of 4294967296 ranks") != std::string::npos);
    }

    TEST_CASE("who is in which group") {
        struct Expected {
            std::string data, expert, tensor, replicas;
        };
        std::atomic<int> failed = 0;
        run_ranks(8, [&](Communicator& world) {
            const Mesh mesh(world, {2, 2, 2});
            const int r = world.rank();
            failed += (mesh.data_index() * 2 + mesh.expert_index()) * 2 + mesh.tensor_index() != r;
            failed += mesh.replica_index() != mesh.data_index() * 2 + mesh.expert_index();
            const Expected first{"04", "02", "01", "0246"}, last{"37", "57", "67", "1357"};
            for (const auto& [rank, expected] : {std::pair{0, first}, std::pair{7, last}}) {
                const Expected found{members(world, mesh.data()), members(world, mesh.expert()), members(world, mesh.tensor()), members(world, mesh.replicas())};
                if (r != rank) continue;
                failed += found.data != expected.data || found.expert != expected.expert || found.tensor != expected.tensor || found.replicas != expected.replicas;
            }
        });
        CHECK(failed.load() == 0);
    }

    TEST_CASE("a mesh of one rank") {
        const Mesh mesh;
        CHECK(mesh.world().size() == 1);
        CHECK(mesh.replicas().size() == 1);
        CHECK(mesh.replica_index() == 0);
    }
}

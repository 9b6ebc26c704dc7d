// The suite comm/mpi runs anywhere and starts itself again under mpirun, where the suite comm/mpi-ranks then runs as a rank.
#include "comm/mpi.hpp"

#include "comm/collectives.hpp"
#include "comm/mesh.hpp"

#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <map>
#include <string>

using namespace flanmoe;
using namespace flanmoe::test;

namespace {

std::map<std::string, std::string> environment;
std::optional<Launch> launch_in(std::map<std::string, std::string> variables) {
    environment = std::move(variables);
    return launch_of([](const char* name) -> const char* {
        const auto found = environment.find(name);
        return found == environment.end() ? nullptr : found->second.c_str();
    });
}

}  // namespace

TEST_SUITE("comm/mpi") {
    TEST_CASE("a launcher is known by PMIx, Open MPI, or a Slurm step; a batch script is none") {
        CHECK(!launch_in({}));
        CHECK(!launch_in({{"SLURM_PROCID", "0"}, {"SLURM_LOCALID", "0"}, {"SLURM_NTASKS", "2"}}));
        const auto mpirun = launch_in({{"PMIX_RANK", "1"}, {"OMPI_COMM_WORLD_RANK", "1"}, {"OMPI_COMM_WORLD_SIZE", "3"}});
        REQUIRE(mpirun);
        CHECK(mpirun->rank == 1);
        CHECK(mpirun->ranks == 3);
        const auto step = launch_in({{"PMIX_RANK", "2"}, {"SLURM_STEP_ID", "0"}, {"SLURM_PROCID", "2"}, {"SLURM_STEP_NUM_TASKS", "4"}});
        REQUIRE(step);
        CHECK(step->rank == 2);
        CHECK(step->ranks == 4);
        const auto without_pmix = launch_in({{"SLURM_STEP_ID", "0"}, {"SLURM_PROCID", "1"}, {"SLURM_NTASKS", "2"}});
        REQUIRE(without_pmix);
        CHECK(without_pmix->rank == 1);
        CHECK(without_pmix->ranks == 2);
    }

    TEST_CASE("collectives between processes") {
        if (launch()) return;
        for (int ranks : {1, 2, 4}) {
            CAPTURE(ranks);
            const std::string command =
                fmt::format("ASAN_OPTIONS=detect_leaks=0 OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 mpirun --oversubscribe -n {} \"$(readlink /proc/{}/exe)\" -ts=comm/mpi-ranks -m", ranks,
                            ::getpid());
            CHECK(std::system((command + " > /dev/null").c_str()) == 0);
        }
    }
}

TEST_SUITE("comm/mpi-ranks") {
    TEST_CASE("collectives of the world, of a mesh's groups, and across pieces") {
        if (!launch()) return;
        Mpi mpi;
        mpi.set_timeout(60);
        Communicator& world = mpi.world();
        Context context;
        CHECK(failed_collectives(world, context) == 0);
        CHECK(failed_traffic(world, context) == 0);
        const Mesh mesh(world, mesh_for({0, world.size() % 2 ? 1 : 2, 1}, world.size()));
        for (Communicator* group : {&mesh.data(), &mesh.expert(), &mesh.tensor(), &mesh.replicas()}) CHECK(failed_collectives(*group, context) == 0);
        // More than one round of an all-reduce.
        const int64_t count = (int64_t{17} << 20) + 5;
        const Tensor values = context.upload(std::vector<float>(static_cast<size_t>(count), static_cast<float>(world.rank() + 1)), {count});
        world.all_reduce(context, values);
        const float sum = static_cast<float>(world.size() * (world.size() + 1) / 2);
        int64_t wrong = 0;
        for (float v : context.download<float>(values)) wrong += v != sum;
        CHECK(wrong == 0);
        // Messages beside the collectives.
        const auto mailbox = mpi.mailbox();
        const int32_t mine = 100 + world.rank();
        for (int r = 0; r < world.size(); ++r) mailbox->send(r, std::as_bytes(std::span(&mine, 1)));
        std::map<int, int32_t> came;
        const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
        while (static_cast<int>(came.size()) < world.size() && std::chrono::steady_clock::now() < deadline) {
            int32_t message = 0;
            const int sender = mailbox->receive(std::as_writable_bytes(std::span(&message, 1)));
            if (sender >= 0) came[sender] = message;
        }
        CHECK(static_cast<int>(came.size()) == world.size());
        for (const auto& [sender, message] : came) CHECK(message == 100 + sender);
        world.barrier();
        mpi.finish();
    }
}

// The suite comm/mpi runs anywhere and starts itself again under mpirun, where the suite comm/mpi-ranks then runs as a rank.
#include "comm/mpi.hpp"

#include "comm/collectives.hpp"
#include "comm/mesh.hpp"

#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <functional>
#include <map>
#include <string>
#include <thread>

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

std::string sentence_of(Exit code, const std::function<void()>& work) {
    try {
        work();
    } catch (const Error& error) {
        CHECK(error.code == code);
        return error.what();
    }
    return "";
}

/// All but rank 0 come late to a broadcast of rank 0, which has only what it sends to wait for; then to one where ranks wait without limit.
void late_ranks(Mpi& mpi, Context& context) {
    Communicator& world = mpi.world();
    const Tensor values = context.zeros(DType::f32, {1 << 22});  // too much to be sent before anybody asks for it
    const auto broadcast = [&](double after) {
        if (world.rank() > 0) std::this_thread::sleep_for(std::chrono::duration<double>(after));
        return sentence_of(Exit::hang, [&] { world.broadcast(context, values, 0); });
    };
    world.barrier();
    if (world.rank() == 0) mpi.set_timeout(0.5);
    const std::string sentence = broadcast(1.5);
    std::vector<int> others;
    for (int r = 1; r < world.size(); ++r) others.push_back(r);
    CHECK(sentence == (world.rank() == 0 ? fmt::format("rank {} did not come to broadcast within 1 s (parallel.timeout)", fmt::join(others, ", ")) : ""));
    {
        const Unhurried alone(mpi.activity());
        CHECK(broadcast(1.5).empty());
    }
    mpi.set_timeout(60);
    // What a thread of its own exchanges is not where this rank is.
    std::thread([&] {
        const int64_t before = mpi.activity().collectives, begun = mpi.progress().begun;
        world.barrier();
        CHECK(mpi.activity().collectives == before);
        CHECK(mpi.progress().begun == begun + 1);
        CHECK(mpi.progress().ended == begun + 1);
    }).join();
}

/// A mistake of ours is not taken for a rank that is gone.
void other_sizes(Communicator& world, Context& context) {
    const auto pair = world.split(world.rank() / 2, world.rank());
    const std::string sentence = sentence_of(Exit::internal, [&] {
        const int64_t rows = pair->rank() == 0 ? 4 : 8;
        pair->all_gather(context, context.zeros(DType::f32, {rows}), context.zeros(DType::f32, {rows * pair->size()}));
    });
    CHECK(sentence.find("the same collective with the same sizes on every rank") != std::string::npos);
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
        const auto mpich = launch_in({{"PMI_RANK", "1"}, {"PMI_SIZE", "2"}, {"PMI_FD", "7"}});
        REQUIRE(mpich);
        CHECK(mpich->foreign);
        CHECK(mpich->rank == 1);
        CHECK(mpich->ranks == 2);
        CHECK(!mpirun->foreign);
        CHECK(!launch_in({{"PMI_RANK", "0"}, {"PMI_SIZE", "1"}}));
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
        if (world.size() > 1) {
            late_ranks(mpi, context);
            other_sizes(world, context);
        }
        world.barrier();
        mpi.finish();
    }
}

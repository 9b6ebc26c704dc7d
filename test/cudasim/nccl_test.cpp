// Ranks as threads, each with an engine of its own on the simulator, exchanging tensors through NCCL's stand-in.
#include "cuda/nccl.hpp"

#include "comm/collectives.hpp"
#include "comm/threads.hpp"
#include "cuda/engine.hpp"

#include <nccl.h>

#include <atomic>
#include <chrono>
#include <thread>

using namespace flanmoe;
using namespace flanmoe::test;

namespace {

// As many devices as ranks, while it lives.
struct Devices {
    explicit Devices(int count) { cudasim::machine().devices = count; }
    ~Devices() { cudasim::machine().devices = 1; }
};

void run_on_gpus(int n, const std::function<void(Communicator&, Context&)>& body, const std::function<void(const std::string&)>& failed = [](const std::string&) {}) {
    const Devices devices(n);
    run_ranks(n, [&](Communicator& world) {
        cuda::Engine engine(world.rank());
        Context context(Device::cuda, engine);
        Progress progress;
        const auto group = cuda::nccl_communicator(context, world, progress, failed);
        body(*group, context);
    });
}

}  // namespace

TEST_SUITE("cudasim/nccl") {
    TEST_CASE("every collective gives what it is defined to, and counts what it sends") {
        for (int n : {1, 2, 3, 4}) {
            CAPTURE(n);
            std::atomic<int> failed = 0;
            run_on_gpus(n, [&](Communicator& world, Context& context) {
                const int wrong = failed_collectives(world, context), miscounted = failed_traffic(world, context);
                failed += wrong + 1000 * miscounted;
            });
            CHECK(failed.load() == 0);
        }
    }

    TEST_CASE("groups of a split work on their own, in any order") {
        std::atomic<int> failed = 0;
        run_on_gpus(4, [&](Communicator& world, Context& context) {
            const auto pair = world.split(world.rank() % 2, -world.rank());
            failed += pair->size() != 2 || pair->rank() != 1 - world.rank() / 2;
            failed += failed_collectives(*pair, context);
            failed += failed_collectives(world, context);
        });
        CHECK(failed.load() == 0);
    }

    TEST_CASE("collectives follow the work before them on the stream without the host waiting") {
        std::atomic<int> failed = 0;
        run_on_gpus(2, [&](Communicator& world, Context& context) {
            const Tensor values = context.upload(std::vector<float>(1000, static_cast<float>(world.rank() + 1)), {1000});
            world.barrier();  // nobody waits for the device between here
            const auto before = cudasim::counters().synchronisations;
            for (int i = 0; i < 3; ++i) world.all_reduce(context, values);  // 3, 6, 12
            failed += cudasim::counters().synchronisations != before;
            world.barrier();  // and here
            for (const float v : context.download<float>(values)) failed += v != 12;
        });
        CHECK(failed.load() == 0);
    }

    TEST_CASE("a graph repeats a collective") {
        std::atomic<int> failed = 0;
        run_on_gpus(2, [&](Communicator& world, Context& context) {
            const Tensor values = context.upload(std::vector<float>(10, static_cast<float>(world.rank() + 1)), {10});
            const cudaStream_t stream = cuda::engine_of(context).stream();
            cudaGraph_t graph = nullptr;
            cudaGraphExec_t exec = nullptr;
            failed += cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) != cudaSuccess;
            world.all_reduce(context, values);
            failed += cudaStreamEndCapture(stream, &graph) != cudaSuccess;
            failed += cudaGraphInstantiate(&exec, graph) != cudaSuccess;
            for (int i = 0; i < 3; ++i) failed += cudaGraphLaunch(exec, stream) != cudaSuccess;
            for (const float v : context.download<float>(values)) failed += v != 12;
            cudaGraphExecDestroy(exec), cudaGraphDestroy(graph);
        });
        CHECK(failed.load() == 0);
    }

    TEST_CASE("ranks that share a GPU do without it, all of them") {
        const Devices devices(1);
        std::atomic<int> without = 0;
        run_ranks(2, [&](Communicator& world) {
            cuda::Engine engine(world.rank());
            Context context(Device::cuda, engine);
            Progress progress;
            without += cuda::nccl_communicator(context, world, progress, [](const std::string&) {}) == nullptr;
        });
        CHECK(without.load() == 2);
    }

    TEST_CASE("tensors of the host go over the host's group") {
        std::atomic<int> failed = 0;
        run_on_gpus(2, [&](Communicator& world, Context&) {
            Context host;
            failed += failed_collectives(world, host);
        });
        CHECK(failed.load() == 0);
    }

    TEST_CASE("of a collective that another rank has not come to, progress says that the device is in it, and where in the step it was queued") {
        const Devices devices(2);
        std::atomic<int> failed = 0;
        run_ranks(2, [&](Communicator& world) {
            cuda::Engine engine(world.rank());
            Context context(Device::cuda, engine);
            Activity activity;
            Progress progress;
            context.activity = &activity;
            failed += progress.of_device().begun != 0;
            {
                const auto group = cuda::nccl_communicator(context, world, progress, [](const std::string&) {});
                const Tensor values = context.zeros(DType::f32, {10});
                if (world.rank() == 0) {
                    auto part = context.part("experts forward", 3);
                    group->all_reduce(context, values);
                }
                world.barrier();
                const DeviceProgress::Reached waiting = progress.of_device();
                failed += waiting.begun != (world.rank() == 0 ? 1 : 0) || waiting.ended != 0;
                if (world.rank() == 0) failed += waiting.part != std::string("experts forward") || waiting.layer != 3 || waiting.collective != std::string("all-reduce");
                world.barrier();
                if (world.rank() == 1) group->all_reduce(context, values);
                engine.synchronize();
                const DeviceProgress::Reached done = progress.of_device();
                failed += done.begun != 1 || done.ended != 1;
                world.barrier();
            }
            failed += progress.of_device().begun != 0;
        });
        CHECK(failed.load() == 0);
    }

    TEST_CASE("an error after a collective was queued is told, once") {
        std::atomic<int> told = 0;
        run_on_gpus(
            2,
            [&](Communicator& world, Context&) {
                world.barrier();
                cudasim::break_groups(ncclRemoteError);
                for (int i = 0; i < 300 && told.load() < 2; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
                world.barrier();
                cudasim::break_groups(ncclSuccess);
            },
            [&](const std::string& sentence) { told += sentence == "NCCL reports that a rank or a link is gone: remote process exited or there was a network error"; });
        CHECK(told.load() == 2);
    }
}

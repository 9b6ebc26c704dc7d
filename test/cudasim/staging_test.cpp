// Ranks as threads that share the simulated GPU and exchange tensors through the host.
#include "comm/collectives.hpp"
#include "comm/threads.hpp"
#include "cuda/engine.hpp"
#include "cudasim/kernels.hpp"
#include "cudasim/runtime_api.hpp"

#include <atomic>

using namespace flanmoe;
using namespace flanmoe::test;

TEST_SUITE("cudasim/staging") {
    TEST_CASE("tensors of a device are staged through pinned memory, which is kept, and what comes back is there for the work behind it") {
        const cudasim::test::DeferredStreams deferred;
        std::atomic<int> failed = 0;
        run_ranks(3, [&](Communicator& world) {
            cuda::Engine engine;
            engine.set_separate_allocations(false);
            Context context(Device::cuda, engine);
            failed += failed_collectives(world, context);
            const Tensor values = context.upload(std::vector<float>(5000, static_cast<float>(world.rank() + 1)), {1000, 5}), rows = context.zeros(DType::f32, {1000, 5});
            const auto exchange = [&] {
                world.all_reduce(context, values);
                world.all_to_all(context, values, std::vector<RowBlock>(3, {0, 100}), rows, std::vector<RowBlock>(3, {200, 100}));
                world.broadcast(context, rows, 1);
            };
            exchange();  // 6
            world.barrier();
            const cudasim::Counters before = cudasim::counters();
            world.barrier();
            exchange();  // 18
            world.barrier();
            const cudasim::Counters after = cudasim::counters();
            failed += after.pageable_copies != before.pageable_copies;
            failed += after.allocations != before.allocations;
            world.barrier();
            for (const float v : context.download<float>(values)) failed += v != 18;
            // The second takes the first's place on the host without reading anything that would wait for it.
            const auto filled = [&](float value) { return context.upload(std::vector<float>(100, world.rank() == 0 ? value : 0), {100}); };
            const Tensor first = filled(3), second = filled(4);
            world.broadcast(context, first, 0);
            world.broadcast(context, second, 0);
            for (const float v : context.download<float>(first)) failed += v != 3;
            for (const float v : context.download<float>(second)) failed += v != 4;
        });
        CHECK(failed.load() == 0);
    }
}

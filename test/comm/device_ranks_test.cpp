// One rank with the device that the tests run on (`--device cuda`): all of NCCL that a machine with one GPU can prove.
#include "comm/device_ranks.hpp"

#include "comm/collectives.hpp"
#include "comm/single.hpp"
#include "core/lane.hpp"
#include "device.hpp"
#include "ops/engine.hpp"

#include <string>

using namespace flanmoe;
using namespace flanmoe::test;

TEST_SUITE("comm/device_ranks") {
    TEST_CASE("one rank is a group over NCCL: every collective, as work of its own, in a recorded graph and on a lane; progress follows") {
        if (test_device() != Device::cuda) return;
        DeviceContext context(Device::cuda);
        Activity activity;
        Progress progress;
        context.activity = &activity;
        SingleCommunicator host;
        const auto group = device_ranks(context, host, progress, [](const std::string& sentence) { FAIL(sentence); });
        REQUIRE(group);
        CHECK(group->size() == 1);
        CHECK(group->recordable());
        CHECK(progress.of_device().begun == 0);
        CHECK(failed_collectives(*group, context) == 0);
        CHECK(failed_traffic(*group, context) == 0);
        context.engine->synchronize();
        const DeviceProgress::Reached before = progress.of_device();
        CHECK(before.begun > 0);
        CHECK(before.begun == before.ended);

        const std::vector<float> expected{1, 2, 3};
        const Tensor values = context.upload(expected, {3});
        std::unique_ptr<Engine::Recording> recording;
        for (int i = 0; i < 3; ++i) {
            context.engine->run_recorded(recording, [&] {
                auto part = context.part("gradient sums", 2);
                group->all_reduce(context, values);
            });
        }
        CHECK(context.download<float>(values) == expected);
        const DeviceProgress::Reached recorded = progress.of_device();
        CHECK(recorded.begun > before.begun);
        CHECK(recorded.begun == recorded.ended);
        CHECK(std::string(recorded.part) == "gradient sums");
        CHECK(recorded.layer == 2);
        CHECK(std::string(recorded.collective) == "all-reduce");

        const auto lane = context.engine->make_lane();
        lane->wait(lane->run([&](Context& beside) { group->reduce(beside, values, 0); }));
        CHECK(context.download<float>(values) == expected);
        CHECK(progress.of_device().begun > recorded.begun);
        CHECK(std::string(progress.of_device().collective) == "reduce");
        recording.reset();  // before its group
    }
}

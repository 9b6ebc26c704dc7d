// The benchmark on threads: the same steps on any mesh, rates of all ranks together, and bytes that are those of the plan.
#include "train/benchmark.hpp"

#include "comm/threads.hpp"

#include <doctest/doctest.h>

#include <mutex>

using namespace flanmoe;

namespace {

Config wide() {
    return parse_config(R"(
[model]
vocab_size = 96
d_model = 64
heads = 4
d_kv = 4
d_ff = 32
activation = "relu"
dropout = 0.1
encoder_layers = 2
decoder_layers = 2
[moe]
experts = 4
every = 2
router = "switch"
[data]
encoder_length = 32
decoder_length = 8
batch_rows = 8
micro_batch_rows = 2
[train]
dtype = "f32"
)", "wide.toml");
}

const BenchmarkSettings quick{.warmup = 1, .steps = 2, .matmul_size = 32};

BenchmarkResult on_mesh(const Config& config, const MeshShape& shape) {
    BenchmarkResult result;
    std::mutex mutex;
    run_ranks(shape.ranks(), [&](Communicator& world) {
        const Mesh mesh(world, shape);
        Context context;
        const BenchmarkResult own = run_benchmark(context, config, quick, mesh);
        const std::lock_guard lock(mutex);
        if (world.rank() == shape.ranks() - 1) result = own;
    });
    return result;
}

}  // namespace

TEST_SUITE("train/benchmark") {
    TEST_CASE("any mesh makes the steps of one rank, and sends what the plan says") {
        const Config config = wide();
        const BenchmarkResult one = on_mesh(config, {1, 1, 1});
        CHECK(one.collectives.empty());
        CHECK(one.tokens_per_second == doctest::Approx(8 * 40 / one.step.median));
        for (const MeshShape shape : {MeshShape{4, 1, 1}, MeshShape{3, 1, 1}, MeshShape{1, 2, 1}, MeshShape{1, 1, 2}, MeshShape{2, 2, 1}, MeshShape{1, 2, 2}}) {
            CAPTURE(shape.text());
            const BenchmarkResult result = on_mesh(config, shape);
            CHECK(result.loss == doctest::Approx(one.loss).epsilon(1e-4));  // f32, three steps
            CHECK(result.work.rows == 8);
            CHECK(result.parameters == one.parameters);
            CHECK(result.tokens_per_second == doctest::Approx(8 * 40 / result.step.median));
            int planned = 0;
            for (const CollectiveTraffic& c : result.collectives) {
                CAPTURE(c.group);
                CAPTURE(name_of(c.kind));
                ++planned;
                CHECK(c.bytes == doctest::Approx(c.planned).epsilon(1e-9));
            }
            CHECK(planned >= 1 + (shape.expert > 1) + (shape.tensor > 1 && shape.expert > 1));
            const std::string json = to_json(result), table = to_table(result);
            CHECK(json.find(fmt::format("\"ranks\": {}", shape.ranks())) != std::string::npos);
            CHECK(json.find("\"planned_bytes\"") != std::string::npos);
            CHECK(table.find("a rank sends in a step") != std::string::npos);
        }
    }

    TEST_CASE("a sharded optimizer makes the same steps, and sends what the plan says") {
        for (const std::vector<std::string>& changes : {std::vector<std::string>{}, {"optimizer.kind=\"adamw\""}, {"train.dtype=\"bf16\"", "train.forward=\"bf16\""}, {"train.freeze=[\"attention\"]"}}) {
            const Config config = override_config(wide(), changes);
            std::vector<std::string> more = changes;
            more.push_back("parallel.shard_optimizer=true");
            const Config sharded = override_config(wide(), more);
            for (const MeshShape shape : {MeshShape{4, 1, 1}, MeshShape{2, 2, 1}, MeshShape{1, 2, 2}}) {
                CAPTURE(shape.text());
                CAPTURE(fmt::format("{}", fmt::join(changes, " ")));
                const BenchmarkResult result = on_mesh(sharded, shape);
                CHECK(result.loss == on_mesh(config, shape).loss);
                bool reduced = false, shared = false;
                for (const CollectiveTraffic& c : result.collectives) {
                    CAPTURE(c.group);
                    CAPTURE(name_of(c.kind));
                    CHECK(c.bytes == doctest::Approx(c.planned).epsilon(1e-9));
                    reduced |= c.kind == Collective::reduce, shared |= c.kind == Collective::broadcast;
                }
                CHECK((reduced && shared));
            }
        }
    }

    TEST_CASE("what is frozen is not sent") {
        const Config config = override_config(wide(), {"train.freeze=[\"attention\"]"});
        const BenchmarkResult all = on_mesh(wide(), {2, 1, 1}), less = on_mesh(config, {2, 1, 1});
        REQUIRE((all.collectives.size() == 1 && less.collectives.size() == 1));
        CHECK(less.collectives[0].bytes < 0.95 * all.collectives[0].bytes);
        CHECK(less.collectives[0].bytes == doctest::Approx(less.collectives[0].planned).epsilon(1e-9));
    }

    TEST_CASE("a config that a mesh cannot run is refused on every rank") {
        const Config config = wide();
        try {
            on_mesh(config, {1, 3, 1});
            FAIL("not refused");
        } catch (const Error& error) {
            CHECK(error.code == Exit::usage);
            CHECK(std::string(error.what()).find("4 experts do not divide over parallel.expert = 3 ranks") == 0);
        }
    }
}

#include "train/plan.hpp"

#include "comm/threads.hpp"
#include "core/error.hpp"
#include "model/small_models.hpp"
#include "train/step.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <tuple>

using namespace flanmoe;

namespace {

// One sparse encoder layer and one sparse decoder layer of two each; numbers small enough to multiply by hand.
Config small() {
    return parse_config(R"(
[model]
vocab_size = 96
d_model = 16
heads = 4
d_kv = 4
d_ff = 32
activation = "relu"
encoder_layers = 2
decoder_layers = 2
[moe]
experts = 8
every = 2
router = "switch"
[data]
encoder_length = 32
decoder_length = 8
batch_rows = 16
micro_batch_rows = 2
)", "small.toml");
}

Cluster h100s(int ranks) { return cluster_of("h100", "infiniband-400", ranks, 8); }

const CollectivePlan* find(const RankPlan& plan, const std::string& purpose) {
    for (const CollectivePlan& c : plan.collectives)
        if (c.purpose == purpose) return &c;
    return nullptr;
}

/// Bytes that rank 0 sends in a group by one kind of collective, in a step on threads.
double bytes_of_step(const Config& config, const MeshShape& shape, Communicator& (Mesh::*group)() const, Collective kind) {
    std::atomic<int64_t> bytes = 0;
    run_ranks(shape.ranks(), [&](Communicator& world) {
        const Mesh mesh(world, shape);
        Context context;
        Transformer model(config.model, mesh);
        const TrainingTypes types = training_types(config.train);
        model.parameters().allocate(types.compute, true, types.forward, context);
        model.parameters().initialise(1);
        Optimizer optimizer(config.optimizer, model.parameters());
        GradientSync sync(model.parameters());
        TrainingStep step(context, model, optimizer, false, &sync);
        const int64_t own = config.data.batch_rows / shape.replicas();
        StepBatch batches;
        for (int64_t row = 0; row < own; row += 2) batches.push_back(test::random_batch(2, config.data.encoder_length, config.data.decoder_length, config.model.vocab_size, 3, row));
        for (Communicator* c : {&mesh.replicas(), &mesh.data(), &mesh.tensor(), &mesh.expert()}) c->reset_traffic();
        StepSettings settings = step_settings(config);
        settings.rate = 0.01;
        step.run(batches, settings);
        if (world.rank() == 0) bytes = (mesh.*group)().traffic(kind).bytes;
    });
    return static_cast<double>(bytes.load());
}

}  // namespace

TEST_SUITE("train/plan") {
    TEST_CASE("one rank is what training on one device needs") {
        const Config config = small();
        const Transformer model(config.model);
        const RankPlan plan = plan_rank(config, h100s(1), {1, 1, 1}, 2);
        CHECK(plan.parameters == model.parameters().parameter_count());
        CHECK(plan.memory.total() == memory_of_training(config, model, {2, 32, 8}).total());
        CHECK(plan.collectives.empty());
        CHECK(plan.sent() == 0);
        CHECK((plan.rows == 16 && plan.compute.passes == 8));
        CHECK(plan.seconds() == doctest::Approx(1e-3 * plan.compute.milliseconds));
    }

    TEST_CASE("parameters of a rank: dense ones over tensor, experts over expert and tensor, norms and routers whole") {
        const Config config = small();
        const int64_t d = 16, experts = 2 * 8 * 2 * d * 32;                           // two layers of 8 experts, wi and wo
        const int64_t whole = d * 8 * 2 + d * (3 * 2 + 2 * 2 + 2);                    // routers; norms of 3 + 2 sub-layers a layer and two final ones
        const int64_t total = plan_rank(config, h100s(1), {1, 1, 1}, 2).parameters, split = total - experts - whole;
        CHECK(plan_rank(config, h100s(4), {1, 4, 1}, 2).parameters == split + whole + experts / 4);
        CHECK(plan_rank(config, h100s(2), {1, 1, 2}, 2).parameters == split / 2 + whole + experts / 2);
        CHECK(plan_rank(config, h100s(8), {1, 4, 2}, 2).parameters == split / 2 + whole + experts / 8);
        CHECK(plan_rank(config, h100s(4), {4, 1, 1}, 2).parameters == total);
    }

    TEST_CASE("bytes of the collectives are their closed formulas") {
        const Config config = small();
        const RankPlan one = plan_rank(config, h100s(1), {1, 1, 1}, 2);
        const int64_t experts = 2 * 8 * 2 * 16 * 32;
        const RankPlan data = plan_rank(config, h100s(4), {4, 1, 1}, 2);
        REQUIRE(find(data, "dense gradients"));
        CHECK(find(data, "dense gradients")->bytes == doctest::Approx(2.0 * 3 / 4 * 4 * static_cast<double>(one.parameters - experts)));
        CHECK(find(data, "experts' gradients")->bytes == doctest::Approx(2.0 * 3 / 4 * 4 * experts));
        CHECK(data.collectives.size() == 3);  // and counts and losses

        // 16 rows on 4 ranks in 2 passes of 2; a row's group of 32 tokens gives each of 8 experts round(1.25 x 32 / 8) = 5 slots, one of 8 tokens the least of 4;
        // there and back, forward and backward, three quarters of the rows to other ranks, 16 floats a row; and its number, of eight bytes, once;
        // before them 8 counts of 4 bytes.
        const RankPlan expert = plan_rank(config, h100s(4), {1, 4, 1}, 2);
        CHECK(expert.compute.passes == 2);
        CHECK(find(expert, "encoder's rows to experts")->bytes == doctest::Approx(2 * ((2 * 8 * 5) * (4 * 16 * 4 + 8) + 8 * 4) * 3.0 / 4));
        CHECK(find(expert, "decoder's rows to experts")->bytes == doctest::Approx(2 * ((2 * 8 * 4) * (4 * 16 * 4 + 8) + 8 * 4) * 3.0 / 4));
        CHECK_FALSE(find(expert, "experts' gradients"));

        // Eight passes of 2 rows of 32 tokens; sums at the end of 4 sub-layers, of the embedding, at the beginning of 4 backward, and of the encoder's gradient.
        const RankPlan tensor = plan_rank(config, h100s(2), {1, 1, 2}, 2);
        CHECK(find(tensor, "encoder's activations")->calls == 8 * 10);
        CHECK(find(tensor, "encoder's activations")->bytes == doctest::Approx(8 * 10 * (2 * 32 * 16 * 4) * 2.0 / 2));
        CHECK_FALSE(find(tensor, "dense gradients"));
    }

    TEST_CASE("a step sends what the plan says") {
        for (const std::string& change : {std::string("moe.router=\"switch\""), std::string("moe.router=\"gshard\""), std::string("moe.router=\"dropless\""), std::string("moe.shared_d_ff=32"),
                                          std::string("train.recompute=\"full\""), std::string("train.recompute=\"cheap\""), std::string("train.dtype=\"bf16\""), std::string("optimizer.kind=\"adamw\""), std::string("parallel.sequence=true")}) {
            const Config config = override_config(small(), {"model.d_model=64", "data.batch_rows=8", "train.dtype=\"f32\"", change});
            for (const MeshShape shape : {MeshShape{4, 1, 1}, MeshShape{1, 4, 1}, MeshShape{1, 1, 2}, MeshShape{2, 2, 1}, MeshShape{1, 2, 2}}) {
                CAPTURE(change);
                CAPTURE(shape.text());
                const RankPlan plan = plan_rank(config, h100s(shape.ranks()), shape, 2);
                for (const auto& [group, name, kind] : {std::tuple{&Mesh::replicas, "replicas", Collective::all_reduce}, {&Mesh::data, "data", Collective::all_reduce},
                                                        {&Mesh::tensor, "tensor", Collective::all_reduce}, {&Mesh::tensor, "tensor", Collective::all_gather},
                                                        {&Mesh::tensor, "tensor", Collective::reduce_scatter}, {&Mesh::expert, "expert", Collective::all_reduce},
                                                        {&Mesh::expert, "expert", Collective::all_to_all}}) {
                    double planned = 0, most = 0;  // `most`: of tokens that may not count in the loss
                    for (const CollectivePlan& c : plan.collectives)
                        if (c.group == name && c.kind == kind) (c.purpose == "loss of a part of the vocabulary" ? most : planned) += c.bytes;
                    const double sent = bytes_of_step(config, shape, group, kind);
                    CAPTURE(name);
                    CAPTURE(name_of(kind));
                    CAPTURE(planned);
                    CAPTURE(sent);
                    // Rank 0's part of an odd number is half an element less or more. Dropless rows go where the router sends them, which is even only on average.
                    const bool drawn = config.model.encoder_routing.dropless && kind == Collective::all_to_all;
                    CHECK(sent >= (drawn ? 0.88 : 0.9999) * planned - 8);
                    CHECK(sent <= (drawn ? 1.06 : 1.0001) * planned + most + 8);
                }
            }
        }
    }

    TEST_CASE("a mesh that cannot run a config is refused with the reason") {
        const Config config = small();
        CHECK(objection_to(config, {2, 4, 2}).empty());
        CHECK(objection_to(config, {1, 1, 8}) == "4 heads (model.heads) do not divide over parallel.tensor = 8 ranks; choose a divisor of 4");
        CHECK(objection_to(config, {1, 3, 1}) == "8 experts do not divide over parallel.expert = 3 ranks; choose 6 or 9 experts, or another number of ranks");
        CHECK(objection_to(config, {32, 1, 1}).empty());  // ranks without rows compute padding
        CHECK(objection_to(override_config(config, {"moe.group_rows=0", "data.micro_batch_rows=0"}), {2, 1, 1}).starts_with("moe.group_rows = 0 routes the whole batch together"));
        CHECK_THROWS_AS(cluster_of("h100", "string", 8, 8), Error);
        CHECK_THROWS_AS(cluster_of("abacus", "ethernet", 8, 8), Error);
    }

    TEST_CASE("where nothing fits, the mesh that needs the least is told") {
        const Config config = small();
        Cluster tiny = h100s(8);
        tiny.memory = 1000;
        CHECK_FALSE(best_plan(config, tiny));
        const auto plan = smallest_plan(config, tiny);
        REQUIRE(plan);
        CHECK(plan->mesh == MeshShape{1, 2, 4});
        CHECK(plan->micro_rows == 1);
        CHECK_FALSE(smallest_plan(config, h100s(7 * 11)));  // 77 ranks, 16 rows
    }

    TEST_CASE("frozen parts have weights, but neither state nor sums") {
        const Config config = override_config(small(), {"train.freeze=[\"experts\"]"});
        const RankPlan whole = plan_rank(small(), h100s(4), {4, 1, 1}, 2), plan = plan_rank(config, h100s(4), {4, 1, 1}, 2);
        CHECK(plan.parameters == whole.parameters);
        CHECK(plan.memory.weights == whole.memory.weights);
        CHECK(plan.memory.optimizer < whole.memory.optimizer);
        CHECK(find(whole, "experts' gradients"));
        CHECK_FALSE(find(plan, "experts' gradients"));
    }

    TEST_CASE("ST-MoE-32B fits on 256 H100 and on no single one") {
        const Config config = load_config({"configs/model/st-moe-32b.toml"}, {"train.dtype=bf16", "train.forward=bf16", "data.batch_rows=2048", "data.micro_batch_rows=16"});
        const ModelCount count = count_model(config);
        CHECK(static_cast<double>(count.total) == doctest::Approx(269.1e9).epsilon(0.001));
        CHECK(count.active < 0.2 * static_cast<double>(count.total));
        const auto plan = best_plan(config, h100s(256));
        REQUIRE(plan);
        CHECK(plan->mesh.ranks() == 256);
        CHECK(plan->memory.total() <= h100s(256).memory);
        CHECK(plan->seconds() > 0);
        CHECK_FALSE(best_plan(config, h100s(1)));
    }
}

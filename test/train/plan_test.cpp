#include "train/plan.hpp"

#include "core/error.hpp"

#include <doctest/doctest.h>

#include <filesystem>

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
        CHECK(data.collectives.size() == 2);

        // 16 rows on 4 ranks in 2 passes of 2; a row's group of 32 tokens gives each of 8 experts round(1.25 x 32 / 8) = 5 slots, one of 8 tokens the least of 4;
        // there and back, forward and backward, three quarters of the rows to other ranks, 16 floats a row.
        const RankPlan expert = plan_rank(config, h100s(4), {1, 4, 1}, 2);
        CHECK(expert.compute.passes == 2);
        CHECK(find(expert, "encoder's rows to experts")->bytes == doctest::Approx(2 * 4 * (2 * 8 * 5) * 16 * 4 * 3.0 / 4));
        CHECK(find(expert, "decoder's rows to experts")->bytes == doctest::Approx(2 * 4 * (2 * 8 * 4) * 16 * 4 * 3.0 / 4));
        CHECK_FALSE(find(expert, "experts' gradients"));

        // Eight passes of 2 rows of 32 tokens; sums at the end of 4 sub-layers, of the embedding, and at the beginning of 4 backward.
        const RankPlan tensor = plan_rank(config, h100s(2), {1, 1, 2}, 2);
        CHECK(find(tensor, "encoder's activations")->calls == 8 * 9);
        CHECK(find(tensor, "encoder's activations")->bytes == doctest::Approx(8 * 9 * (2 * 32 * 16 * 4) * 2.0 / 2));
        CHECK_FALSE(find(tensor, "dense gradients"));
    }

    TEST_CASE("a mesh that cannot run a config is refused with the reason") {
        const Config config = small();
        CHECK(objection_to(config, {2, 4, 2}).empty());
        CHECK(objection_to(config, {1, 1, 8}) == "8 tensor ranks do not divide model.heads = 4");
        CHECK(objection_to(config, {1, 3, 1}) == "3 expert ranks do not divide moe.experts = 8");
        CHECK(objection_to(config, {32, 1, 1}) == "data.batch_rows = 16 is too few rows for 32 ranks with rows of their own; give at least 32");
        CHECK_THROWS_AS(cluster_of("h100", "string", 8, 8), Error);
        CHECK_THROWS_AS(cluster_of("abacus", "ethernet", 8, 8), Error);
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

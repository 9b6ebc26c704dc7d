// Steps of training on several ranks, through TrainingStep and GradientSync as the trainer uses them: whatever the number of data ranks, also when the rows do
// not divide and ranks get padding, the same gradients, losses, routing and weights as on one rank.
#include "model/layouts.hpp"
#include "train/replicas.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cmath>

using namespace flanmoe;
using namespace flanmoe::test;

namespace {

const LossCoefficients coefficients{0.02, 0.003, 0.0001};

/// A step of `rows` rows as the loader would give it to a rank.
StepBatch dealt(const ModelConfig& config, int64_t rows, const Mesh& mesh, uint64_t seed) {
    const Batch whole = family_batch(config, rows, seed);
    Batch padding = family_batch(config, 1, seed, rows);
    for (auto* segments : {&padding.encoder_segments, &padding.decoder_segments}) std::fill(segments->begin(), segments->end(), 0);
    std::fill(padding.decoder_targets.begin(), padding.decoder_targets.end(), ignored);
    StepBatch own;
    for (const Share::Piece& piece : Share{mesh.replica_index(), mesh.shape().replicas(), 1}.pieces(rows, 3))
        own.push_back(piece.rows ? cut(whole, piece.first, piece.rows) : padding);
    return own;
}

struct Rank {
    Context context;
    Transformer model;
    std::unique_ptr<Optimizer> optimizer;
    std::unique_ptr<GradientSync> sync;
    std::unique_ptr<TrainingStep> step;

    Rank(const ModelConfig& config, const Mesh& mesh, DType type) : model(config, mesh) {
        model.parameters().allocate(type, true, type, context);
        model.parameters().initialise(5);
        OptimizerConfig adamw;
        adamw.kind = OptimizerKind::adamw, adamw.epsilon = 1e-3;  // no division by what is only rounding
        optimizer = std::make_unique<Optimizer>(adamw, model.parameters());
        sync = std::make_unique<GradientSync>(model.parameters(), 1 << 10);  // many buckets
        step = std::make_unique<TrainingStep>(context, model, *optimizer, false, sync.get());
    }
    StepGradients run(int64_t rows, const Mesh& mesh, int64_t number) {
        StepSettings settings;
        settings.coefficients = coefficients, settings.seed = 3, settings.step = settings.update = number, settings.rate = 0.01, settings.clip = 0.5;
        return step->run(dealt(model.config(), rows, mesh, 40 + static_cast<uint64_t>(number)), settings);
    }
};

ModelConfig model_config() {
    ModelConfig config = small_switch(4);
    config.dropout = 0.1;
    return config;
}

void check_ranks(DType type, double tolerance) {
    const ModelConfig config = model_config();
    for (const int64_t rows : {8, 5}) {
        Rank alone(config, one_rank(), type);
        std::vector<StepGradients> expected;
        for (int64_t s = 0; s < 3; ++s) expected.push_back(alone.run(rows, one_rank(), s));
        const NamedValues weights = values_of(alone.model.parameters(), false), gradients = values_of(alone.model.parameters(), true);
        for (const int n : {2, 4, 8}) {
            Findings findings;
            run_ranks(n, [&](Communicator& world) {
                const Mesh mesh(world, {n, 1, 1});
                Rank rank(config, mesh, type);
                for (size_t s = 0; s < expected.size(); ++s) {
                    const StepGradients got = rank.run(rows, mesh, static_cast<int64_t>(s)), &one = expected[s];
                    const auto near = [&](double a, double b, const char* what) {
                        if (!(std::abs(a - b) <= 10 * tolerance * std::max(1.0, std::abs(b)))) findings.add("{} of step {}: {} instead of {}", what, s, a, b);
                    };
                    near(got.loss, one.loss, "loss");
                    near(got.gradient_norm, one.gradient_norm, "gradient norm");
                    if (got.sums.output.tokens != one.sums.output.tokens) findings.add("tokens of step {}", s);
                    for (size_t l = 0; l < one.sums.routing.size(); ++l)
                        if (got.sums.routing[l].load != one.sums.routing[l].load || got.sums.routing[l].demand != one.sums.routing[l].demand) findings.add("routing of step {}", s);
                }
                compare_gradients(rank.model.parameters(), gradients, 10 * tolerance, findings);
                for (const Parameter& p : rank.model.parameters().records())
                    for (int64_t e = 0; e < p.part_tensors(); ++e) {
                        const std::vector<double> own = values_of(rank.model.parameters().master(p, e)), &one = weights.at(p.part_name(e));
                        for (size_t i = 0; i < own.size(); ++i)
                            if (!(std::abs(own[i] - one[i]) <= 100 * tolerance)) {
                                findings.add("{} after three steps: {} instead of {}", p.part_name(e), own[i], one[i]);
                                break;
                            }
                    }
                check_equal_weights(rank.model.parameters(), mesh, 3);
            });
            CAPTURE(n);
            CAPTURE(rows);
            CHECK(findings.text() == "");
        }
    }
}

}  // namespace

TEST_SUITE("train/ranks") {
    // Three steps one after the other, each from weights that differ by rounding: ten times the tolerance of one step's gradients.
    TEST_CASE("three steps on 2, 4 and 8 data ranks, rows that do not divide included, are those of one rank: double") { check_ranks(DType::f64, 1e-12); }
    TEST_CASE("the same in f32") { check_ranks(DType::f32, 1e-5); }

    TEST_CASE("a weight that differs on one rank is found, with its name") {
        std::atomic<int> right = 0;
        run_ranks(3, [&](Communicator& world) {
            const Mesh mesh(world, {3, 1, 1});
            Rank rank(model_config(), mesh, DType::f32);
            check_equal_weights(rank.model.parameters(), mesh, 7);
            const Parameter& p = rank.model.parameters().records()[4];
            if (world.rank() == 1) rank.model.parameters().master(p).as<float>()[2] += 1e-7f;
            try {
                check_equal_weights(rank.model.parameters(), mesh, 7);
            } catch (const Error& error) {
                right += error.code == Exit::corruption && std::string(error.what()).find(p.name + " of rank 1 is not what") != std::string::npos;
            }
        });
        CHECK(right.load() == 3);
    }

    // Of two, nobody knows which is right.
    TEST_CASE("a norm that differs between tensor ranks is found, and both are named") {
        std::atomic<int> right = 0;
        run_ranks(2, [&](Communicator& world) {
            const Mesh mesh(world, {1, 1, 2});
            ModelConfig config = model_config();
            config.heads = 4;
            Rank rank(config, mesh, DType::f32);
            for (int64_t s = 0; s < 2; ++s) rank.run(4, mesh, s);
            check_equal_weights(rank.model.parameters(), mesh, 2);
            const auto& records = rank.model.parameters().records();
            const auto norm = std::find_if(records.begin(), records.end(), [](const Parameter& p) { return p.kind == ParameterKind::norm; });
            if (world.rank() == 1) rank.model.parameters().master(*norm).as<float>()[2] += 1e-6f;
            try {
                check_equal_weights(rank.model.parameters(), mesh, 2);
            } catch (const Error& error) {
                right += error.code == Exit::corruption && std::string(error.what()).find(norm->name + " is not the same on ranks 0, 1, and which of them is wrong is not known") != std::string::npos;
            }
        });
        CHECK(right.load() == 2);
    }

    TEST_CASE("rows that are one group cannot be divided") {
        Config config;
        config.model = model_config();
        config.model.encoder_routing.group_rows = 0;
        CHECK(share_of(config, one_rank()).count == 1);
        std::atomic<int> refused = 0;
        run_ranks(2, [&](Communicator& world) {
            const Mesh mesh(world, {2, 1, 1});
            try {
                flanmoe::share_of(config, mesh);
            } catch (const Error& error) {
                refused += error.code == Exit::usage;
            }
        });
        CHECK(refused.load() == 2);
    }
}

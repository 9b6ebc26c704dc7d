// The estimate of a run's memory against what the arena, the store and the optimizer take, and the refusal of what does not fit.
#include "train/memory.hpp"

#include "comm/threads.hpp"
#include "core/error.hpp"
#include "core/memory.hpp"
#include "model/small_models.hpp"
#include "optim/freezing.hpp"
#include "train/replicas.hpp"
#include "train/counting_engine.hpp"
#include "train/step.hpp"

#include <doctest/doctest.h>

#include <algorithm>

using namespace flanmoe;
using namespace flanmoe::test;

namespace {

/// Wide enough that activations, not bookkeeping, take the arena.
ModelConfig wider(ModelConfig c) {
    c.vocab_size = 101, c.d_model = 96, c.d_kv = 16, c.heads = 5, c.d_ff = 160;
    return c;
}

ModelConfig sparse(int64_t k, bool gated) {
    ModelConfig c = wider(small_switch(8));
    c.expert_d_ff = 128, c.expert_gated = gated, c.extra_ffn = k == 2;
    c.encoder_routing.k = c.decoder_routing.k = k;
    return c;
}

/// Many experts, drawn at random: their scores count.
ModelConfig drawn() {
    ModelConfig c = sparse(1, false);
    c.experts = 64, c.expert_d_ff = 16, c.encoder_routing.jitter = c.decoder_routing.jitter = 0, c.encoder_routing.sample_temperature = c.decoder_routing.sample_temperature = 1;
    return c;
}

ModelConfig decoder_only() {
    ModelConfig c = wider(small_t5());
    c.encoder_decoder = false, c.encoder_layers = 0, c.decoder_layers = 4;
    return c;
}

struct Types {
    Precision dtype, forward;
};

/// Bytes that a rank's store and optimizer take.
struct Taken {
    int64_t store = 0, optimizer = 0;
    int64_t total() const { return store + optimizer; }
};

/// Of the rank of a mesh that takes most.
Taken most_taken(const Config& config, const MeshShape& shape) {
    std::vector<Taken> ranks(static_cast<size_t>(shape.ranks()));
    run_ranks(shape.ranks(), [&](Communicator& world) {
        const Mesh mesh(world, shape);
        const TrainingTypes types = training_types(config.train);
        CountingEngine engine;
        Transformer model(config.model, mesh);
        freeze_parameters(model.parameters(), config.train.freeze);
        if (config.parallel.shard_optimizer) model.parameters().shard();
        model.parameters().allocate(types.compute, true, types.forward, Context(Device::cpu, engine));
        Taken& taken = ranks[static_cast<size_t>(world.rank())];
        taken.store = engine.taken();
        const Optimizer optimizer(config.optimizer, model.parameters());
        taken.optimizer = engine.taken() - taken.store;
    });
    return *std::max_element(ranks.begin(), ranks.end(), [](const Taken& a, const Taken& b) { return a.total() < b.total(); });
}

}  // namespace

TEST_SUITE("train/memory") {
    TEST_CASE("activations are within a sixth of the arena's peak") {
        for (const ModelConfig& model_config : {wider(small_t5()), wider(small_t5(false)), sparse(1, false), sparse(2, true), drawn(), decoder_only()}) {
            for (const auto& [dtype, forward] : {std::pair{Precision::f32, Precision::f32}, {Precision::bf16, Precision::f32}, {Precision::bf16, Precision::bf16}}) {
                for (const Recompute recompute : {Recompute::none, Recompute::cheap, Recompute::full}) {
                    Config config;
                    config.model = model_config, config.train.dtype = dtype, config.train.forward = forward, config.train.recompute = recompute;
                    CAPTURE(model_config.experts);
                    CAPTURE(static_cast<int>(recompute));
                    Transformer model(config.model);
                    const SequenceShape rows{4, model_config.encoder_decoder ? 128 : 0, 96};
                    const MemoryNeed need = memory_of_training(config, model, rows);
                    const TrainingTypes types = training_types(config.train);
                    model.parameters().allocate(types.compute, true, types.forward);
                    model.parameters().initialise(1);
                    Context context;
                    compute_gradients(context, model, {random_batch(rows.rows, rows.source, rows.target, config.model.vocab_size, 1)}, {0.01, 0, 0}, 1, 0, true, recompute);
                    const double ratio = static_cast<double>(need.activations) / static_cast<double>(context.arena.peak_bytes());
                    CHECK(ratio > (recompute == Recompute::full ? 0.8 : 0.85));  // the less is kept, the more what is not counted weighs
                    CHECK(ratio < 1.15);
                }
            }
        }
    }

    TEST_CASE("on expert ranks too, which hold room for every row that could come") {
        ModelConfig dropless = sparse(1, false);
        dropless.encoder_routing.dropless = dropless.decoder_routing.dropless = true;
        for (const ModelConfig& model_config : {sparse(1, false), sparse(2, true), dropless}) {
            for (const Precision forward : {Precision::f32, Precision::bf16}) {
                for (const MeshShape shape : {MeshShape{1, 4, 1}, MeshShape{2, 2, 1}}) {
                    Config config;
                    config.model = model_config;
                    config.train.dtype = Precision::bf16, config.train.forward = forward;
                    config.data.batch_rows = 16, config.data.encoder_length = 128, config.data.decoder_length = 96;
                    CAPTURE(model_config.encoder_routing.dropless);
                    CAPTURE(model_config.encoder_routing.k);
                    CAPTURE(shape.text());
                    const MemoryNeed need = memory_of_rank(config, shape);
                    std::vector<int64_t> peaks(4);
                    run_ranks(4, [&](Communicator& world) {
                        const Mesh mesh(world, shape);
                        const TrainingTypes types = training_types(config.train);
                        Transformer model(config.model, mesh);
                        model.parameters().allocate(types.compute, true, types.forward);
                        model.parameters().initialise(1);
                        GradientSync sync(model.parameters());
                        Context context;
                        compute_gradients(context, model, {random_batch(4, 128, 96, config.model.vocab_size, 1, 4 * mesh.replica_index())}, {0.01, 0, 0}, 1, 0, true, Recompute::none, &sync);
                        peaks[static_cast<size_t>(world.rank())] = context.arena.peak_bytes();
                    });
                    const double ratio = static_cast<double>(need.activations) / static_cast<double>(*std::max_element(peaks.begin(), peaks.end()));
                    CHECK(ratio > 0.85);
                    CHECK(ratio < 1.15);
                }
            }
        }
    }

    TEST_CASE("a rank's rows are whole routing groups, as the loader gives them out") {
        for (const int64_t group : {1, 16}) {
            for (const int64_t micro : {16, 32, 48}) {
                for (const int replicas : {1, 2, 3, 4}) {
                    Config config;
                    config.model = sparse(1, false);
                    config.model.encoder_routing.group_rows = config.model.decoder_routing.group_rows = group;
                    config.data.batch_rows = 48, config.data.micro_batch_rows = micro;
                    int64_t most = 0, most_at_once = 0;
                    for (int r = 0; r < replicas; ++r) {
                        const Share share{r, replicas, group};
                        int64_t rows = 0;
                        for (const Share::Piece& piece : share.pieces(48, micro)) rows += piece.rows, most_at_once = std::max(most_at_once, piece.rows);
                        most = std::max(most, rows);
                    }
                    CAPTURE(group);
                    CAPTURE(micro);
                    CAPTURE(replicas);
                    const DataConfig data = config_of_rank(config, {replicas, 1, 1}).data;
                    CHECK(data.batch_rows == most);
                    CHECK(data.micro_batch_rows == most_at_once);
                }
            }
        }
    }

    // Of a narrow model, where gaps of alignment weigh: exact means to the byte.
    TEST_CASE("weights, gradients and optimizer state are the bytes that store and optimizer take, on every mesh; frozen parts have no state") {
        const Types all_types[] = {{Precision::f32, Precision::f32}, {Precision::bf16, Precision::f32}, {Precision::bf16, Precision::bf16}};
        for (const MeshShape& shape : {MeshShape{1, 1, 1}, MeshShape{2, 1, 1}, MeshShape{2, 2, 1}, MeshShape{2, 1, 2}, MeshShape{1, 4, 1}, MeshShape{4, 2, 1}, MeshShape{2, 2, 2}}) {
            for (const Types& types : all_types) {
                for (const OptimizerKind kind : {OptimizerKind::adafactor, OptimizerKind::adamw}) {
                    for (const bool sharded : {false, true}) {
                        for (const std::vector<std::string>& frozen : {std::vector<std::string>{}, {"experts"}}) {
                            Config config;
                            config.model = small_switch(4), config.model.heads = 4;  // 61 rows of vocabulary do not divide
                            config.optimizer.kind = kind, config.optimizer.min_factored = 20;
                            config.train.dtype = types.dtype, config.train.forward = types.forward, config.train.freeze = frozen, config.parallel.shard_optimizer = sharded;
                            config.data.batch_rows = 8;
                            CAPTURE(shape.text());
                            CAPTURE(static_cast<int>(types.forward));
                            CAPTURE(static_cast<int>(kind));
                            CAPTURE(sharded);
                            CAPTURE(frozen.size());
                            const MemoryNeed need = memory_of_rank(config, shape);
                            const Taken taken = most_taken(config, shape);
                            CHECK(need.weights + need.compute_copy + need.gradients == taken.store);
                            CHECK(need.optimizer == taken.optimizer);
                        }
                    }
                }
            }
        }
        Transformer model(small_t5());
        for (const DType type : {DType::f32, DType::bf16, DType::f64}) {
            CountingEngine engine;
            model.parameters().allocate(type, false, Context(Device::cpu, engine));
            CHECK(memory_of_weights(model.parameters(), type).total() == engine.taken());
            model.parameters().allocate(type, false);
        }
    }

    TEST_CASE("what does not fit is refused with figures and a remedy") {
        const auto refusal = [](const MemoryNeed& need) -> std::string {
            try {
                check_memory(need, 1234567);
            } catch (const Error& error) {
                CHECK(error.code == Exit::out_of_memory);
                return error.what();
            }
            return "";
        };
        const auto contains = [](const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; };
        REQUIRE(available_memory() > 0);
        const int64_t much = int64_t{5} << 50;
        CHECK(refusal({.weights = 1000, .gradients = 1000}).empty());
        const std::string model = refusal({.weights = much, .gradients = much}), batch = refusal({.weights = 1000, .gradients = 1000, .optimizer = 10, .activations = much, .rows = int64_t{1} << 30});
        CHECK(contains(model, "the model's 1234567 parameters need about 11.3 PB of memory (5.63 PB of weights, 5.63 PB of gradients), but only"));
        CHECK(contains(model, "use a smaller model"));
        CHECK(contains(batch, "10 B of optimizer state, 5.63 PB of activations"));
        CHECK(contains(batch, "data.micro_batch_rows="));
        const std::string row = refusal({.weights = 1000, .gradients = 1000, .activations = much, .rows = 1});
        CHECK(contains(row, "not one row fits"));
        const int64_t half = available_memory() / 3 * 2;  // of which two ranks want more than there is
        CHECK(refusal({.weights = half, .gradients = 0}).empty());
        try {
            check_memory({.weights = half, .gradients = 0}, 1234567, host_engine(), 2);
            FAIL("no error");
        } catch (const Error& error) {
            CHECK(contains(error.what(), "are available to each of the 2 ranks of this host"));
        }
        const std::string evaluation = refusal({.weights = much});
        CHECK((contains(evaluation, "use a smaller model, of about") && !contains(evaluation, "micro")));
    }
}

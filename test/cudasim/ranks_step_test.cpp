// Training steps of ranks that have a simulated GPU each, over NCCL's stand-in: gradients are summed and rows exchanged on lanes, beside the layers. Out of order
// across streams, as one graph, and in line on the host the same step must come out.
#include "cuda/nccl.hpp"

#include "cuda/engine.hpp"
#include "cudasim/kernels.hpp"
#include "cudasim/runtime_api.hpp"
#include "model/layouts.hpp"

#include <doctest/doctest.h>

using namespace flanmoe;
using namespace flanmoe::test;

namespace {

StepBatch batches_of_step(const ModelConfig& config, int64_t step) {
    const auto seed = static_cast<uint64_t>(10 * step);
    return {family_batch(config, 4, seed), family_batch(config, 4, seed + 1, 4)};
}

StepSettings settings_of_step(int64_t step) {
    StepSettings s;
    s.coefficients = {0.01, 0.001, 0.0001};
    s.seed = 5, s.step = step, s.update = step, s.rate = 1e-3, s.clip = 0.5, s.exchange_chunks = 2, s.sequence_parallel = true;
    return s;
}

/// Values after three steps of a rank: losses, gradient norms, and its weights as bits.
struct Outcome {
    std::vector<double> numbers;
    std::vector<char> weights;
    int64_t graphs = 0;
};

Outcome three_steps(Context& context, const ModelConfig& config, const Mesh& mesh, bool graph, DType type = DType::f32, bool sharded = false) {
    Transformer model(config, mesh);
    if (sharded) model.parameters().shard();
    model.parameters().allocate(type, true, type, context);
    model.parameters().initialise(1);
    OptimizerConfig adamw;
    adamw.kind = OptimizerKind::adamw, adamw.epsilon = 1e-3;  // no division by what is only rounding
    Optimizer optimizer(adamw, model.parameters());
    GradientSync sync(model.parameters(), 1 << 10);  // many buckets
    TrainingStep step(context, model, optimizer, graph, &sync);
    Outcome outcome;
    for (int64_t s = 0; s < 3; ++s) {
        const StepGradients gradients = step.run(share_of(batches_of_step(config, s), mesh), settings_of_step(s));
        outcome.numbers.push_back(gradients.loss), outcome.numbers.push_back(gradients.gradient_norm);
    }
    for (const Parameter& p : model.parameters().records())
        for (int64_t e = 0; e < p.part_tensors(); ++e) {
            const Tensor t = model.parameters().compute(p, e);
            const size_t begin = outcome.weights.size();
            outcome.weights.resize(begin + static_cast<size_t>(t.bytes()));
            context.engine->download(outcome.weights.data() + begin, t.data, t.bytes());
        }
    return outcome;
}

/// Of every rank.
std::vector<Outcome> on_gpus(const ModelConfig& config, const MeshShape& shape, bool graph, DType type = DType::f32, bool sharded = false) {
    cudasim::machine().devices = shape.ranks();
    std::vector<Outcome> outcomes(static_cast<size_t>(shape.ranks()));
    run_ranks(shape.ranks(), [&](Communicator& world) {
        cuda::Engine engine(world.rank());
        Context context(Device::cuda, engine);
        engine.set_separate_allocations(false);  // what is freed is waited for, and its rank with it
        Progress progress;
        const auto gpus = cuda::nccl_communicator(context, world, progress, [](const std::string&) {});
        const Mesh mesh(*gpus, shape);
        const int64_t before = cudasim::counters().graph_launches;
        outcomes[static_cast<size_t>(world.rank())] = three_steps(context, config, mesh, graph, type, sharded);
        world.barrier();
        outcomes[static_cast<size_t>(world.rank())].graphs = cudasim::counters().graph_launches - before;
    });
    cudasim::machine().devices = 1;
    return outcomes;
}

std::vector<double> on_host(const ModelConfig& config) {
    Context context;
    return three_steps(context, config, one_rank(), false).numbers;
}

ModelConfig model_for_ranks(const char* router) {
    ModelConfig config = routed_model(router);
    config.heads = 4, config.kv_heads = 0;
    return config;
}

}  // namespace

TEST_SUITE("cudasim/ranks_step") {
    TEST_CASE("streams of lanes in any order, one graph a step, or the host alone: the same losses and norms, and the same bits of weights with and without a graph") {
        for (const char* router : {"gshard", "dropless"}) {
            const ModelConfig config = model_for_ranks(router);
            const std::vector<double> expected = on_host(config);
            for (const MeshShape& shape : {MeshShape{2, 1, 1}, MeshShape{1, 2, 1}, MeshShape{1, 1, 2}, MeshShape{2, 2, 1}}) {
                CAPTURE(router);
                CAPTURE(shape.text());
                const std::vector<Outcome> graph = on_gpus(config, shape, true);
                const cudasim::test::DeferredStreams deferred;
                const std::vector<Outcome> single = on_gpus(config, shape, false);
                // Counts of rows that other ranks send are waited for by the host: such a step is no graph.
                const bool recorded = std::string(router) != "dropless" || shape.expert == 1;
                CHECK(graph[0].graphs == (recorded ? 2 * shape.ranks() : 0));  // the first step makes room
                CHECK(single[0].graphs == 0);
                for (size_t r = 0; r < single.size(); ++r) {
                    CHECK(single[r].weights == graph[r].weights);
                    CHECK(single[r].numbers == graph[r].numbers);
                    for (size_t i = 0; i < expected.size(); ++i) CHECK(single[r].numbers[i] == doctest::Approx(expected[i]).epsilon(2e-5));
                }
            }
        }
    }

    TEST_CASE("a sharded optimizer: the bits of a run that is not sharded, with a graph and without") {
        const ModelConfig config = model_for_ranks("gshard");
        for (const DType type : {DType::f32, DType::bf16}) {
            for (const MeshShape& shape : {MeshShape{2, 1, 1}, MeshShape{2, 2, 1}}) {
                CAPTURE(name_of(type));
                CAPTURE(shape.text());
                const std::vector<Outcome> whole = on_gpus(config, shape, true, type), graph = on_gpus(config, shape, true, type, true);
                const cudasim::test::DeferredStreams deferred;
                const std::vector<Outcome> single = on_gpus(config, shape, false, type, true);
                CHECK(graph[0].graphs == 2 * shape.ranks());
                for (size_t r = 0; r < whole.size(); ++r) {
                    CHECK(graph[r].weights == whole[r].weights);
                    CHECK(single[r].weights == whole[r].weights);
                    CHECK(single[r].numbers == graph[r].numbers);
                }
            }
        }
    }
}

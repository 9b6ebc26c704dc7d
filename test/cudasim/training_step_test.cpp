// Whole training steps on the simulated device: one graph gives the bits of single launches, steady steps ask for nothing but the graph and one wait, refused
// steps change nothing, and parts have times and names.
#include "train/memory.hpp"
#include "train/step.hpp"

#include "cudasim/runtime_api.hpp"
#include "cuda/engine.hpp"
#include "cuda/launch.hpp"
#include "model/small_models.hpp"
#include "ops/engine.hpp"

#include <nvtx3/nvToolsExt.h>

#include <doctest/doctest.h>

#include <cmath>
#include <utility>

using namespace flanmoe;
using namespace flanmoe::test;

namespace {

StepSettings settings_of_step(int64_t step) {
    StepSettings s;
    s.coefficients = {0.01, 0.001, 0.0001};
    s.seed = 5, s.step = step, s.update = step, s.rate = 1e-2 / static_cast<double>(step + 1), s.clip = 0.5;
    return s;
}

StepBatch batches_of_step(const ModelConfig& config, int64_t step) {
    StepBatch batches;
    for (int64_t i = 0; i < 2; ++i) {
        batches.push_back(random_batch(2, 11, 9, config.vocab_size, static_cast<uint64_t>(10 * step + i), 2 * i));
        if (!config.encoder_decoder) batches.back().encoder_length = 0, batches.back().encoder_ids.clear(), batches.back().encoder_segments.clear();
    }
    return batches;
}

/// A model in training on the simulated device.
struct Run {
    DeviceContext context{Device::cuda};
    Transformer model;
    std::unique_ptr<Optimizer> optimizer;
    std::unique_ptr<TrainingStep> step;
    int64_t made = 0;

    Run(const ModelConfig& config, bool graph, DType type = DType::f32) : model(config) {
        model.parameters().allocate(type, true, type, context);
        model.parameters().initialise(1);
        optimizer = std::make_unique<Optimizer>(OptimizerConfig{}, model.parameters());
        step = std::make_unique<TrainingStep>(context, model, *optimizer, graph);
    }
    StepGradients make() { return make(settings_of_step(made)); }
    StepGradients make(const StepSettings& settings) { return step->run(batches_of_step(model.config(), made++), settings); }
    /// All that a step changes: weights, their compute copy, the optimizer's state.
    std::vector<char> state() {
        std::vector<char> bytes;
        const auto add = [&](const Tensor& t) {
            const size_t begin = bytes.size();
            bytes.resize(begin + static_cast<size_t>(t.bytes()));
            context.engine->download(bytes.data() + begin, t.data, t.bytes());
        };
        for (const Parameter& p : model.parameters().records())
            for (int64_t e = 0; e < p.tensors(); ++e) add(model.parameters().master(p, e)), add(model.parameters().compute(p, e));
        for (const auto& [name, tensor, slice] : optimizer->state()) add(tensor);
        return bytes;
    }
};

ModelConfig loss_free() {
    ModelConfig config = small_switch();
    for (RoutingConfig* routing : {&config.encoder_routing, &config.decoder_routing}) routing->balance_bias = true, routing->balance_bias_rate = 0.125;
    return config;
}

cudasim::Counters since(const cudasim::Counters& before) {
    const cudasim::Counters now = cudasim::counters();
    return {now.launches - before.launches, now.graph_launches - before.graph_launches, now.copies - before.copies, now.allocations - before.allocations,
            now.synchronisations - before.synchronisations};
}

__global__ void idle() {}

}  // namespace

TEST_SUITE("cudasim/training_step") {
    TEST_CASE("memory that is short is refused with what the GPU has, and with who holds it where the model would fit alone") {
        const size_t before = std::exchange(cudasim::machine().memory, size_t{1} << 30);
        {
            const DeviceContext context(Device::cuda);
            void* held = nullptr;
            CHECK(cudaMalloc(&held, size_t{700} << 20) == cudaSuccess);
            const auto refusal = [&](int64_t megabytes, int sharers) -> std::string {
                try {
                    check_memory({.weights = megabytes << 20}, 1000, *context.engine, sharers);
                } catch (const Error& error) {
                    CHECK(error.code == Exit::out_of_memory);
                    return error.what();
                }
                return "";
            };
            const auto contains = [](const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; };
            CHECK(refusal(200, 1).empty());
            CHECK(contains(refusal(500, 1), "are available of the GPU's 1.07 GB; other processes hold the rest (nvidia-smi lists them): end those, or choose another GPU"));
            CHECK(contains(refusal(2000, 1), "are available of the GPU's 1.07 GB; use a smaller model"));
            CHECK(contains(refusal(500, 2), "to each of the 2 ranks of this host; other processes"));
            CHECK(contains(refusal(600, 2), "to each of the 2 ranks of this host; use a smaller model"));
            cudaFree(held);
        }
        cudasim::machine().memory = before;
    }

    TEST_CASE("one graph a step gives the bits of single launches: dense, capacity, dropless, loss-free balancing, bf16") {
        const ModelConfig configs[] = {small_t5(), small_switch(), small_decoder(), loss_free(), small_switch()};
        for (size_t i = 0; i < std::size(configs); ++i) {
            CAPTURE(i);
            const DType type = i + 1 == std::size(configs) ? DType::bf16 : DType::f32;
            Run single(configs[i], false, type), graph(configs[i], true, type);
            for (int step = 0; step < 3; ++step) {
                const StepGradients a = single.make(), b = graph.make();
                CHECK(std::isfinite(a.loss));
                CHECK(a.loss == b.loss);
                CHECK(a.gradient_norm == b.gradient_norm);
                CHECK(a.sums.output.nll == b.sums.output.nll);
                for (size_t layer = 0; layer < a.sums.routing.size(); ++layer) CHECK(a.sums.routing[layer].demand == b.sums.routing[layer].demand);
                CHECK(single.state() == graph.state());
            }
        }
    }
    TEST_CASE("a steady step is one graph and one wait: nothing is allocated, copied or launched beside it") {
        for (const ModelConfig& config : {small_switch(), small_decoder()}) {
            Run run(config, true);
            for (int step = 0; step < 2; ++step) run.make();
            for (int step = 2; step < 5; ++step) {
                const cudasim::Counters before = cudasim::counters();
                run.make();
                const cudasim::Counters used = since(before);
                CHECK(used.allocations == 0);
                CHECK(used.synchronisations == 1);
                CHECK(used.graph_launches == 1);
                CHECK(used.launches == 0);
                CHECK(used.copies == 0);
            }
        }
    }
    TEST_CASE("without a graph every steady step launches the same, allocates nothing and waits once") {
        Run run(small_switch(), false);
        run.context.engine->set_separate_allocations(false);
        for (int step = 0; step < 2; ++step) run.make();
        cudasim::Counters first;
        for (int step = 2; step < 5; ++step) {
            const cudasim::Counters before = cudasim::counters();
            run.make();
            const cudasim::Counters used = since(before);
            if (step == 2) first = used;
            CHECK(used.launches > 100);
            CHECK(used.launches == first.launches);
            CHECK(used.copies == 2);  // batches there, report back
            CHECK(used.allocations == 0);
            CHECK(used.synchronisations == 1);
        }
    }
    TEST_CASE("other shapes and back again: new memory once, and the same bits") {
        Run single(small_switch(), false), graph(small_switch(), true);
        for (const int64_t rows : {2, 2, 4, 4, 2, 2}) {
            const StepBatch batches = {random_batch(rows, 11, 9, 61, 3)};
            const StepSettings settings = settings_of_step(single.made++);
            CHECK(single.step->run(batches, settings).loss == graph.step->run(batches, settings).loss);
        }
        CHECK(single.state() == graph.state());
    }
    TEST_CASE("a step with a spike, or with what is not finite, changes nothing, and the next good one goes on") {
        for (const bool graph : {false, true}) {
            Run run(loss_free(), graph);
            for (int step = 0; step < 3; ++step) run.make();
            const std::vector<char> before = run.state();
            StepSettings settings = settings_of_step(3);
            settings.largest_loss = 0.5;
            const StepGradients refused = run.make(settings);
            CHECK(refused.loss > 0.5);
            CHECK(refused.finite());
            CHECK(run.state() == before);
            settings.largest_loss = refused.loss;
            --run.made;
            CHECK(run.make(settings).loss == refused.loss);
            CHECK(run.state() != before);

            const Tensor gain = run.model.parameters().master(*run.model.parameters().find("decoder.final_layer_norm.weight"));
            const float poison = NAN;
            run.context.engine->upload(gain.data, &poison, sizeof poison);
            const std::vector<char> poisoned = run.state();
            CHECK(!run.make().finite());
            CHECK(run.state() == poisoned);
        }
    }
    TEST_CASE("parts have times between events and names with layers; a recorded step has none") {
        Run run(small_switch(), true);
        run.make();
        PartTimer timer;
        run.context.timer = &timer;
        run.make();
        timer.collect(*run.context.engine);
        std::vector<std::string> names;
        for (const PartTimer::Entry& entry : timer.entries()) {
            names.push_back(entry.name);
            CHECK(entry.seconds > 0);
        }
        for (const char* part : {"attention forward", "experts backward", "output and loss", "gradient norm", "optimizer", "cast weights"})
            CHECK(std::find(names.begin(), names.end(), part) != names.end());
        CHECK(cudasim::ranges().depth == 0);
        CHECK(cudasim::ranges().names.count("experts forward, layer 1") == 1);
    }
    TEST_CASE("an error names kernel, part, layer and step") {
        Run run(small_t5(), false);
        run.context.engine->begin_step(7);
        std::string message;
        try {
            auto part = run.context.part("attention forward", 3);
            cuda::launch(run.context, "too wide", idle, dim3(1), dim3(4096), 0);
            run.context.engine->synchronize();
        } catch (const Error& error) {
            message = error.what();
        }
        for (const char* word : {"too wide", "attention forward", "layer 3", "step 7"}) CHECK(message.find(word) != std::string::npos);
        cudaDeviceReset();
    }
}

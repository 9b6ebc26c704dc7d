// Generation on the simulated device: the CPU's sequences, and what a token asks of the runtime.
#include "cudasim/runtime_api.hpp"
#include "eval/ending_models.hpp"
#include "ops/engine.hpp"

using namespace flanmoe;
using namespace flanmoe::test;

namespace {

/// A model in f32 with the weights of a seed, in the memory of a device.
struct Placed {
    DeviceContext context;
    Transformer model;

    Placed(const ModelConfig& config, Device device, uint64_t seed) : context(device), model(config) {
        model.parameters().allocate(DType::f32, false, DType::f32, context);
        model.parameters().initialise(seed);
    }
    std::vector<Generated> run(const Batch& inputs, const GenerationSettings& settings) { return generate(context, model, inputs, settings); }
};

cudasim::Counters operator-(const cudasim::Counters& a, const cudasim::Counters& b) {
    return {.launches = a.launches - b.launches, .graph_launches = a.graph_launches - b.graph_launches, .copies = a.copies - b.copies, .allocations = a.allocations - b.allocations,
            .synchronisations = a.synchronisations - b.synchronisations, .event_waits = a.event_waits - b.event_waits, .pageable_copies = a.pageable_copies - b.pageable_copies};
}

/// What a whole generation asks for.
cudasim::Counters asked(Placed& placed, const Batch& inputs, GenerationSettings settings, int64_t tokens) {
    settings.max_new_tokens = tokens;
    const cudasim::Counters before = cudasim::counters();
    for (const Generated& g : placed.run(inputs, settings)) CHECK(static_cast<int64_t>(g.ids.size()) == tokens);
    return cudasim::counters() - before;
}

}  // namespace

TEST_SUITE("cudasim/generation") {
    TEST_CASE("the CPU's sequences: greedy, drawn, beams; rows end at different places") {
        const GenerationSettings ways[] = {{.max_new_tokens = 7},
                                           {.max_new_tokens = 7, .temperature = 1.2, .top_k = 9, .seed = 4},
                                           {.max_new_tokens = 7, .scores = false},
                                           {.max_new_tokens = 7, .beams = 3},
                                           {.max_new_tokens = 6, .beams = 5, .length_penalty = 0.5, .early_stopping = true},
                                           {.max_new_tokens = 1, .beams = 2}};
        for (ModelConfig config : {small_t5(true), small_prefix_decoder()}) {
            const Batch many = some_inputs(config, 13);
            const uint64_t seed = ending_seed(config, many);
            const Batch inputs = cut(many, 0, 4);
            Placed host(config, Device::cpu, seed), device(config, Device::cuda, seed);
            for (const GenerationSettings& settings : ways) {
                CAPTURE(settings.beams);
                CAPTURE(settings.temperature);
                const std::vector<Generated> expected = host.run(inputs, settings), got = device.run(inputs, settings);
                CHECK(ids_of(got) == ids_of(expected));
                for (size_t r = 0; r < got.size(); ++r) {
                    CHECK(got[r].ended == expected[r].ended);
                    CHECK(got[r].score == doctest::Approx(expected[r].score).epsilon(1e-4));  // sums of rounded log-probabilities
                }
            }
        }
    }

    TEST_CASE("a token waits for no more than the counts of the one before it, copies no more than its keys, values and counts, and allocates nothing") {
        ModelConfig config = small_t5(true);
        config.eos_id = 60;  // never: it is not among the valid ids
        const Batch inputs = some_inputs(config, 3);
        for (const GenerationSettings& settings : {GenerationSettings{.valid_ids = 60}, {.temperature = 1, .seed = 2, .valid_ids = 60}, {.beams = 4, .valid_ids = 60}}) {
            CAPTURE(settings.beams);
            CAPTURE(settings.temperature);
            Placed device(config, Device::cuda, 1);
            device.context.engine->set_separate_allocations(false);
            asked(device, inputs, settings, 12);
            const cudasim::Counters four = asked(device, inputs, settings, 4), eight = asked(device, inputs, settings, 8), twelve = asked(device, inputs, settings, 12);
            const cudasim::Counters more = twelve - eight, same = eight - four;
            CHECK(more.launches > 0);
            CHECK(more.launches % 4 == 0);
            CHECK(more.launches == same.launches);
            CHECK(more.copies == 4 * (2 * config.decoder_layers + 1));
            CHECK(more.allocations == 0);
            CHECK(more.synchronisations == 4);
            CHECK(more.event_waits == 4);
            CHECK(twelve.event_waits == 11);
            CHECK(twelve.synchronisations - twelve.event_waits <= 8);  // when all is over
        }
    }
}

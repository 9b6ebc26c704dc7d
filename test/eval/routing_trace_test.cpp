// Whole traces of small models: against the model's own reports, independent of batches, each capacity, packed rows, shards, drift where it was planted, JSON.
#include "eval/routing_trace.hpp"

#include "data/fixtures.hpp"
#include "data/shard_folder.hpp"
#include "eval/routing_report.hpp"
#include "model/small_models.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <numeric>

using namespace flanmoe;
using namespace flanmoe::testing;

namespace {

ModelConfig switch_config() {
    ModelConfig config = test::small_switch();
    config.vocab_size = small_tokenizer()->vocabulary_rows();
    config.encoder_routing.eval_capacity_factor = config.decoder_routing.eval_capacity_factor = 1.25;
    return config;
}

std::unique_ptr<Transformer> random_model(const ModelConfig& config = switch_config(), uint64_t seed = 11) {
    auto model = std::make_unique<Transformer>(config);
    model->parameters().allocate(DType::f64, false);
    model->parameters().initialise(seed);
    for (const Parameter& p : model->parameters().records())  // decided routers, that differ from token to token
        if (p.kind == ParameterKind::router)
            for (int64_t i = 0; i < p.elements(); ++i) model->parameters().master(p).as<double>()[i] *= 40;
    return model;
}

// Three tasks of 20 examples of uneven length, and shards of text.
struct Data {
    TemporaryFolder folder;
    std::vector<std::string> tasks;
    Data() {
        for (uint64_t t = 0; t < 3; ++t) {
            std::string lines;
            for (uint64_t i = 0; i < 20; ++i) {
                std::string inputs = synthetic_text(static_cast<int64_t>(1 + i % 3), 100 * t + i);
                std::erase(inputs, '\n');
                lines += "{\"inputs\": \"" + inputs + "\", \"targets\": \"" + (t == 0 ? "bread" : "the old mill") + "\"}\n";
            }
            write_bytes(folder / ("tasks/task" + std::to_string(t) + ".jsonl"), lines);
        }
        tasks = {(folder / "tasks").string()};
    }
    std::string shards() const {
        write_bytes(folder / "text/a.txt", synthetic_text(150, 5));
        build_shards({(folder / "text").string()}, *small_tokenizer(), folder / "shards", {});
        return (folder / "shards").string();
    }
};

TraceSettings settings(TraceCapacity capacity = TraceCapacity::evaluation) {
    TraceSettings s;
    s.capacity = capacity;
    s.data.encoder_length = 96, s.data.decoder_length = 32;
    return s;
}

RoutingTrace trace(const Transformer& model, const std::vector<std::string>& paths, const TraceSettings& s, const Transformer* other = nullptr) {
    Context context;
    return trace_routing(context, model, other, *small_tokenizer(), paths, s);
}

int64_t total(const std::vector<int64_t>& values) { return std::accumulate(values.begin(), values.end(), int64_t{0}); }
double statistic(const LayerCounts& layer, ops::RouteStatistic s) { return layer.statistics[static_cast<size_t>(s)]; }

}  // namespace

TEST_SUITE("eval/routing_trace") {
    TEST_CASE("a trace counts every token once, with its task, and agrees with the model's reports") {
        const Data data;
        const auto model = random_model();
        const RoutingTrace t = trace(*model, data.tasks, settings());
        CHECK(t.tasks == std::vector<std::string>{"task0", "task1", "task2"});
        CHECK(t.examples == 60);
        CHECK(t.rows == 60);
        REQUIRE(t.layers.size() == 2);
        for (const LayerCounts& layer : t.layers) {
            const int64_t tokens = layer.decoder ? t.decoder_tokens : t.encoder_tokens;
            CHECK(total(layer.seen) == tokens);
            CHECK(total(layer.task_seen) == tokens);
            CHECK(total(layer.task_dropped) == total(layer.dropped));
            CHECK(total(layer.by_token) == total(layer.load));
            CHECK(total(layer.by_task) == total(layer.load));
            CHECK(static_cast<double>(total(layer.load)) == statistic(layer, ops::RouteStatistic::rows));
        }
        CHECK(total(t.layers[0].dropped) > 0);
        CHECK(t.layers[1].task_seen[0] < t.layers[1].task_seen[1]);  // "bread" has fewer tokens than "the old mill"
        CHECK(contains(t.capacity, "evaluation (one example a row); encoder: tokens ask for 1, max(1, round(1.25 x tokens / 4)) slots an expert in a row"));

        // The same examples as one batch of the model's own evaluation.
        DataConfig c = settings().data;
        c.objective = Objective::instruct, c.packing = false;
        c = resolve_data_config(c, *small_tokenizer());
        TraceRows rows(data.tasks, c, *small_tokenizer(), 0, {.rows = 100, .tokens = 1 << 20}, 1);
        TracedBatch all;
        REQUIRE(rows.next(all));
        CHECK(all.batch.rows == 60);
        Context context;
        Pass pass = evaluation_pass(context, *model);
        const LossSums sums = model->evaluate(pass, all.batch);
        for (size_t l = 0; l < 2; ++l) {
            for (const auto s : {ops::RouteStatistic::tokens, ops::RouteStatistic::reached, ops::RouteStatistic::slots, ops::RouteStatistic::gate})
                CHECK(statistic(t.layers[l], s) == doctest::Approx(sums.routing[l][s]).epsilon(1e-12));
            for (size_t e = 0; e < 4; ++e) CHECK(static_cast<double>(t.layers[l].load[e]) == sums.routing[l].load[e]);
        }
    }

    TEST_CASE("batches change nothing; limits take the first examples of each task") {
        const Data data;
        const auto model = random_model();
        TraceSettings one = settings(), few = settings(), limited = settings();
        one.batch = {.rows = 1, .tokens = 8192}, few.batch = {.rows = 1000, .tokens = 300}, limited.limit = 5;
        const RoutingTrace expected = trace(*model, data.tasks, settings());
        for (const TraceSettings& s : {one, few}) {
            const RoutingTrace t = trace(*model, data.tasks, s);
            for (size_t l = 0; l < 2; ++l) {
                CHECK(t.layers[l].by_token == expected.layers[l].by_token);
                CHECK(t.layers[l].dropped == expected.layers[l].dropped);
                CHECK(t.layers[l].by_task == expected.layers[l].by_task);
                CHECK(statistic(t.layers[l], ops::RouteStatistic::slots) == statistic(expected.layers[l], ops::RouteStatistic::slots));
            }
        }
        CHECK(trace(*model, data.tasks, limited).examples == 15);
    }

    TEST_CASE("capacities: none drops nothing; training packs rows and takes training's factor") {
        const Data data;
        const auto model = random_model();
        const RoutingTrace none = trace(*model, data.tasks, settings(TraceCapacity::none));
        for (const LayerCounts& layer : none.layers) CHECK(total(layer.dropped) == 0);
        CHECK(contains(none.capacity, "no limit on slots"));

        const RoutingTrace packed = trace(*model, data.tasks, settings(TraceCapacity::training));
        CHECK(packed.examples == 60);
        CHECK(packed.rows < 40);
        CHECK(packed.encoder_tokens == none.encoder_tokens);
        CHECK(packed.layers[1].task_seen == none.layers[1].task_seen);
        CHECK(contains(packed.capacity, "training (examples packed into full rows)"));
        TraceSettings loose = settings(TraceCapacity::training);
        loose.data.packing = false;
        ModelConfig config = switch_config();
        config.encoder_routing.eval_capacity_factor = config.decoder_routing.eval_capacity_factor = 100;
        const auto wide = random_model(config);  // the training factor stays at 1.25
        CHECK(total(trace(*wide, data.tasks, settings()).layers[0].dropped) == 0);
        CHECK(total(trace(*wide, data.tasks, loose).layers[0].dropped) == total(trace(*model, data.tasks, settings()).layers[0].dropped));
    }

    TEST_CASE("groups of several rows are filled up") {
        const Data data;
        ModelConfig config = switch_config();
        config.encoder_routing.group_rows = 7, config.decoder_routing.group_rows = 1;
        TraceSettings s = settings(TraceCapacity::training);
        s.data.packing = false, s.batch.rows = 20;
        const RoutingTrace t = trace(*random_model(config), data.tasks, s);
        CHECK(t.rows == 60);
        CHECK(statistic(t.layers[0], ops::RouteStatistic::groups) == 9);
        CHECK(statistic(t.layers[1], ops::RouteStatistic::groups) == 60);
        config.encoder_routing.group_rows = 0;
        s.data.batch_rows = 25;
        CHECK(statistic(trace(*random_model(config), data.tasks, s).layers[0], ops::RouteStatistic::groups) == 3);
    }

    TEST_CASE("shards: one window a row; not together with tasks") {
        const Data data;
        const auto model = random_model();
        const std::string shards = data.shards();
        TraceSettings s = settings();
        s.data.decoder_length = 0;
        const RoutingTrace t = trace(*model, {shards}, s);
        CHECK(t.rows > 10);
        CHECK(total(t.layers[0].seen) == t.encoder_tokens);
        CHECK(t.layers[0].seen[static_cast<size_t>(small_tokenizer()->sentinel(0))] == t.rows);
        CHECK(contains(failure(Exit::usage, [&] { trace(*model, {shards, data.tasks[0]}, s); }), "not of both"));
        CHECK(contains(failure(Exit::usage, [&] { trace(*random_model(test::small_t5()), data.tasks, s); }), "dense"));
    }

    TEST_CASE("decoder-only models: inputs and targets in one stack, packed or not, and shards") {
        const Data data;
        const std::string shards = data.shards();
        for (ModelConfig config : {test::small_decoder(), test::small_prefix_decoder()}) {
            config.vocab_size = small_tokenizer()->vocabulary_rows();
            config.decoder_routing.group_rows = 1;
            const auto model = random_model(config), encoder_decoder = random_model();
            TraceSettings s = settings();
            s.data.encoder_length = 300;  // nothing is cut
            const RoutingTrace both = trace(*encoder_decoder, data.tasks, s);
            s.data.encoder_length = 0, s.data.decoder_length = 400;
            const RoutingTrace alone = trace(*model, data.tasks, s);
            CHECK(both.found.truncated_inputs + alone.found.truncated_inputs == 0);
            CHECK(alone.rows == 60);
            CHECK(alone.encoder_tokens == 0);
            CHECK(alone.decoder_tokens == both.encoder_tokens + both.decoder_tokens);
            for (const LayerCounts& layer : alone.layers) {
                CHECK(layer.decoder);
                CHECK(total(layer.seen) == alone.decoder_tokens);
            }
            s.capacity = TraceCapacity::training;
            const RoutingTrace packed = trace(*model, data.tasks, s);
            CHECK(packed.rows < 40);
            CHECK(packed.layers[0].task_seen == alone.layers[0].task_seen);
            CHECK(trace(*model, {shards}, s).rows >= 3);
        }
    }

    TEST_CASE("drift is found where it was planted") {
        const Data data;
        const auto model = random_model(), moved = random_model(), same = random_model();
        const Parameter* router = moved->parameters().find("decoder.block.1.layer.2.mlp.router.classifier.weight");
        REQUIRE(router);
        double* rows = moved->parameters().master(*router).as<double>();
        std::rotate(rows, rows + router->shape[1], rows + router->elements());  // every decoder token goes one expert further
        const RoutingTrace t = trace(*model, data.tasks, settings(), moved.get());
        REQUIRE(t.drift.size() == 2);
        CHECK(sum(changed(t.drift[0].wanted, t.drift[0].tokens)).count == 0);
        CHECK(sum(changed(t.drift[0].kept, t.drift[0].tokens)).count == 0);
        const Part decoder = sum(changed(t.drift[1].wanted, t.drift[1].tokens));
        CHECK(decoder.count == t.decoder_tokens);
        CHECK(decoder.of == t.decoder_tokens);
        for (const LayerDrift& d : trace(*model, data.tasks, settings(), same.get()).drift) CHECK(sum(changed(d.wanted, d.tokens)).count == 0);
        ModelConfig eight = switch_config();
        eight.experts = 8;
        CHECK(contains(failure(Exit::usage, [&] { trace(*model, data.tasks, settings(), random_model(eight).get()); }), "cannot be compared"));
    }

    TEST_CASE("JSON and the dump say the same as the counts") {
        const Data data;
        const auto model = random_model();
        TraceSettings s = settings();
        std::vector<nlohmann::json> lines;
        s.dump = [&](std::string_view line) { lines.push_back(nlohmann::json::parse(line)); };
        const RoutingTrace t = trace(*model, data.tasks, s, model.get());
        const auto json = nlohmann::json::parse(routing_json(t, *small_tokenizer(), "here", "there"));
        CHECK(json["checkpoint"] == "here");
        CHECK(json["compared_with"] == "there");
        CHECK(json["encoder_tokens"] == t.encoder_tokens);
        CHECK(json["drift"][0]["wanted"]["share"] == 0);
        const auto& layer = json["layers"][0];
        CHECK(layer["stack"] == "encoder");
        CHECK(layer["block"] == 1);
        CHECK(layer["dropped"]["dropped"] == total(t.layers[0].dropped));
        CHECK(layer["typical_tokens"].size() == 4);
        CHECK(layer["tasks"]["task1"]["by_expert"].size() == 4);
        CHECK(layer["most_dropped"][0]["dropped"] == *std::max_element(t.layers[0].dropped.begin(), t.layers[0].dropped.end()));

        CHECK(lines.size() == 120);  // a row of either stack
        std::vector<int64_t> load(4);
        int64_t dropped = 0;
        for (const auto& line : lines) {
            if (line["stack"] != "encoder") continue;
            REQUIRE(line["layers"]["1"]["kept"].size() == line["ids"].size());
            CHECK(line["tasks"].size() == 1);
            for (const auto& kept : line["layers"]["1"]["kept"]) {
                dropped += kept.empty();
                for (const auto& e : kept) ++load[e.get<size_t>()];
            }
        }
        CHECK(load == t.layers[0].load);
        CHECK(dropped == total(t.layers[0].dropped));
    }
}

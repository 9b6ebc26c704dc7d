// The loader end to end: what batches hold for each objective, packing, truncation, exact resume, independence of prefetch and micro-batch size.
#include "data/loader.hpp"

#include "data/shard_folder.hpp"
#include "fixtures.hpp"

#include <algorithm>
#include <chrono>
#include <map>
#include <set>

using namespace flanmoe;
using flanmoe::testing::contains;
using flanmoe::testing::failure;
using flanmoe::testing::small_tokenizer;
using flanmoe::testing::synthetic_text;
using flanmoe::testing::write_bytes;

namespace {

bool same(const Batch& a, const Batch& b) {
    return a.rows == b.rows && a.encoder_length == b.encoder_length && a.decoder_length == b.decoder_length && a.first_row == b.first_row &&
           a.encoder_ids == b.encoder_ids && a.encoder_segments == b.encoder_segments && a.decoder_ids == b.decoder_ids &&
           a.decoder_segments == b.decoder_segments && a.decoder_targets == b.decoder_targets && a.prefix_ends == b.prefix_ends;
}

bool same(const StepBatch& a, const StepBatch& b) {
    return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), [](const Batch& x, const Batch& y) { return same(x, y); });
}

// Shards of synthetic text, and JSONL of short questions; made once a test.
struct Data {
    TemporaryFolder folder;

    Data() {
        for (uint64_t i = 0; i < 4; ++i) write_bytes(folder / ("text/" + std::to_string(i) + ".txt"), synthetic_text(120, i));
        ShardOptions options;
        options.shard_bytes = 4000;
        build_shards({(folder / "text").string()}, *small_tokenizer(), folder / "shards", options);
        for (int source = 0; source < 2; ++source) {
            std::string lines;
            for (int i = 0; i < 60; ++i) {
                std::string inputs = synthetic_text(1 + i % 3, static_cast<uint64_t>(1000 * source + i)),
                            targets = synthetic_text(1, static_cast<uint64_t>(500 + i));
                for (std::string* text : {&inputs, &targets}) text->erase(std::remove(text->begin(), text->end(), '\n'), text->end());
                lines += "{\"inputs\": \"" + inputs + "\", \"targets\": \"" + targets + "\"}\n";
            }
            write_bytes(folder / ("tasks/" + std::to_string(source) + ".jsonl"), lines);
        }
    }
    DataConfig pretrain(Objective objective) const {
        DataConfig config;
        config.objective = objective;
        config.train = {(folder / "shards").string()};
        config.encoder_length = 64;
        config.batch_rows = 8;
        config.micro_batch_rows = 4;
        return config;
    }
    DataConfig instruct() const {
        DataConfig config = pretrain(Objective::instruct);
        config.train = {(folder / "tasks/0.jsonl").string(), (folder / "tasks/1.jsonl").string()};
        config.encoder_length = 128;
        config.decoder_length = 96;
        return config;
    }
};

// Checks what must hold for every batch, whatever it was made from.
void check_shape(const Batch& b, const DataConfig& config) {
    const auto size = [&](int64_t length) { return static_cast<size_t>(b.rows * length); };
    REQUIRE(b.encoder_ids.size() == size(b.encoder_length));
    REQUIRE(b.encoder_segments.size() == size(b.encoder_length));
    REQUIRE(b.decoder_ids.size() == size(b.decoder_length));
    REQUIRE(b.decoder_segments.size() == size(b.decoder_length));
    REQUIRE(b.decoder_targets.size() == size(b.decoder_length));
    for (size_t i = 0; i < b.encoder_ids.size(); ++i) CHECK((b.encoder_segments[i] == 0) == (b.encoder_ids[i] == 0));
    for (int64_t r = 0; r < b.rows; ++r) {
        int32_t previous = 0;
        for (int64_t t = 0; t < b.decoder_length; ++t) {
            const auto i = static_cast<size_t>(r * b.decoder_length + t);
            const int32_t segment = b.decoder_segments[i];
            if (segment == 0) {
                CHECK(b.decoder_targets[i] == ignored);
                CHECK(b.decoder_ids[i] == config.pad_id);
                continue;
            }
            // Shifted right within each segment.
            if (segment != previous)
                CHECK(b.decoder_ids[i] == config.decoder_start_id);
            else if (b.decoder_targets[i - 1] != ignored)
                CHECK(b.decoder_ids[i] == b.decoder_targets[i - 1]);
            CHECK((segment == previous || segment == previous + 1));
            previous = segment;
        }
    }
}

// The examples of a row by segment: inputs and targets.
std::map<int32_t, Example> examples_of_row(const Batch& b, int64_t row) {
    std::map<int32_t, Example> examples;
    for (int64_t t = 0; t < b.encoder_length; ++t)
        if (const auto i = static_cast<size_t>(row * b.encoder_length + t); b.encoder_segments[i])
            examples[b.encoder_segments[i]].inputs.push_back(b.encoder_ids[i]);
    for (int64_t t = 0; t < b.decoder_length; ++t)
        if (const auto i = static_cast<size_t>(row * b.decoder_length + t); b.decoder_segments[i])
            examples[b.decoder_segments[i]].targets.push_back(b.decoder_targets[i]);
    return examples;
}

}  // namespace

TEST_SUITE("data/loader") {
    TEST_CASE("span corruption: full windows fill the lengths, no token is lost in an epoch") {
        const Data data;
        DataConfig config = data.pretrain(Objective::span_corruption);
        const ShardFolder shards(data.folder / "shards");
        REQUIRE(shards.shards().size() > 3);
        for (const bool shuffle : {false, true}) {
            config.shuffle = shuffle;
            const DataConfig resolved = resolve_data_config(config, *small_tokenizer());
            CHECK(resolved.decoder_length == 14);
            std::map<int32_t, int64_t> left;
            std::vector<int32_t> ids;
            for (const TokenShard& shard : shards.shards()) {
                shard.read(0, shard.tokens(), ids);
                for (int32_t id : ids) ++left[id];
            }
            // Everything of an epoch put back together: the tokens of the shards, but for what is counted as left out.
            RowStream stream(config.train, resolved, *small_tokenizer(), true);
            const int32_t first_sentinel = small_tokenizer()->sentinel(0), last_sentinel = small_tokenizer()->sentinel(99);
            int64_t rows = 0, full = 0;
            for (Row row; stream.next(row, stream.epoch_size());) {
                ++rows;
                full += row.encoder_ids.size() == 64 && row.decoder_targets.size() == 14;
                CHECK(row.encoder_ids.back() == 1);
                CHECK(row.decoder_targets.back() == 1);
                CHECK(row.decoder_targets.front() == first_sentinel);
                for (const auto* side : {&row.encoder_ids, &row.decoder_targets})
                    for (int32_t id : *side)
                        if (id != 1 && (id < last_sentinel || id > first_sentinel)) --left[id];
            }
            CHECK(full > rows * 3 / 4);
            int64_t missing = 0;
            for (const auto& [id, count] : left) {
                CHECK(count >= 0);
                missing += count;
            }
            CHECK(missing == stream.counts().left_out);
        }
    }

    TEST_CASE("shapes of all objectives; micro-batches make up the step") {
        const Data data;
        for (const DataConfig& base : {data.pretrain(Objective::span_corruption), data.pretrain(Objective::prefix_lm), data.instruct()}) {
            DataConfig config = base;
            Loader loader(config, small_tokenizer());
            config.micro_batch_rows = 8;
            Loader whole(config, small_tokenizer());
            for (int step = 0; step < 5; ++step) {
                const StepBatch micro = loader.next(), one = whole.next();
                REQUIRE(micro.size() == 2);
                REQUIRE(one.size() == 1);
                CHECK(micro[1].first_row == 4);
                StepBatch joined = {micro[0]};
                const auto append = [](std::vector<int32_t>& to, const std::vector<int32_t>& from) { to.insert(to.end(), from.begin(), from.end()); };
                append(joined[0].encoder_ids, micro[1].encoder_ids);
                append(joined[0].encoder_segments, micro[1].encoder_segments);
                append(joined[0].decoder_ids, micro[1].decoder_ids);
                append(joined[0].decoder_segments, micro[1].decoder_segments);
                append(joined[0].decoder_targets, micro[1].decoder_targets);
                joined[0].rows = 8;
                CHECK(same(joined, one));
                for (const Batch& batch : micro) check_shape(batch, loader.config());
            }
        }
    }

    TEST_CASE("prefix-LM: text goes on from the encoder to the decoder") {
        const Data data;
        DataConfig config = data.pretrain(Objective::prefix_lm);
        config.shuffle = false;
        Loader loader(config, small_tokenizer());
        CHECK(loader.config().decoder_length == 64);
        const StepBatch step = loader.next();
        const ShardFolder shards(data.folder / "shards");
        std::vector<int32_t> window;
        shards.shards()[0].read(0, 64, window);  // slot 0 is empty without an offset
        Example example = examples_of_row(step[0], 0)[1];
        CHECK(example.inputs.back() == 1);
        CHECK(example.targets.back() == 1);
        example.inputs.pop_back();
        example.targets.pop_back();
        std::vector<int32_t> joined = example.inputs;
        joined.insert(joined.end(), example.targets.begin(), example.targets.end());
        CHECK(joined == window);

        config.encoder_decoder = false;
        config.encoder_length = 0;
        config.decoder_length = 64;
        CHECK(Loader(config, small_tokenizer()).next()[0].prefix_ends.empty());  // causal throughout
        config.bidirectional_prefix = true;
        Loader decoder(config, small_tokenizer());
        const Batch batch = decoder.next()[0];
        CHECK(batch.encoder_length == 0);
        REQUIRE(batch.prefix_ends.size() == batch.decoder_ids.size());
        const int32_t prefix = batch.prefix_ends[0];
        for (int32_t t = 0; t < 64; ++t) CHECK(batch.prefix_ends[static_cast<size_t>(t)] == (t < prefix ? prefix : 0));
        check_shape(batch, decoder.config());
        CHECK(std::vector<int32_t>(batch.decoder_ids.begin() + 1, batch.decoder_ids.begin() + 64) ==
              std::vector<int32_t>(window.begin(), window.begin() + 63));
        // Position t is shown the prefix when it lies inside; the last of these predicts the first target.
        for (int32_t t = 0; t < 64; ++t)
            CHECK(batch.decoder_targets[static_cast<size_t>(t)] == (t < prefix - 1 ? ignored : window[static_cast<size_t>(t)]));
        config.objective = Objective::causal_lm;
        Loader causal(config, small_tokenizer());
        const Batch all = causal.next()[0];
        check_shape(all, causal.config());
        CHECK(std::vector<int32_t>(all.decoder_targets.begin(), all.decoder_targets.begin() + 64) == window);
        CHECK(std::vector<int32_t>(all.decoder_ids.begin() + 1, all.decoder_ids.begin() + 64) == std::vector<int32_t>(window.begin(), window.begin() + 63));
        CHECK(std::all_of(all.prefix_ends.begin(), all.prefix_ends.end(), [](int32_t end) { return end == 0; }));
        config.objective = Objective::span_corruption;
        CHECK(contains(failure(Exit::usage, [&] { Loader(config, small_tokenizer()); }), "needs an encoder-decoder model"));
        config.objective = Objective::causal_lm, config.encoder_decoder = true, config.encoder_length = 64;
        CHECK(contains(failure(Exit::usage, [&] { Loader(config, small_tokenizer()); }), "is for decoder-only models"));
    }

    TEST_CASE("packing: seqio's rule, segments, and an epoch in which no example is lost") {
        const Data data;
        const DataConfig config = resolve_data_config(data.instruct(), *small_tokenizer());
        std::multiset<std::pair<std::vector<int32_t>, std::vector<int32_t>>> wanted, found;
        std::vector<Example> order;
        {
            DataConfig single = config;
            single.packing = false;
            RowStream stream(config.train, single, *small_tokenizer(), true);
            for (Row row; stream.next(row, stream.epoch_size());) {
                order.push_back({row.encoder_ids, row.decoder_targets});
                wanted.insert({row.encoder_ids, row.decoder_targets});
            }
        }
        RowStream stream(config.train, config, *small_tokenizer(), true);
        size_t next = 0, rows = 0;
        for (Row row; stream.next(row, stream.epoch_size()); ++rows) {
            const Batch batch = make_batch({row}, 0, 1, config.encoder_length, config.decoder_length, config);
            check_shape(batch, config);
            size_t inputs = 0, targets = 0;
            for (const auto& [segment, example] : examples_of_row(batch, 0)) {
                REQUIRE(next < order.size());
                CHECK(example.inputs == order[next].inputs);  // nothing is reordered
                CHECK(example.targets == order[next].targets);
                found.insert({example.inputs, example.targets});
                inputs += example.inputs.size(), targets += example.targets.size();
                ++next;
            }
            // The next example would not have fitted.
            if (next < order.size()) CHECK((inputs + order[next].inputs.size() > 128 || targets + order[next].targets.size() > 96));
        }
        CHECK(found == wanted);
        CHECK(wanted.size() == 120);
        CHECK(rows < 80);
    }

    TEST_CASE("one example a row: padded to the longest of the step, rounded up") {
        const Data data;
        DataConfig config = data.instruct();
        config.packing = false;
        config.pad_multiple = 8;
        Loader loader(config, small_tokenizer());
        for (int i = 0; i < 5; ++i) {
            const StepBatch step = loader.next();
            size_t longest = 0;
            for (const Batch& batch : step) {
                check_shape(batch, config);
                CHECK(batch.encoder_length == step[0].encoder_length);
                CHECK(batch.encoder_length % 8 == 0);
                for (int64_t r = 0; r < batch.rows; ++r) longest = std::max(longest, examples_of_row(batch, r)[1].inputs.size());
            }
            CHECK(static_cast<size_t>(step[0].encoder_length) < longest + 8);
        }
        config.encoder_decoder = false;
        config.encoder_length = 0;
        config.decoder_length = 160;
        config.bidirectional_prefix = true;
        Loader decoder(config, small_tokenizer());
        const Batch batch = decoder.next()[0];
        check_shape(batch, config);
        for (int64_t r = 0; r < batch.rows; ++r) {
            const auto first = static_cast<size_t>(r * batch.decoder_length), prefix = static_cast<size_t>(batch.prefix_ends[first]);
            CHECK(batch.decoder_ids[first + prefix - 1] == 1);  // inputs end in the end mark
            CHECK(batch.decoder_targets[first + prefix - 2] == ignored);
            CHECK(batch.decoder_targets[first + prefix - 1] != ignored);
        }

        // Packed: every segment begins with the start mark and a prefix of its own, and only what follows the prefix is predicted.
        config.packing = true;
        Loader packed(config, small_tokenizer());
        const Batch rows = packed.next()[0];
        check_shape(rows, config);
        CHECK(*std::max_element(rows.decoder_segments.begin(), rows.decoder_segments.end()) > 1);
        for (int64_t i = 0; i < static_cast<int64_t>(rows.decoder_ids.size()); ++i) {
            const auto at = static_cast<size_t>(i);
            const int64_t t = i % rows.decoder_length;
            if (rows.decoder_segments[at] == 0) {
                CHECK(rows.prefix_ends[at] == 0);
                CHECK(rows.decoder_targets[at] == ignored);
                continue;
            }
            const bool begins = t == 0 || rows.decoder_segments[at - 1] != rows.decoder_segments[at];
            if (begins) CHECK(rows.decoder_ids[at] == 0);
            if (rows.prefix_ends[at] > 0) {
                CHECK(rows.prefix_ends[at] > t);
                CHECK((rows.decoder_targets[at] == ignored) == (t + 1 < rows.prefix_ends[at]));
            } else {
                CHECK_FALSE(begins);
                CHECK(rows.decoder_targets[at] != ignored);
            }
        }
    }

    TEST_CASE("truncation by the named rule, counted, end marks kept") {
        TemporaryFolder folder;
        write_bytes(folder / "x.jsonl",
                    "{\"inputs\": \"the the the the the the the the young sheep\", \"targets\": \"to to to to to to to to\"}\n{\"inputs\": \"the\", "
                    "\"targets\": \"to\"}\n");
        DataConfig config;
        config.objective = Objective::instruct;
        config.train = {(folder / "x.jsonl").string()};
        config.encoder_length = 6, config.decoder_length = 4;
        config.batch_rows = 2;
        config.packing = false;
        config.shuffle = false;
        const std::vector<int32_t> inputs = small_tokenizer()->encode("the the the the the the the the young sheep");
        const auto first = [&](Truncation rule) {
            config.truncation = rule;
            Loader loader(config, small_tokenizer());
            return std::pair{examples_of_row(loader.next()[0], 0)[1], loader.statistics().sources};
        };
        const auto [kept, counts] = first(Truncation::keep_start);
        CHECK(kept.inputs.size() == 6);
        CHECK(std::equal(kept.inputs.begin(), kept.inputs.end() - 1, inputs.begin()));
        CHECK(kept.inputs.back() == 1);
        CHECK(kept.targets.size() == 4);
        CHECK(kept.targets.back() == 1);
        CHECK(counts.truncated_inputs == 1);
        CHECK(counts.truncated_targets == 1);
        CHECK(counts.examples == 2);
        const auto end = first(Truncation::keep_end).first;
        CHECK(std::equal(end.inputs.begin(), end.inputs.end() - 1, inputs.end() - 5));
        const auto [rest, dropped] = first(Truncation::drop);
        CHECK(rest.inputs.size() < 6);
        CHECK(dropped.dropped == 1);
        config.encoder_length = 3;
        write_bytes(folder / "x.jsonl", "{\"inputs\": \"the the the the\", \"targets\": \"to\"}\n");
        CHECK(contains(failure(Exit::bad_data, [&] { first(Truncation::drop); }), "no example of"));
    }

    TEST_CASE("resuming at any step gives the same bits, whatever was prefetched") {
        const Data data;
        RandomStream random(RandomKey{21, 0, 0, Purpose::sampling});
        for (DataConfig config : {data.pretrain(Objective::span_corruption), data.pretrain(Objective::prefix_lm), data.instruct()}) {
            config.prefetch = 0;
            std::vector<StepBatch> steps;
            std::vector<LoaderState> states;
            Loader plain(config, small_tokenizer());
            for (int i = 0; i < 40; ++i) {
                states.push_back(plain.state());
                steps.push_back(plain.next());
            }
            CHECK(plain.state().epoch > 0);  // beyond the first epoch
            config.prefetch = 3;
            Loader loader(config, small_tokenizer());
            for (int attempt = 0; attempt < 6; ++attempt) {
                const auto at = static_cast<size_t>(random.below(36));
                loader.restore(LoaderState::from_json(states[at].to_json()));
                for (size_t i = at; i < at + 4; ++i) {
                    CHECK(loader.state().to_json() == states[i].to_json());
                    CHECK(same(loader.next(), steps[i]));
                }
            }
            CHECK_FALSE(same(steps[0], steps[1]));
        }
    }

    TEST_CASE("a position of other data or settings is refused, a broken one too") {
        const Data data;
        DataConfig config = data.pretrain(Objective::span_corruption);
        Loader loader(config, small_tokenizer());
        const LoaderState state = loader.state();
        config.seed = 1;
        Loader other(config, small_tokenizer());
        CHECK(contains(failure(Exit::usage, [&] { other.restore(state); }), "belongs to other data"));
        config.seed = 0;
        config.batch_rows = 16;  // may differ
        Loader larger(config, small_tokenizer());
        larger.restore(state);
        failure(Exit::bad_checkpoint, [] { LoaderState::from_json("{\"epoch\": 1"); });
        failure(Exit::bad_checkpoint, [] { LoaderState::from_json("{\"epoch\": -1}"); });
    }

    TEST_CASE("validation is the same every time, ends, and is not changed by weights") {
        const Data data;
        DataConfig config = data.instruct();
        config.validation = {(data.folder / "tasks").string()};
        config.packing = false;
        config.validation_batches = 1000;
        config.validation_rows = 7;
        DataStatistics statistics;
        const std::vector<Batch> all = validation_batches(config, *small_tokenizer(), &statistics);
        CHECK(all.size() == 18);  // 120 examples
        CHECK(all.back().rows == 1);
        CHECK(statistics.given.examples == 120);
        config.validation_batches = 3;
        config.weights = {1.0, 5.0};
        const std::vector<Batch> some = validation_batches(config, *small_tokenizer());
        REQUIRE(some.size() == 3);
        for (size_t i = 0; i < 3; ++i) CHECK(same(some[i], all[i]));
        config.validation.clear();
        CHECK(contains(failure(Exit::usage, [&] { validation_batches(config, *small_tokenizer()); }), "data.validation"));
    }

    TEST_CASE("a source that is not there") {
        const Data data;
        DataConfig config = data.pretrain(Objective::span_corruption);
        config.train = {(data.folder / "shards").string(), (data.folder / "nowhere").string()};
        failure(Exit::missing_input, [&] { Loader(config, small_tokenizer()); });
    }

    TEST_CASE("settings out of range name their field") {
        const Data data;
        const auto sentence = [&](auto&& change) {
            DataConfig config = data.pretrain(Objective::span_corruption);
            change(config);
            return failure(Exit::usage, [&] { Loader(config, small_tokenizer()); });
        };
        CHECK(contains(sentence([](DataConfig& c) { c.micro_batch_rows = 3; }),
                       "data.micro_batch_rows = 3 is out of range; it must divide data.batch_rows"));
        CHECK(contains(sentence([](DataConfig& c) { c.decoder_length = 10; }), "set it to 14"));
        CHECK(contains(sentence([](DataConfig& c) { c.encoder_length = 2; }), "data.encoder_length = 2"));
        CHECK(contains(sentence([](DataConfig& c) { c.encoder_length = 4096; }), "sentinels"));
        CHECK(contains(sentence([](DataConfig& c) { c.weights = {1, 2}; }), "data.weights has 2 entries, but data.train 1"));
        CHECK(contains(sentence([](DataConfig& c) { c.train.clear(); }), "set data.train"));
        CHECK(contains(sentence([](DataConfig& c) { c.objective = Objective::instruct, c.decoder_length = 0; }), "data.decoder_length = 0"));
    }

    TEST_CASE("speed: far above what training consumes") {
        // The bound is a tenth of what is asked of a core (1 M tokens a second), so that a busy machine or a sanitizer build passes.
        const Data data;
        DataConfig config = data.pretrain(Objective::span_corruption);
        config.encoder_length = 512;
        config.batch_rows = 64;
        config.prefetch = 0;
        Loader loader(config, small_tokenizer());
        const auto start = std::chrono::steady_clock::now();
        for (int i = 0; i < 20; ++i) loader.next();
        const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        const RowCounts given = loader.statistics().given;
        const double rate = static_cast<double>(given.input_tokens + given.target_tokens) / seconds;
        MESSAGE("span corruption: ", rate * 1e-6, " M tokens/s on one core");
        CHECK(rate > 1e5);
    }
}

// Mixtures of tasks: exact rates, shares of each way to ask, exemplars, truncation, the cache, and the same stream after a stop and for any number of ranks.
#include "data/mixture_source.hpp"

#include "core/file.hpp"
#include "core/processor_time.hpp"
#include "data/loader.hpp"
#include "fixtures.hpp"

#include <cmath>
#include <map>
#include <set>

using namespace flanmoe;
using namespace flanmoe::testing;

namespace {

/// Tasks a (400 records), b (100), c (20), d (5), with options and an inverted template, in a folder of their own; and mixtures over them.
struct World {
    TemporaryFolder folder;
    DataConfig config;
    std::shared_ptr<const Tokenizer> tokenizer = small_tokenizer();

    World() {
        for (const auto& [name, count] : {std::pair{"a", 400}, {"b", 100}, {"c", 20}, {"d", 5}}) {
            std::string lines;
            for (int i = 0; i < count; ++i)
                lines += "{\"question\": \"" + std::string(name) + " " + trimmed(i) + " " + synthetic_text(1, static_cast<uint64_t>(i)) + "\", \"answer\": \"" + (i % 2 ? "the" : "old") + "\"}\n";
            write_bytes(folder / (std::string(name) + ".jsonl"), lines);
            write_bytes(folder.path() / "tasks" / (std::string(name) + ".toml"),
                        "name = \"" + std::string(name) + "\"\nreader = \"jsonl\"\noptions = [\"the\", \"old\"]\nanswer = \"{{ answer }}\"\nlanguage = \"" + (name[0] == 'd' ? "de" : "en") +
                            "\"\n[files]\ntrain = \"" + name + ".jsonl\"\n[[template]]\ninputs = \"{{ question }} {{ options_ }}\"\ntargets = \"{{ answer }}\"\n"
                            "[[template]]\ninputs = \"more {{ question }}\"\ntargets = \"{{ answer }}\"\n"
                            "[[template]]\ninverted = true\ninputs = \"{{ answer }}\"\ntargets = \"{{ question }}\"\n");
        }
        config.objective = Objective::instruct;
        config.folder = folder.path().string();
        config.encoder_length = 512;
        config.decoder_length = 128;
        config.batch_rows = 8;
        config.micro_batch_rows = 4;
        config.prefetch = 0;
        config.seed = 5;
    }
    static std::string trimmed(int number) { return std::string(static_cast<size_t>(number % 7 + 1), 'o') + " " + std::to_string(number); }

    void mixture(const std::string& text) {
        config.mixture = (folder / "mixture.toml").string();
        write_bytes(config.mixture, text);
    }
    OpenMixture open() const { return open_mixture(resolve_data_config(config, *tokenizer), *tokenizer, true); }
    MixtureFile load() const { return load_mixture(training_choice(config)); }
    std::string refusal(const std::string& text) {
        mixture(text);
        return failure(Exit::usage, [&] { load(); });
    }
};

bool within_three_sigma(int64_t count, int64_t draws, double rate) {
    return std::abs(static_cast<double>(count) - static_cast<double>(draws) * rate) <= 3 * std::sqrt(static_cast<double>(draws) * rate * (1 - rate));
}

const char* tree = R"(
few_shot = 0.5
options = 0.25
[[part]]
name = "first"
proportion = 3
cap = 200
tasks = ["tasks/a.toml", "tasks/b.toml"]
[[part]]
name = "rest"
proportion = 1
few_shot = 0
[[part.part]]
name = "c"
tasks = "tasks/c.toml"
[[part.part]]
name = "d"
inversion = 0.4
tasks = "tasks/d.toml"
)";

std::vector<int32_t> ids(const StepBatch& step) {
    std::vector<int32_t> all;
    for (const Batch& b : step)
        for (const auto* part : {&b.encoder_ids, &b.encoder_segments, &b.decoder_ids, &b.decoder_targets}) all.insert(all.end(), part->begin(), part->end());
    return all;
}

/// Rows of a step by number, as [encoder, decoder] ids.
void add_rows(const StepBatch& step, int64_t rows, std::map<int64_t, std::vector<int32_t>>& all) {
    for (const Batch& b : step)
        for (int64_t r = 0; r < b.rows && b.first_row + r < rows; ++r) {
            bool real = false;
            for (int64_t i = 0; i < b.encoder_length; ++i) real = real || b.encoder_segments[static_cast<size_t>(r * b.encoder_length + i)] != 0;
            if (!real) continue;
            std::vector<int32_t>& row = all[b.first_row + r];
            row.assign(b.encoder_ids.begin() + r * b.encoder_length, b.encoder_ids.begin() + (r + 1) * b.encoder_length);
            row.insert(row.end(), b.decoder_targets.begin() + r * b.decoder_length, b.decoder_targets.begin() + (r + 1) * b.decoder_length);
        }
}

}  // namespace

TEST_SUITE("data/mixture_source") {
    TEST_CASE("rates: proportions among parts, capped sizes among tasks, scale and temperature") {
        World world;
        world.mixture(tree);
        const MixtureFile file = world.load();
        REQUIRE(file.tasks.size() == 4);
        CHECK(file.tasks[3].part == "rest/d");
        CHECK(file.tasks[0].cap == 200);
        const std::vector<double> rates = mixture_rates(file, {400, 100, 20, 5});
        const double expected[] = {0.75 * 200 / 300, 0.75 * 100 / 300, 0.25 * 20 / 25, 0.25 * 5 / 25};
        for (size_t i = 0; i < 4; ++i) CHECK(rates[i] == doctest::Approx(expected[i]).epsilon(1e-12));

        world.mixture("cap = 150\nscale = 2\ntemperature = 2\ntasks = [\"tasks\"]\n");
        const std::vector<double> flat = mixture_rates(world.load(), {400, 100, 20, 5});
        const double sum = std::sqrt(150) + std::sqrt(150) + std::sqrt(40) + std::sqrt(10);
        CHECK(flat[0] == doctest::Approx(std::sqrt(150) / sum).epsilon(1e-12));
        CHECK(flat[3] == doctest::Approx(std::sqrt(10) / sum).epsilon(1e-12));

        // Section 8.4: a part whose tasks were not chosen leaves its share to the others.
        world.mixture(tree);
        world.config.tasks = 1;
        const OpenMixture one = world.open();
        CHECK(one.rates == std::vector<double>{1.0});
    }

    TEST_CASE("100,000 draws are within three sigma of the rates, and exact over an epoch") {
        World world;
        world.mixture(tree);
        const OpenMixture open = world.open();
        std::vector<int64_t> sizes;
        for (const auto& source : open.sources) sizes.push_back(source->size());
        Mixture order(sizes, open.rates, 0, 5, true, 1 << 20);
        CHECK(order.epoch_size() == 1 << 20);
        std::vector<int64_t> counts(4);
        int64_t few_shot = 0, with_options = 0, with_choice = 0, inverted = 0, of_d = 0;
        for (int64_t i = 0; i < 100000; ++i) {
            const Mixture::Place place = order.at(i);
            ++counts[place.source];
            const MixtureSource::Draw d = open.sources[place.source]->draw(place.pass, place.slot);
            const TaskTokens::Way& way = open.sources[place.source]->tokens().ways()[d.way];
            if (place.source < 2) few_shot += !d.exemplars.empty();
            if (place.source >= 2) CHECK(d.exemplars.empty());
            with_choice += way.index == 0;
            with_options += way.index == 0 && way.with_options;
            if (place.source == 3) ++of_d, inverted += way.inverted;
            if (place.source != 3) CHECK_FALSE(way.inverted);
        }
        for (size_t s = 0; s < 4; ++s) {
            CAPTURE(s);
            CHECK(within_three_sigma(counts[s], 100000, open.rates[s]));
            CHECK(std::abs(static_cast<double>(order.share(s)) - open.rates[s] * (1 << 20)) < 1);
        }
        CHECK(within_three_sigma(few_shot, counts[0] + counts[1], 0.5));
        CHECK(within_three_sigma(with_options, with_choice, 0.25));
        CHECK(within_three_sigma(inverted, of_d, 0.4));
    }

    TEST_CASE("exemplars: others, each once, asked alike; tokens of the whole are those of the text") {
        World world;
        world.mixture("few_shot = 1\nshots = [1, 4]\ntasks = [\"tasks/c.toml\"]\n");
        const OpenMixture open = world.open();
        const MixtureSource& source = *open.sources[0];
        const auto& task = *open.file.tasks[0].task;
        const auto records = task.read("train");
        std::set<size_t> shots;
        Example example;
        for (int64_t pass = 0; pass < 10; ++pass)
            for (int64_t slot = 0; slot < source.size(); ++slot) {
                const auto d = source.draw(pass, slot);
                shots.insert(d.exemplars.size());
                CHECK(std::set<int64_t>(d.exemplars.begin(), d.exemplars.end()).size() == d.exemplars.size());
                for (int64_t e : d.exemplars) CHECK(e != d.record);
                source.get(pass, slot, example);
                const TaskTokens::Way& way = source.tokens().ways()[d.way];
                std::string text;
                for (size_t e = d.dropped; e < d.exemplars.size(); ++e) {
                    const auto shot = task.render(records[static_cast<size_t>(d.exemplars[e])], way.index, way.with_options);
                    text += shot->inputs + "\n" + shot->targets[0] + "\n\n";
                }
                const auto asked = task.render(records[static_cast<size_t>(d.record)], way.index, way.with_options);
                std::vector<int32_t> whole = world.tokenizer->encode_with_sentinels(text + asked->inputs);
                if (whole.size() < 511) {
                    whole.push_back(1);
                    CHECK(example.inputs == whole);
                }
                CHECK(example.inputs.size() <= 512);
            }
        CHECK(shots == std::set<size_t>{1, 2, 3, 4});
    }

    TEST_CASE("what is too long: exemplars go from the front, then the rule of the config; all counted") {
        World world;
        world.mixture("few_shot = 1\nshots = 4\ntasks = [\"tasks/c.toml\"]\n");
        world.config.encoder_length = 44;
        world.config.decoder_length = 8;
        const OpenMixture open = world.open();
        const MixtureSource& source = *open.sources[0];
        int64_t dropped = 0, cut = 0, inputs = 0, targets = 0;
        Example example;
        for (int64_t slot = 0; slot < source.size(); ++slot) {
            const auto d = source.draw(0, slot);
            dropped += static_cast<int64_t>(d.dropped), cut += d.cut;
            source.get(0, slot, example);
            CHECK(example.inputs.size() <= 44);
            CHECK(example.targets.size() <= 8);
            CHECK(example.inputs.back() == 1);
        }
        CHECK(dropped > 0);
        int64_t narrowed = 0, unusable = 0;
        for (int64_t r = 0; r < 20; ++r) {
            bool long_inputs = false, long_targets = false, usable = false;
            for (size_t w = 0; w < source.tokens().ways().size(); ++w) {
                const auto [in, out] = source.tokens().lengths(r, w);
                long_inputs |= in > 43, long_targets |= out > 7, usable |= in <= 43 && out <= 7;
            }
            inputs += long_inputs, targets += long_targets, narrowed += usable && (long_inputs || long_targets), unusable += !usable;
        }
        CHECK(inputs > 0);
        CHECK(source.counts().truncated_inputs == inputs);  // once a record, however many ways cut it
        CHECK(source.counts().truncated_targets == targets);
        CHECK(targets == 20);  // all are cut when inverted
        world.config.truncation = Truncation::drop;
        const OpenMixture strict = world.open();
        CHECK(unusable > 0);
        CHECK(narrowed > 0);
        CHECK(strict.sources[0]->counts().dropped == unusable);
        CHECK(strict.sources[0]->counts().narrowed == narrowed);
        CHECK(strict.sources[0]->size() == 20 - unusable);
        for (int64_t slot = 0; slot < strict.sources[0]->size(); ++slot) CHECK_FALSE(strict.sources[0]->draw(0, slot).cut);
    }

    TEST_CASE("the same stream after a stop, and for 1, 2 and 4 ranks") {
        World world;
        world.mixture(tree);
        Loader loader(world.config, world.tokenizer);
        std::vector<std::vector<int32_t>> steps;
        LoaderState state;
        for (int i = 0; i < 6; ++i) {
            if (i == 3) state = LoaderState::from_json(loader.state().to_json());
            steps.push_back(ids(loader.next()));
        }
        Loader again(world.config, world.tokenizer);
        again.restore(state);
        for (size_t i = 3; i < 6; ++i) CHECK(ids(again.next()) == steps[i]);
        std::vector<std::map<int64_t, std::vector<int32_t>>> by_ranks;
        for (int count : {1, 2, 4}) {
            std::map<int64_t, std::vector<int32_t>> rows;
            for (int rank = 0; rank < count; ++rank) {
                Loader one(world.config, world.tokenizer, Share{rank, count, 1});
                add_rows(one.next(), 8, rows);
            }
            CHECK(rows.size() == 8);
            by_ranks.push_back(rows);
        }
        CHECK(by_ranks[0] == by_ranks[1]);
        CHECK(by_ranks[0] == by_ranks[2]);
        world.mixture(std::string("inversion = 0.1\n") + tree);
        Loader other(world.config, world.tokenizer);
        CHECK(contains(failure(Exit::usage, [&] { other.restore(state); }), "belongs to other data"));
    }

    TEST_CASE("the cache: made once, checked, made again when the data or the file has changed") {
        World world;
        world.mixture("tasks = [\"tasks/c.toml\"]\n");
        const uint64_t in_memory = world.open().sources[0]->size();
        const uint64_t memory_hash = world.open().sources[0]->hash();
        world.config.cache = (world.folder / "cache").string();
        const OpenMixture first = world.open(), second = world.open();
        CHECK_FALSE(first.sources[0]->tokens().from_cache());
        CHECK(second.sources[0]->tokens().from_cache());
        CHECK(first.sources[0]->hash() == second.sources[0]->hash());
        CHECK(first.sources[0]->hash() == memory_hash);
        CHECK(static_cast<uint64_t>(second.sources[0]->size()) == in_memory);
        Example a, b;
        first.sources[0]->get(1, 3, a), second.sources[0]->get(1, 3, b);
        CHECK(a.inputs == b.inputs);
        std::filesystem::path tokens;
        for (const auto& entry : std::filesystem::directory_iterator(world.config.cache))
            if (entry.path().extension() == ".tokens") tokens = entry.path();
        std::string bytes = read_file(tokens);
        bytes[bytes.size() / 2] ^= 1;
        write_bytes(tokens, bytes);
        CHECK_FALSE(world.open().sources[0]->tokens().from_cache());
        CHECK(world.open().sources[0]->tokens().from_cache());
        write_bytes(world.folder / "c.jsonl", read_file(world.folder / "c.jsonl") + "{\"question\": \"new\", \"answer\": \"the\"}\n");
        const OpenMixture changed = world.open();
        CHECK_FALSE(changed.sources[0]->tokens().from_cache());
        CHECK(changed.sources[0]->size() == 21);
    }

    TEST_CASE("speed: far above what training consumes") {
        // Bounds are a tenth of what is asked of a core (1 M tokens a second from the cache, 150,000 from raw text), so that a sanitizer build passes: test/bench/data_bench.sh measures.
        World world;
        world.mixture("few_shot = 0.5\ntasks = \"tasks\"\n");
        const OpenMixture open = world.open();
        double seconds = 0;
        int64_t tokens = 0;
        for (const auto& source : open.sources) seconds += source->tokens().made_seconds(), tokens += source->tokens().tokens();
        CHECK(static_cast<double>(tokens) / seconds > 15e3);
        RowStream rows(open, resolve_data_config(world.config, *world.tokenizer), true);
        Row row;
        const double start = thread_seconds();
        for (int i = 0; i < 500; ++i) rows.next(row);
        const double rate = static_cast<double>(rows.counts().input_tokens + rows.counts().target_tokens) / (thread_seconds() - start);
        MESSAGE("mixture: ", static_cast<double>(tokens) / seconds * 1e-6, " M tokens/s from raw text, ", rate * 1e-6, " M tokens/s to rows, on one core");
        CHECK(rate > 1e5);
    }

    TEST_CASE("mixtures that are wrong") {
        World world;
        CHECK(contains(world.refusal("taks = [\"tasks/a.toml\"]\n"), "mixture.toml:1: unknown key taks (did you mean tasks?)"));
        CHECK(contains(world.refusal("few_shot = 2\ntasks = \"tasks\"\n"), "mixture.toml:1: few_shot must be a number from 0 to 1, not 2"));
        CHECK(contains(world.refusal("shots = [5, 2]\ntasks = \"tasks\"\n"), "shots are 5 to 2"));
        CHECK(contains(world.refusal("[[part]]\nproportion = 1\ntasks = \"tasks/a.toml\"\n[[part]]\ntasks = \"tasks/b.toml\"\n"), "1 of 2 parts beside one another have a proportion"));
        CHECK(contains(world.refusal("[[part]]\ntasks = \"tasks\"\n[[part]]\ntasks = \"tasks/b.toml\"\n"), "task b stands in the parts 'part 1' and 'part 2'"));
        CHECK(contains(world.refusal("split = \"test\"\ntasks = \"tasks/a.toml\"\n"), "task a has no split 'test'"));
        CHECK(contains(world.refusal("languages = [\"fr\"]\ntasks = \"tasks\"\n"), "leave no task"));
        CHECK(contains(world.refusal("only = [\"x*\"]\ntasks = \"tasks\"\n"), "no task of"));
        CHECK(contains(world.refusal("\n"), "neither tasks nor parts"));
        world.mixture("languages = [\"en\"]\nexclude = [\"b\"]\ntasks = \"tasks\"\n");
        CHECK(world.load().tasks.size() == 2);
        world.config.tasks = 9;
        CHECK(contains(failure(Exit::usage, [&] { world.open(); }), "data.tasks is 9, but"));
    }
}

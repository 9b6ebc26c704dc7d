// Evaluation of a random model: losses and option scores against single passes, independence of batches, counts, sums, JSON, and errors.
#include "eval/evaluate.hpp"

#include "data/fixtures.hpp"
#include "eval/report.hpp"
#include "model/decoding.hpp"
#include "model/families.hpp"

#include <nlohmann/json.hpp>

#include <cmath>

using namespace flanmoe;
using namespace flanmoe::testing;

namespace {

std::unique_ptr<Transformer> random_model(ModelConfig config = test::small_t5(true), DType dtype = DType::f64) {
    config.vocab_size = small_tokenizer()->vocabulary_rows();
    auto model = std::make_unique<Transformer>(config);
    model->parameters().allocate(dtype, false);
    model->parameters().initialise(11);
    return model;
}

// Examples of uneven length; every third has options, of which the second is right.
std::vector<TaskExample> some_examples(int count) {
    std::vector<TaskExample> examples;
    for (int i = 0; i < count; ++i) {
        TaskExample e;
        e.inputs = synthetic_text(1 + i % 3, static_cast<uint64_t>(i));
        e.targets = {i % 2 ? "bread" : "the old miller"};
        if (i % 3 == 0) e.options = {"sheep of the hill", e.targets[0], "rain"};
        e.file = "memory", e.line = i + 1;
        examples.push_back(e);
    }
    return examples;
}

// Log-probability of a text as the answer to another, computed alone.
double log_p_alone(const Transformer& model, const std::string& inputs, const std::string& target) {
    const auto ids = [](const std::string& text) {
        Tokens tokens = small_tokenizer()->encode_with_sentinels(text);
        tokens.push_back(small_tokenizer()->eos_id());
        return tokens;
    };
    const Tokens source = ids(inputs), answer = ids(target);
    const Tokens *source_pointer = &source, *answer_pointer = &answer;
    const Batch batch = scoring_batch(model.config(), {&source_pointer, 1}, {&answer_pointer, 1});
    Context context;
    Pass pass = evaluation_pass(context, model);
    const LossSums sums = model.evaluate(pass, batch);
    CHECK(sums.output.tokens == static_cast<int64_t>(answer.size()));
    return -sums.output.nll;
}

EvalSettings short_answers() {
    EvalSettings settings;
    settings.generation.max_new_tokens = 5;
    return settings;
}

TaskResult evaluate(const Transformer& model, std::vector<TaskExample> examples, const EvalSettings& settings = short_answers()) {
    Context context;
    return evaluate_examples(context, model, *small_tokenizer(), std::move(examples), settings, "memory");
}

std::vector<TaskResult> evaluate(const Transformer& model, const std::vector<std::string>& paths, const EvalSettings& settings = short_answers()) {
    Context context;
    return evaluate_files(context, model, *small_tokenizer(), paths, settings);
}

}  // namespace

TEST_SUITE("eval/evaluate") {
    TEST_CASE("losses, options and their sums") {
        for (const ModelConfig& config : {test::small_t5(true), test::small_switch(), test::small_decoder(), test::small_prefix_decoder()}) {
            const auto model = random_model(config);
            const TaskResult result = evaluate(*model, some_examples(20));
            double nll = 0, tokens = 0, right = 0, right_by_length = 0;
            for (size_t i = 0; i < result.examples.size(); ++i) {
                const TaskExample& example = result.examples[i];
                const Answer& answer = result.answers[i];
                CHECK(answer.nll == doctest::Approx(-log_p_alone(*model, example.inputs, example.targets[0])).epsilon(1e-10));
                nll += answer.nll, tokens += static_cast<double>(answer.target_tokens);
                REQUIRE(answer.option_log_p.size() == example.options.size());
                if (example.options.empty()) {
                    CHECK(answer.choice == -1);
                    continue;
                }
                int64_t best = 0, best_by_length = 0;
                for (size_t o = 0; o < example.options.size(); ++o) {
                    CHECK(answer.option_log_p[o] == doctest::Approx(log_p_alone(*model, example.inputs, example.options[o])).epsilon(1e-10));
                    const auto per_token = [&](size_t k) { return answer.option_log_p[k] / static_cast<double>(answer.option_tokens[k]); };
                    if (answer.option_log_p[o] > answer.option_log_p[static_cast<size_t>(best)]) best = static_cast<int64_t>(o);
                    if (per_token(o) > per_token(static_cast<size_t>(best_by_length))) best_by_length = static_cast<int64_t>(o);
                }
                CHECK(answer.option_log_p[1] == doctest::Approx(-answer.nll).epsilon(1e-10));
                CHECK(answer.choice == best);
                CHECK(answer.choice_by_length == best_by_length);
                right += best == 1, right_by_length += best_by_length == 1;
            }
            CHECK(result.with_options == 7);
            CHECK(*result.loss == doctest::Approx(nll / tokens));
            CHECK(*result.accuracy == doctest::Approx(right / 7));
            CHECK(*result.accuracy_by_length == doctest::Approx(right_by_length / 7));
            CHECK(result.majority == doctest::Approx(0.5));
        }
    }

    TEST_CASE("no result depends on how batches are cut") {
        for (const ModelConfig& config : {test::small_switch(), test::small_decoder(), test::small_prefix_decoder()}) {
            const auto model = random_model(config);
            const TaskResult reference = evaluate(*model, some_examples(30));
            for (const BatchLimits limits : {BatchLimits{1, 8192}, {7, 8192}, {256, 60}}) {
                EvalSettings settings = short_answers();
                settings.batch = limits;
                const TaskResult result = evaluate(*model, some_examples(30), settings);
                for (size_t i = 0; i < reference.answers.size(); ++i) {
                    CHECK(result.answers[i].output == reference.answers[i].output);
                    CHECK(result.answers[i].nll == doctest::Approx(reference.answers[i].nll).epsilon(1e-10));
                    CHECK(result.answers[i].choice == reference.answers[i].choice);
                }
            }
        }
    }

    // Experts have few slots here, so that a target that shared a routing group with another would lose other tokens than alone.
    TEST_CASE("targets that share their input's computation score as each does alone, with every router") {
        std::vector<test::Family> families = test::families();
        families.push_back({"dense", test::small_t5(true)});
        for (const test::Family& family : families) {
            const ModelConfig& config = family.config;
            if (!config.encoder_decoder || !family.by_scores) continue;  // forced balance goes by a token's place in the batch: for measurements only
            CAPTURE(family.name);
            Transformer model(config);
            model.parameters().allocate(DType::f64, false);
            test::randomise(model, 4);
            RandomStream random({6, 0, 0, Purpose::shuffle});
            const auto tokens = [&](uint64_t least, uint64_t most) {
                Tokens ids;
                for (uint64_t i = 0, n = least + random.below(most - least + 1); i < n; ++i) ids.push_back(2 + static_cast<int32_t>(random.below(static_cast<uint64_t>(config.vocab_size) - 2)));
                return ids;
            };
            std::vector<Tokens> inputs, targets;
            for (int i = 0; i < 3; ++i) inputs.push_back(tokens(3, 12));
            for (int i = 0; i < 12; ++i) targets.push_back(tokens(1, 9));
            std::vector<const Tokens*> input_pointers, target_pointers;
            for (const Tokens& input : inputs) input_pointers.push_back(&input);
            for (const Tokens& target : targets) target_pointers.push_back(&target);
            const auto score = [&](const Batch& batch) {
                Context context;
                Pass pass = evaluation_pass(context, model);
                std::vector<double> nll;
                model.evaluate(pass, batch, &nll);
                return nll;
            };
            const Batch shared = scoring_batch(config, input_pointers, target_pointers);
            CHECK(shared.rows == 3);
            CHECK(shared.targets_per_row == 4);
            const std::vector<double> together = score(shared);
            const auto length = static_cast<size_t>(shared.decoder_length);
            REQUIRE(together.size() == 12 * length);
            for (size_t i = 0; i < targets.size(); ++i) {
                const std::vector<double> alone = score(scoring_batch(config, {&input_pointers[i / 4], 1}, {&target_pointers[i], 1}));
                CAPTURE(i);
                for (size_t t = 0; t < length; ++t) CHECK(together[i * length + t] == doctest::Approx(t < targets[i].size() ? alone[t] : 0).epsilon(1e-12));
            }
        }
    }

    // One prompt for all its options gives each the score of a sequence of its own; bounds are some hundred roundings of the type.
    TEST_CASE_TEMPLATE("targets that continue one prompt score as each does behind its own", T, float, double) {
        std::vector<test::Family> families{{"mixture", test::small_decoder()}, {"prefix", test::small_prefix_decoder()}, {"window", test::small_decoder()}, {"dense", test::small_decoder()}};
        families[2].config.attention_window = 4;
        families[3].config.experts = 0, families[3].config.decoder_sparse = {}, families[3].config.shared_d_ff = 0, families[3].config.shared_gate = false;
        families.push_back({"GLaM in evaluation without limits", test::families().back().config});
        families.back().config.decoder_routing.eval_dropless = true;
        for (const test::Family& family : families) {
            const ModelConfig& config = family.config;
            CAPTURE(family.name);
            REQUIRE(targets_share_input(config));
            Transformer model(config);
            model.parameters().allocate(dtype_of<T>, false);
            model.parameters().initialise(4);
            RandomStream random({6, 0, 0, Purpose::shuffle});
            std::vector<Tokens> texts;
            for (uint64_t i = 0; i < 3 + 12; ++i) {
                texts.emplace_back(i == 1 ? 0 : 1 + random.below(9));  // one prompt is empty: the start mark alone
                if (i >= 3 && texts.back().empty()) texts.back().resize(1);
                for (int32_t& id : texts.back()) id = 2 + static_cast<int32_t>(random.below(static_cast<uint64_t>(config.vocab_size) - 2));
            }
            std::vector<const Tokens*> inputs, targets;
            for (size_t i = 0; i < texts.size(); ++i) (i < 3 ? inputs : targets).push_back(&texts[i]);
            Context context;
            Pass pass = evaluation_pass(context, model);
            const Batch continuations = continuation_batch(config, inputs, targets);
            const std::vector<double> shared = continuation_nll(model, pass, input_batch(config, inputs), continuations);
            const auto length = static_cast<size_t>(continuations.decoder_length);
            REQUIRE(shared.size() == 12 * length);
            for (size_t i = 0; i < targets.size(); ++i) {
                Pass single = evaluation_pass(context, model);
                std::vector<double> alone;
                model.evaluate(single, scoring_batch(config, {&inputs[i / 4], 1}, {&targets[i], 1}), &alone);
                CAPTURE(i);
                for (size_t t = 0; t < length; ++t) {
                    const double expected = t < targets[i]->size() ? alone[inputs[i / 4]->size() + t] : 0;
                    CHECK(std::abs(shared[i * length + t] - expected) <= (sizeof(T) == 4 ? 2e-5 : 1e-13) * std::max(1.0, expected));
                }
            }
        }
    }

    TEST_CASE("a decoder reads a prompt once for all its options, unless experts have limits") {
        ModelConfig limited = test::small_decoder();
        limited.decoder_routing.dropless = false, limited.decoder_routing.eval_capacity_factor = 0.5;
        std::vector<TaskExample> examples = some_examples(1);
        EvalSettings settings = short_answers();
        settings.loss = settings.generate = false;
        const auto size = [](const std::string& text) { return static_cast<int64_t>(small_tokenizer()->encode_with_sentinels(text).size()) + 1; };
        int64_t options = 0;
        for (const std::string& option : examples[0].options) options += size(option);
        for (const ModelConfig& config : {test::small_decoder(), limited}) {
            const bool shares = config.decoder_routing.dropless;
            CHECK(targets_share_input(config) == shares);
            const auto model = random_model(config);
            Context context;
            const auto busy = [&](const BatchLimits& limits) {
                BatchSlots slots;
                settings.batch = limits;
                const TaskResult result = evaluate_examples(context, *model, *small_tokenizer(), examples, settings, "memory", &slots);
                for (size_t o = 0; o < 3; ++o)
                    CHECK(result.answers[0].option_log_p[o] == doctest::Approx(log_p_alone(*model, examples[0].inputs, examples[0].options[o])).epsilon(1e-10));
                return slots.busy;
            };
            const int64_t prompt = size(examples[0].inputs) + 1;  // start mark
            CHECK(busy({256, 8192}) == (shares ? prompt + options : 3 * (prompt - 1) + options));
            settings.max_targets = 20;
            // Room for two copies of the prompt: two options share it, the third has a sequence of its own.
            const int64_t third = size(examples[0].options[2]);
            if (shares) CHECK(busy({256, 2 * (prompt - 1 + 20) / 8 + 1}) == prompt + options - third + prompt - 1 + third);
        }
        CHECK(most_copies({256, 8192}, 100) == 655);
        CHECK(most_copies({256, 8}, 100) == 1);
        std::vector<InputLengths> rows(10, {.input = 20, .targets = 4, .target = 5, .target_tokens = 20, .copied = true});
        CHECK(batches_by_length(rows, {256, 210})[0].size() == 10);
        CHECK(batches_by_length(rows, {256, 200})[0].size() == 10);
        rows.assign(10, {.input = 90, .targets = 4, .target = 1, .target_tokens = 4, .copied = true});
        CHECK(batches_by_length(rows, {256, 910})[0].size() == 10);
        rows.assign(10, {.input = 90, .targets = 20, .target = 1, .target_tokens = 20, .copied = true});
        CHECK(batches_by_length(rows, {256, 910})[0].size() == 4);  // 8 x 910 / 91 = 80 copies
    }

    TEST_CASE("an encoder computes an example once for all its options, and slots count what was computed") {
        const auto model = random_model();
        std::vector<TaskExample> examples = some_examples(7);  // the 1st, 4th and 7th have three options
        EvalSettings settings = short_answers();
        settings.loss = settings.generate = false;
        int64_t busy = 0, inputs = 0, longest = 0;
        const auto size = [](const std::string& text) { return static_cast<int64_t>(small_tokenizer()->encode_with_sentinels(text).size()) + 1; };
        for (const TaskExample& e : examples) {
            if (e.options.empty()) continue;
            inputs = std::max(inputs, size(e.inputs)), busy += size(e.inputs);
            for (const std::string& option : e.options) longest = std::max(longest, size(option)), busy += size(option);
        }
        Context context;
        BatchSlots slots;
        evaluate_examples(context, *model, *small_tokenizer(), examples, settings, "memory", &slots);
        CHECK(slots.busy == busy);
        CHECK(slots.all == 3 * (inputs + 3 * longest));
        settings.options = false, settings.generate = true;
        evaluate_examples(context, *model, *small_tokenizer(), examples, settings, "memory", &slots);
        busy = 0;
        for (const TaskExample& e : examples) busy += size(e.inputs);
        CHECK(slots.busy == busy);
    }

    TEST_CASE("batches: equally many targets a row, tokens of inputs and of targets within the limit") {
        const std::vector<InputLengths> rows = {{5, 4, 2, 8}, {9, 2, 2, 4}, {7, 4, 2, 8}, {7, 4, 9, 36}, {3, 2, 2, 4}};
        using Batches = std::vector<std::vector<size_t>>;
        CHECK(batches_by_length(rows, {256, 10000}) == Batches{{3, 2, 0}, {1, 4}});
        CHECK(batches_by_length(rows, {2, 10000}) == Batches{{3, 2}, {0}, {1, 4}});
        CHECK(batches_by_length(rows, {256, 80}) == Batches{{3}, {2, 0}, {1}, {4}});  // 2 x 4 x 9 positions of targets are within it, but too many would be padding; so with 9 + 3 of inputs
        CHECK(batches_by_length(rows, {256, 15}) == Batches{{3}, {2}, {0}, {1}, {4}});
        std::vector<InputLengths> inputs;
        for (int64_t length = 1; length <= 100; ++length) inputs.push_back({.input = length});
        CHECK(batches_by_length(inputs, {256, 10000}).size() == 1);  // nothing is scored: as large as the limits allow
        for (InputLengths& row : inputs) row.targets = 1, row.target = 1, row.target_tokens = 1;
        const Batches scored = batches_by_length(inputs, {256, 10000});
        CHECK(scored.size() > 1);
        for (const std::vector<size_t>& batch : scored) {
            int64_t busy = 0, longest = 0;
            for (const size_t row : batch) busy += inputs[row].input + 1, longest = std::max(longest, inputs[row].input + 1);
            const int64_t slots = longest * static_cast<int64_t>(batch.size());
            CHECK((slots <= 10000 / 8 || static_cast<double>(busy) >= 0.85 * static_cast<double>(slots)));
        }
    }

    TEST_CASE("inputs to go on with have no end mark") {
        const auto model = random_model(test::small_decoder());
        EvalSettings settings = short_answers();
        settings.open_inputs = true, settings.max_inputs = 4;
        std::vector<TaskExample> examples(1);
        examples[0].inputs = synthetic_text(3, 1), examples[0].targets = {"rain"};
        Tokens source = small_tokenizer()->encode_with_sentinels(examples[0].inputs), target = small_tokenizer()->encode_with_sentinels("rain");
        REQUIRE(source.size() > 4);
        source.resize(4), target.push_back(small_tokenizer()->eos_id());
        const Tokens *source_pointer = &source, *target_pointer = &target;
        Context context;
        Pass pass = evaluation_pass(context, *model);
        const LossSums sums = model->evaluate(pass, scoring_batch(model->config(), {&source_pointer, 1}, {&target_pointer, 1}));
        const TaskResult result = evaluate(*model, examples, settings);
        CHECK(result.answers[0].nll == doctest::Approx(sums.output.nll).epsilon(1e-10));
        CHECK(result.answers[0].input_cut);
    }

    TEST_CASE("an answer that is accepted counts, whichever of the targets it is") {
        const auto model = random_model();
        std::vector<TaskExample> examples = some_examples(12);
        const TaskResult first = evaluate(*model, examples);
        for (size_t i = 0; i < 12; i += 2) examples[i].targets = {"nothing like it", first.answers[i].output};
        const TaskResult second = evaluate(*model, examples);
        CHECK(*second.exact_match == doctest::Approx(*first.exact_match + 0.5));
        CHECK(*second.f1 >= 0.5);
        Context context;
        EvalSettings settings = short_answers();
        CHECK(answer_metrics(context, *model, *small_tokenizer(), examples, settings)[0] == std::pair<std::string, double>("accuracy", *second.accuracy));
        settings.options = false;
        const auto metrics = answer_metrics(context, *model, *small_tokenizer(), examples, settings);
        REQUIRE(metrics.size() == 3);
        CHECK(metrics[0] == std::pair<std::string, double>("exact_match", *second.exact_match));
        CHECK(metrics[1] == std::pair<std::string, double>("f1", *second.f1));
        CHECK(metrics[2] == std::pair<std::string, double>("rouge_l", *second.rouge_l));
    }

    TEST_CASE("the majority answer is the one that most examples accept") {
        std::vector<TaskExample> examples(5);
        examples[0].targets = {"Yes", "yes."}, examples[1].targets = {"no"}, examples[2].targets = {"maybe", "the yes"}, examples[3].targets = {"no!"}, examples[4].targets = {"yes"};
        for (TaskExample& e : examples) e.inputs = "the";
        const TaskResult result = evaluate(*random_model(), examples);
        CHECK(result.majority_answer == "yes");
        CHECK(result.majority == doctest::Approx(0.6));
    }

    TEST_CASE("what is cut, unfinished or unanswerable is counted") {
        const auto model = random_model();
        EvalSettings settings = short_answers();
        settings.max_inputs = 4, settings.max_targets = 2, settings.generation.max_new_tokens = 1;
        std::vector<TaskExample> examples(3);
        examples[0].inputs = synthetic_text(3, 1), examples[0].targets = {"a"};
        examples[1].inputs = "a", examples[1].targets = {"the old miller of the hill"};
        examples[2].inputs = "a", examples[2].targets = {"a"}, examples[2].options = {"b", "c"};
        const TaskResult result = evaluate(*model, examples, settings);
        CHECK(result.inputs_cut == 1);
        CHECK(result.answers[0].input_cut);
        CHECK(result.targets_cut >= 1);
        CHECK(result.answers[1].target_cut);
        CHECK(result.answers[1].target_tokens == 2);
        CHECK(result.unfinished == 3);
        CHECK(result.unanswerable == 1);
        CHECK(*result.accuracy == 0);
    }

    TEST_CASE("parts can be left out") {
        EvalSettings settings = short_answers();
        settings.loss = false;
        const TaskResult no_loss = evaluate(*random_model(), some_examples(4), settings);
        CHECK(!no_loss.loss);
        CHECK(no_loss.accuracy);
        settings = short_answers();
        settings.generate = settings.options = false;
        const TaskResult loss_only = evaluate(*random_model(), some_examples(4), settings);
        CHECK(loss_only.loss);
        CHECK(!loss_only.exact_match);
        CHECK(!loss_only.accuracy);
        CHECK(loss_only.unfinished == 0);
    }

    TEST_CASE("files and folders are tasks") {
        const TemporaryFolder folder;
        const std::string line = R"({"inputs":"the old miller","targets":"bread"})" "\n";
        write_bytes(folder / "tasks/b.jsonl", line + line + line);
        write_bytes(folder / "tasks/a.jsonl", line);
        write_bytes(folder / "tasks/deep/c.jsonl", line);
        write_bytes(folder / "single.jsonl", line + "\n" + R"({"inputs":"far","targets":["rain","sheep"],"options":["rain","hill"]})" "\n");
        const auto model = random_model();
        EvalSettings settings = short_answers();
        settings.limit = 2;
        int64_t calls = 0;
        double last = 0;
        settings.progress = [&](double fraction, const std::string&) {
            CHECK(fraction >= last);
            last = fraction;
            ++calls;
        };
        const auto results = evaluate(*model, {(folder / "tasks").string(), (folder / "single.jsonl").string()}, settings);
        REQUIRE(results.size() == 4);
        CHECK(calls >= 2);
        CHECK(last == 1);
        CHECK(results[0].name == "a");
        CHECK(results[1].name == "b");
        CHECK(results[1].examples.size() == 2);
        CHECK(results[2].name == "deep/c");
        CHECK(results[3].name == "single");
        CHECK(results[3].with_options == 1);
        CHECK(*mean_over_tasks(results, &TaskResult::loss) == doctest::Approx((*results[0].loss + *results[1].loss + *results[2].loss + *results[3].loss) / 4));
        CHECK(*mean_over_tasks(results, &TaskResult::accuracy) == *results[3].accuracy);
        CHECK(!mean_over_tasks({}, &TaskResult::loss));

        const auto summary = nlohmann::json::parse(summary_json(results, "somewhere"));
        CHECK(summary.at("tasks").size() == 4);
        CHECK(summary.at("mean").at("examples") == 6);
        CHECK(summary.at("mean").at("loss").get<double>() == doctest::Approx(*mean_over_tasks(results, &TaskResult::loss)));
        CHECK(!summary.at("tasks")[0].contains("accuracy"));
        const std::string lines = answers_jsonl(results[3]);
        const auto last_line = nlohmann::json::parse(lines.substr(lines.find('\n') + 1));
        CHECK(last_line.at("line") == 3);
        CHECK(last_line.at("targets").size() == 2);
        CHECK(last_line.at("output") == results[3].answers[1].output);
        CHECK(last_line.at("option_log_p").size() == 2);
    }

    TEST_CASE("errors name file, line and remedy") {
        const TemporaryFolder folder;
        write_bytes(folder / "bad.jsonl", R"({"inputs":"a","targets":"b"})" "\n" R"({"inputs":"a","answer":"b"})" "\n");
        write_bytes(folder / "empty.jsonl", "");
        const auto model = random_model();
        const auto of_file = [&](const std::string& name, const EvalSettings& settings = short_answers()) { return evaluate(*model, {(folder / name).string()}, settings); };
        CHECK(contains(failure(Exit::bad_data, [&] { of_file("bad.jsonl"); }), "bad.jsonl:2 has no field 'targets'"));
        CHECK(contains(failure(Exit::bad_data, [&] { of_file("empty.jsonl"); }), "empty.jsonl holds no examples"));
        CHECK(contains(failure(Exit::missing_input, [&] { of_file("missing.jsonl"); }), "missing.jsonl does not exist"));
        CHECK(contains(failure(Exit::bad_data, [&] { evaluate(*model, std::vector<TaskExample>{}); }), "no examples"));
        CHECK(contains(failure(Exit::usage, [&] { evaluate(*model, std::vector<std::string>{}); }), "no task file"));
        EvalSettings skipping = short_answers();
        skipping.malformed = MalformedPolicy::skip;
        CHECK(of_file("bad.jsonl", skipping)[0].malformed == 1);
        EvalSettings none = short_answers();
        none.max_inputs = 0;
        CHECK(contains(failure(Exit::usage, [&] { evaluate(*model, some_examples(1), none); }), "max_inputs"));

        ModelConfig narrow = test::small_t5(true);  // 61 embeddings
        Transformer other(narrow);
        other.parameters().allocate(DType::f32, false);
        CHECK(contains(failure(Exit::usage, [&] { evaluate(other, some_examples(1)); }), "embedding rows"));
    }
}

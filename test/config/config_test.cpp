#include "config/config.hpp"

#include "config/options.hpp"
#include "core/error.hpp"

#include <doctest/doctest.h>

#include <set>

using namespace flanmoe;

namespace {

// The sentence of the usage error that parsing the text gives; empty if it is accepted.
std::string refusal(const std::string& text) {
    try {
        parse_config(text, "a.toml");
    } catch (const Error& error) {
        CHECK(error.code == Exit::usage);
        return error.what();
    }
    return "";
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

// A value for the option that differs from its default, as TOML.
std::string another_value(const Option& option) {
    Config defaults;
    const Field field = option.at(defaults);
    const std::string current = format_value(defaults, option);
    if (!option.names.empty()) return "\"" + (current == fmt::format("\"{}\"", option.names[0]) ? option.names[1] : option.names[0]) + "\"";
    if (std::holds_alternative<bool*>(field)) return current == "true" ? "false" : "true";
    if (std::holds_alternative<std::string*>(field)) return "\"a \\\"b\\\" \\\\ \\u0001 \xc3\xa9\"";
    if (std::holds_alternative<std::vector<std::string>*>(field)) return "[\"x\", \"y\\n\"]";
    if (std::holds_alternative<std::vector<double>*>(field)) return "[0.25, 3.0]";
    if (std::holds_alternative<std::vector<int64_t>*>(field)) return "[1, 2]";
    if (const auto* d = std::get_if<double*>(&field)) return option.range.contains(**d / 3) && **d != 0 ? fmt::format("{:e}", **d / 3) : "0.7";
    return std::to_string(**std::get_if<int64_t*>(&field) + 3);
}

}  // namespace

TEST_SUITE("config/config") {
    TEST_CASE("defaults are valid and their dump loads to the same config") {
        const Config config;
        CHECK_NOTHROW(validate(config));
        CHECK(differences(config, parse_config(to_toml(config), "dump")).empty());
    }

    TEST_CASE("every option can be changed, dumped and read back") {
        for (const Option& option : options()) {
            if (option.shorthand) continue;
            CAPTURE(option.key);
            // Layers are kept by a config with experts only.
            const size_t dot = option.key.rfind('.');
            std::string text = "[" + option.key.substr(0, dot) + "]\n" + option.key.substr(dot + 1) + " = " + another_value(option) + "\n";
            if (option.key.ends_with(".layers")) text += "[moe]\nexperts = 4\n";
            const Config changed = parse_config(text, "a.toml", false);
            bool seen = false;
            for (const Difference& d : differences(Config{}, changed)) seen = seen || d.key == option.key;
            CHECK(seen);
            CHECK(differences(changed, parse_config(to_toml(changed), "dump", false)).empty());
        }
    }

    TEST_CASE("keys are unique and every one has help") {
        std::set<std::string> keys;
        const std::string reference = option_reference();
        for (const Option& option : options()) {
            CHECK(keys.insert(option.key).second);
            CHECK(option.help.size() > 5);
            CHECK(contains(reference, "\n" + option.key.substr(option.key.rfind('.') + 1)));
        }
    }

    TEST_CASE("files merge left to right and the model is what they say together") {
        const Config config = parse_config(
            "[model]\nencoder_layers = 4\ndecoder_layers = 6\nactivation = \"relu\"\npad_id = 3\n"
            "[moe]\nexperts = 8\nevery = 2\nrouter = \"gshard\"\nmin_capacity = 7\n[moe.decoder]\nmin_capacity = 9\nlayers = [5]\n[data]\ntrain = \"one\"\n",
            "a.toml");
        CHECK(config.model.activation == Activation::relu);
        CHECK_FALSE(config.model.gated);
        CHECK(config.model.encoder_sparse == std::vector<int64_t>{1, 3});
        CHECK(config.model.decoder_sparse == std::vector<int64_t>{5});
        CHECK(config.model.encoder_routing.k == 2);
        CHECK(config.model.decoder_routing.second_train == SecondPolicy::random);
        CHECK(config.model.encoder_routing.min_capacity == 7);
        CHECK(config.model.decoder_routing.min_capacity == 9);
        CHECK(config.data.train == std::vector<std::string>{"one"});
        CHECK(config.data.pad_id == 3);
    }

    TEST_CASE("settings override and accept bare strings") {
        const Config config = load_config({}, {"train.steps=7", "data.train=some/folder", "data.validation=[\"a\", \"b\"]", "optimizer.kind=adamw", "train.gradient_clip=1",
                                               "data.tokenizer=x y.model", "train.steps=8"});
        CHECK(config.train.steps == 8);
        CHECK(config.data.train == std::vector<std::string>{"some/folder"});
        CHECK(config.data.validation.size() == 2);
        CHECK(config.optimizer.kind == OptimizerKind::adamw);
        CHECK(config.train.gradient_clip == 1.0);
        CHECK(config.data.tokenizer == "x y.model");
    }

    TEST_CASE("the dense twin of a sparse model is one setting away") {
        const std::string text = "[moe]\nexperts = 0\nevery = 2\nrouter = \"switch\"\n";
        CHECK(parse_config(text, "a.toml").model.encoder_sparse.empty());
        CHECK(parse_config(text, "a.toml").model.decoder_sparse.empty());
    }

    TEST_CASE("errors name file, line, key and remedy") {
        CHECK(contains(refusal("[train]\nseed = 1\nstpes = 3\n"), "a.toml:3: unknown key train.stpes (did you mean train.steps?)"));
        CHECK(contains(refusal("[model]\nlearning_rate = 3\n"), "did you mean optimizer.learning_rate?"));
        CHECK(contains(refusal("[trian]\nsteps = 3\n"), "a.toml:1: unknown section [trian] (did you mean train?)"));
        CHECK(contains(refusal("[train]\n\nsteps = \"many\"\n"), "a.toml:3: train.steps must be an integer at least 1, not \"many\""));
        CHECK(contains(refusal("[train]\nsteps = 1.5\n"), "a.toml:2: train.steps must be an integer"));
        CHECK(contains(refusal("[train]\nsteps = [1]\n"), "train.steps must be an integer"));
        CHECK(contains(refusal("[train]\nsteps = 0\n"), "train.steps must be at least 1, not 0"));
        CHECK(contains(refusal("[model]\ndropout = 1.0\n"), "model.dropout must be in [0, 1), not 1"));
        CHECK(contains(refusal("[model]\ndropout = nan\n"), "model.dropout must be in [0, 1), not nan"));
        CHECK(contains(refusal("[optimizer]\nlearning_rate = inf\n"), "learning_rate must be above 0, not inf"));
        CHECK(contains(refusal("[optimizer]\nkind = \"adamx\"\n"), "must be one of adafactor, adamw, not \"adamx\" (did you mean adamw?)"));
        CHECK(contains(refusal("[train]\nsteps = 1\nsteps = 2\n"), "a.toml:3: not valid TOML"));
        CHECK(contains(refusal("[train]\nsteps = 2026-01-01\n"), "of a kind that no option has"));
        CHECK(contains(refusal("[train.steps]\nx = 1\n"), "train.steps must be an integer at least 1, not a table"));
        CHECK(contains(refusal("steps = 1\n"), "did you mean train.steps?"));
    }

    TEST_CASE("settings are refused with the setting in the message") {
        const auto refused = [](const std::string& setting) -> std::string {
            try {
                load_config({}, {setting});
            } catch (const Error& error) {
                return error.what();
            }
            return "";
        };
        CHECK(contains(refused("train.stps=3"), "--set train.stps=3: unknown key train.stps (did you mean train.steps?)"));
        CHECK(contains(refused("train.steps"), "expected section.key=value"));
        CHECK(contains(refused("train.steps=abc"), "train.steps must be an integer"));
        CHECK(contains(refused("train.steps=\"3\""), "train.steps must be an integer at least 1, not \"3\""));
        CHECK(contains(refused("train.steps="), "train.steps must be an integer"));
    }

    TEST_CASE("contradictions between options are sentences") {
        CHECK(contains(refusal("[moe]\nexperts = 4\n"), "no layer is sparse; set moe.every"));
        CHECK(contains(refusal("[moe]\nexperts = 1\nevery = 2\nk = 2\n"), "moe.encoder.k is 2, more than the 1 experts"));
        CHECK(contains(refusal("[moe]\nexperts = 2\n[moe.encoder]\nlayers = [8]\n"), "moe.encoder.layers names layer 8"));
        CHECK(contains(refusal("[moe]\nexperts = 2\n[moe.encoder]\nlayers = [3, 1]\n"), "must ascend"));
        CHECK(contains(refusal("[moe]\nexperts = 2\nevery = 2\ngroup_rows = 3\n"), "group_rows is 3 and must divide the 128 rows"));
        CHECK(contains(refusal("[moe]\nexperts = 2\nevery = 2\ngroup_rows = 0\n[data]\nmicro_batch_rows = 64\n"), "routes the whole batch together"));
        CHECK(contains(refusal("[model]\nencoder_decoder = false\n"), "model.encoder_layers is 8"));
        CHECK(contains(refusal("[model]\nencoder_layers = 0\n"), "model.encoder_layers is 0"));
        CHECK(contains(refusal("[model]\ndecoder_d_ff = [8, 8]\n"), "model.decoder_d_ff has 2 entries, but model.decoder_layers is 8"));
        CHECK(contains(refusal("[train]\nfreeze = [\"gates\"]\n"), "train.freeze must be a list of gate, experts, moe, non_moe, embedding, attention, norm, ffn, head, not \"gates\" (did you mean gate?)"));
        CHECK(contains(refusal("[model]\nbuckets = 6\n"), "multiple of 4"));
        CHECK(contains(refusal("[model]\nkv_heads = 4\n"), "must divide model.heads = 6"));
        CHECK(contains(refusal("[model]\nd_kv = 7\nrotary = 1e4\n"), "model.d_kv is 7"));
        CHECK(contains(refusal("[model]\nbias_per_layer = true\nrotary = 1e4\n"), "in place of the relative position tables"));
        CHECK(contains(refusal("[model]\nbidirectional_prefix = true\n"), "is for decoder-only models"));
        CHECK(contains(refusal("[moe]\nshared_gate = true\n"), "moe.shared_gate needs a shared expert"));
        const std::string decoder = "[model]\nencoder_decoder = false\nencoder_layers = 0\n", lengths = "encoder_length = 0\ndecoder_length = 64\n";
        CHECK(contains(refusal(decoder + "bidirectional_prefix = true\nattention_window = 5\n[data]\nobjective = \"causal_lm\"\n" + lengths), "model.attention_window hides"));
        CHECK(contains(refusal(decoder + "[data]\nobjective = \"span_corruption\"\n" + lengths), "use prefix_lm or causal_lm"));
        CHECK(contains(refusal("[data]\nobjective = \"causal_lm\"\n"), "is for decoder-only models"));
        CHECK(refusal(decoder + "[data]\nobjective = \"causal_lm\"\n" + lengths) == "");
        CHECK(contains(refusal("[model]\nmax_distance = 16\n"), "model.max_distance is 16"));
        CHECK(contains(refusal("[model]\npad_id = 1\n"), "must differ"));
        CHECK(contains(refusal("[model]\nvocab_size = 1\n"), "outside the 1 rows"));
        CHECK(contains(refusal("[data]\nmicro_batch_rows = 3\n"), "must divide data.batch_rows = 128"));
        CHECK(contains(refusal("[data]\nweights = [1]\n"), "data.weights has 1 entries and data.train 0"));
        CHECK(contains(refusal("[data]\nobjective = \"instruct\"\n"), "data.decoder_length is 0"));
        CHECK(contains(refusal("[optimizer]\nschedule = \"linear\"\nwarmup_steps = 1000\n"), "must be below train.steps"));
        CHECK(contains(refusal("[train]\nspike_factor = 0.5\n"), "train.spike_factor"));
        CHECK(contains(refusal("[eval]\nmetric = \"f1\"\n"), "eval.samples"));
        const std::string tested = "[data]\nobjective = \"instruct\"\nmixture = \"m.toml\"\nencoder_length = 64\ndecoder_length = 8\n[eval]\nsamples = 2\ntest_split = \"test\"\n";
        CHECK(contains(refusal(tested), "set eval.metric to what the test shall say"));
        CHECK(contains(refusal(tested + "metric = \"f1\"\nkeep_best = false\n"), "answered by the best checkpoint"));
        CHECK(contains(refusal("[eval]\npatience = 2\nevery = 0\n"), "early stopping needs validations"));
        CHECK(contains(refusal("[model]\nattention_dropout = -0.5\n"), "-1 or in [0, 1)"));
        CHECK(contains(refusal("[data]\ntasks = 3\nencoder_length = 64\n"), "data.tasks is 3, but only data.objective = \"instruct\" reads tasks"));
    }

    TEST_CASE("a missing file is named") {
        try {
            load_config({"no/such.toml"});
            FAIL("accepted");
        } catch (const Error& error) {
            CHECK(error.code == Exit::missing_input);
            CHECK(contains(error.what(), "no/such.toml"));
        }
    }
}

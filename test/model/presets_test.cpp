// The presets under configs/model/ have the sizes and the work per token that are published or follow from published shapes, and dense twins of equal work.
#include "config/config.hpp"
#include "config/dense_twin.hpp"
#include "model/flops.hpp"
#include "model/transformer.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <set>

using namespace flanmoe;

namespace {

const std::filesystem::path folder = "configs/model";

struct Preset {
    const char* name;
    double parameters;  // as printed
    double precision;   // half of the last printed digit
    double flops = 0;   // forward FLOPs per token as printed; 0: no figure
    double share = 0;   // allowed relative difference of it
};

// Parameters: Switch 7 / 26 / 395 B / 1.6 T, ST-MoE 4.1 / 269 B and T5 77 M to 11 B are published; the digits beyond them, and the rows of T5X, follow from the
// shapes of its configs by the same count. gshard-* are experts-choose-* with another router. GLaM is published as 1.2 T (the count is 1.16 T).
//
// FLOPs per token: ST-MoE's table 11 and Switch's table 9 print FLOPs of a sequence of 512 + 114 tokens. T5-base's 124 G come out to the last digit as the products
// of the layers, without attention scores and output layer, and ST-32B's 32.1 to 32.3 G a token if besides every *slot* counts (1.25 experts a token, not two). By
// that rule the larger dense and top-1 models are printed 4 to 8 % lower than their shapes say, for a reason that is not known. ST-MoE-L's 1.03 G are not
// compared: its shape gives 0.85 G by slots and 0.93 G by chosen experts. GLaM's 180 G are those of 1,024 tokens.
const Preset presets[] = {
    {"t5-small", 77.0e6, 0.05e6},
    {"t5-base", 247.6e6, 0.05e6, 124e9 / 626, 0.005},
    {"t5-large", 783.2e6, 0.05e6},
    {"t5-xl", 2.850e9, 0.0005e9},
    {"t5-xxl", 11.135e9, 0.0005e9, 10.1e9, 0.08},
    {"switch-base", 7.42e9, 0.005e9, 0.20e9, 0.01},
    {"switch-large", 26.3e9, 0.05e9, 0.68e9, 0.05},
    {"switch-xxl", 394.7e9, 0.05e9},
    {"switch-c", 1.57e12, 0.01e12},
    {"tokens-choose-small", 0.27e9, 0.005e9},
    {"tokens-choose-base", 2.03e9, 0.005e9},
    {"tokens-choose-large", 7.32e9, 0.005e9},
    {"tokens-choose-xl", 26.6e9, 0.05e9},
    {"tokens-choose-xxl", 106.3e9, 0.05e9},
    {"experts-choose-small", 0.47e9, 0.005e9},
    {"experts-choose-base", 3.82e9, 0.005e9},
    {"experts-choose-large", 13.9e9, 0.05e9},
    {"experts-choose-xl", 50.4e9, 0.05e9},
    {"experts-choose-xxl", 201.4e9, 0.05e9},
    {"gshard-small", 0.47e9, 0.005e9},
    {"gshard-base", 3.82e9, 0.005e9},
    {"gshard-large", 13.9e9, 0.05e9},
    {"gshard-xl", 50.4e9, 0.05e9},
    {"st-moe-base", 0.70e9, 0.005e9},
    {"st-moe-xl", 8.89e9, 0.005e9},
    {"st-moe-l", 4.1e9, 0.05e9},
    {"st-moe-32b", 269.1e9, 0.05e9, 32.2e9, 0.015},
    {"glam-xl", 16.95e9, 0.005e9},
    {"glam-64b-64e", 1.2e12, 0.05e12, 180e9, 0.06},
};

Config load(const std::string& name, const std::vector<std::string>& settings = {}) { return load_config({folder / (name + ".toml")}, settings); }

// A row as the config's data section has it: 512 + 114 tokens, or 1,024 of a decoder alone.
SequenceShape row_of(const ModelConfig& model) { return model.encoder_decoder ? SequenceShape{1, 512, 114} : SequenceShape{1, 0, 1024}; }
double flops_per_token(const ModelConfig& model) {
    const SequenceShape row = row_of(model);
    return forward_flops(model, row) / static_cast<double>(row.source + row.target);
}

// FLOPs per token as the papers count them: see the table.
double published_flops_per_token(ModelConfig model) {
    if (model.extra_ffn)  // ST-MoE: as many experts a token as there are slots, which is how expert choice is counted
        for (RoutingConfig* r : {&model.encoder_routing, &model.decoder_routing}) r->kind = RouterKind::expert_choice;
    const SequenceShape row = row_of(model);
    const double s = static_cast<double>(row.source), t = static_cast<double>(row.target), inner = static_cast<double>(model.heads * model.d_kv);
    const double scores = inner * (static_cast<double>(model.encoder_layers) * 4 * s * s + static_cast<double>(model.decoder_layers) * (2 * t * t + 4 * s * t));
    const double output = t * 2 * static_cast<double>(model.d_model * model.vocab_size);
    return (forward_flops(model, row) - scores - output) / (s + t);
}

// Parameters that one token meets: k experts of every sparse layer.
double active_parameters(const ModelConfig& model) {
    double sum = 0;
    const Transformer declared(model);
    for (const Parameter& p : declared.parameters().records())
        sum += static_cast<double>(p.kind == ParameterKind::expert ? p.shape.elements() * model.decoder_routing.k : p.elements());
    return sum;
}

}  // namespace

TEST_SUITE("model/presets") {
    TEST_CASE("parameters and work per token are the published ones") {
        for (const Preset& preset : presets) {
            const std::string name = preset.name;
            CAPTURE(name);
            const ModelConfig model = load(preset.name).model;
            const Transformer transformer(model);  // declares, allocates nothing
            const double parameters = static_cast<double>(transformer.parameters().parameter_count()), flops = published_flops_per_token(model);
            CAPTURE(parameters);
            CAPTURE(flops);
            if (preset.parameters > 0) CHECK(std::fabs(parameters - preset.parameters) <= preset.precision);
            if (preset.flops > 0) CHECK(std::fabs(flops / preset.flops - 1) <= preset.share);
        }
    }

    TEST_CASE("GLaM's active parameters are the published 96.6 billion, which tells that its experts are not gated") {
        const ModelConfig model = load("glam-64b-64e").model;
        CHECK(std::fabs(active_parameters(model) - 96.6e9) <= 0.05e9);
    }

    TEST_CASE("every model file but those for the toy world, real text and the study is in the table") {
        std::set<std::string> known;
        for (const Preset& preset : presets) known.insert(preset.name);
        for (const auto& entry : std::filesystem::directory_iterator(folder)) {
            const std::string name = entry.path().stem().string();
            CAPTURE(name);
            const bool other = name.starts_with("toy") || name.starts_with("real") || name.starts_with("study") || name == "switch-small";
            CHECK((other || known.count(name) == 1));
        }
    }

    TEST_CASE("families differ in what their papers say") {
        const Config st = load("st-moe-32b"), choice = load("experts-choose-base"), tokens = load("tokens-choose-base"), c = load("switch-c");
        CHECK((st.model.extra_ffn && st.train.router_z_loss == 1e-3 && st.train.balance_loss == 1e-2 && st.model.encoder_sparse == std::vector<int64_t>{3, 7, 11, 15, 19, 23}));
        CHECK((choice.model.encoder_routing.kind == RouterKind::expert_choice && choice.model.encoder_routing.capacity_factor == 1.0));
        CHECK((choice.model.decoder_routing.kind == RouterKind::token_choice && choice.model.decoder_routing.k == 2));
        CHECK((tokens.model.encoder_routing.prioritized && !tokens.model.decoder_routing.prioritized && !tokens.model.encoder_routing.normalize));
        CHECK((c.model.encoder_sparse.size() == 15 && c.model.encoder_routing.min_capacity == 2 && c.model.encoder_routing.capacity_factor == 1.0));
        CHECK(load("gshard-base").model.encoder_routing.normalize);
    }
}

TEST_SUITE("config/dense_twin") {
    TEST_CASE("the twin of every sparse preset does the same work on a token within 1 %") {
        for (const Preset& preset : presets) {
            const ModelConfig sparse = load(preset.name).model;
            if (sparse.experts == 0) continue;
            const std::string name = preset.name;
            CAPTURE(name);
            const DenseTwin twin = dense_twin(sparse);
            const double difference = flops_per_token(twin.model) / flops_per_token(sparse) - 1;
            CHECK(twin.model.experts == 0);
            CHECK(std::fabs(difference) <= 0.01);
            CHECK(std::fabs(difference) <= std::fabs(twin.difference) + 1e-12);  // what is reported leaves out what both share
        }
    }

    TEST_CASE("one option makes it, over any model file, and the config that it leads to is plain") {
        const Config twin = load("switch-base", {"moe.dense_twin=true"});
        CHECK((twin.model.experts == 0 && !twin.model.dense_twin && twin.model.encoder_d_ff.empty() && twin.model.d_ff == 3072));
        CHECK(Transformer(twin.model).parameters().find("encoder.block.1.layer.1.DenseReluDense.wi.weight"));
        CHECK(differences(twin, parse_config(to_toml(twin), "dump")).empty());

        // Top-2: formerly sparse layers are twice as wide. ST-MoE: three times, with the extra feed-forward. Every layer sparse: one width for all.
        const ModelConfig gshard = load("gshard-small", {"moe.dense_twin=true"}).model, st = load("st-moe-base", {"moe.dense_twin=true"}).model;
        CHECK(gshard.encoder_d_ff == std::vector<int64_t>{1024, 2048, 1024, 2048, 1024, 2048, 1024, 2048});
        CHECK(st.decoder_d_ff == std::vector<int64_t>{2048, 2048, 2048, 6144, 2048, 2048, 2048, 6144, 2048, 2048, 2048, 6144});
        CHECK_FALSE(st.extra_ffn);
        CHECK(load("switch-c", {"moe.dense_twin=true"}).model.d_ff == 6144 + 1024);  // 2,048 experts: the router counts
        CHECK(load("t5-small", {"moe.dense_twin=true"}).model.d_ff == 1024);
    }

    TEST_CASE("experts of another width, kind or number, and expert choice") {
        ModelConfig c;
        c.d_ff = 100, c.gated = false, c.activation = Activation::relu;
        c.experts = 8, c.expert_d_ff = 60, c.expert_gated = true, c.encoder_sparse = {0}, c.decoder_sparse = {7};
        c.encoder_routing.kind = RouterKind::expert_choice, c.encoder_routing.capacity_factor = 1.5, c.decoder_routing.k = 3;
        const DenseTwin twin = dense_twin(c);
        CHECK(twin.model.encoder_d_ff == std::vector<int64_t>{135, 100, 100, 100, 100, 100, 100, 100});  // 1.5 x 60 x 3 / 2
        CHECK(twin.model.decoder_d_ff == std::vector<int64_t>{100, 100, 100, 100, 100, 100, 100, 270});
        CHECK(std::fabs(flops_per_token(twin.model) / flops_per_token(c) - 1) < 0.01);

        c.experts = 0;
        CHECK(dense_twin(c).model.encoder_d_ff.empty());
        CHECK(dense_twin(c).difference == 0);
    }
}

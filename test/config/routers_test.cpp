// The named routers: one row each with what its paper says, for the encoder and for the decoder beside it; and what is refused or warned about.
#include "config/routers/routers.hpp"

#include "config/config.hpp"
#include "core/error.hpp"

#include <doctest/doctest.h>

using namespace flanmoe;

namespace {

constexpr auto tokens = RouterKind::token_choice;
constexpr auto all = SecondPolicy::all, drawn = SecondPolicy::random;

struct Row {
    const char* name;
    RouterKind kind, decoder_kind;
    int64_t k;
    bool normalize;
    Density density;
    SecondPolicy second_train, second_eval;
    double threshold, factor, eval_factor, jitter;
    bool dropless, bias;
};
const std::vector<Row> rows = {
    // name            encoder                    decoder               k  norm.  density         second       thr. factors    jitter dropless bias
    {"switch",         tokens,                    tokens,               1, false, Density::first, all,   all, 0.2, 1.25, 2.0, 0.01,  false,   false},
    {"gshard",         tokens,                    tokens,               2, true,  Density::first, drawn, all, 0.5, 2.0,  2.0, 0,     false,   false},
    {"top_k",          tokens,                    tokens,               2, false, Density::any,   all,   all, 0.2, 1.25, 2.0, 0,     false,   false},
    {"expert_choice",  RouterKind::expert_choice, tokens,               1, false, Density::first, all,   all, 0.2, 2.0,  2.0, 0,     false,   false},
    {"st_moe",         tokens,                    tokens,               2, true,  Density::first, drawn, all, 0.2, 1.25, 2.0, 0,     false,   false},
    {"dropless",       tokens,                    tokens,               2, true,  Density::any,   all,   all, 0.2, 1.25, 2.0, 0,     true,    false},
    {"loss_free",      tokens,                    tokens,               2, true,  Density::any,   all,   all, 0.2, 1.25, 2.0, 0,     true,    true},
    {"balanced",       RouterKind::balanced,      RouterKind::balanced, 2, false, Density::first, all,   all, 0.2, 1.25, 2.0, 0,     false,   false},
};

Config with(const std::string& moe, const std::string& more = "") { return parse_config("[moe]\nexperts = 8\nevery = 2\n" + moe + more, "a.toml"); }

std::string refusal(const std::string& moe, const std::string& more = "") {
    try {
        with(moe, more);
    } catch (const Error& error) {
        CHECK(error.code == Exit::usage);
        return error.what();
    }
    return "";
}
bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_SUITE("config/routers") {
    TEST_CASE("each name stands for what its paper says") {
        REQUIRE(named_routers().size() == rows.size());
        for (size_t i = 0; i < rows.size(); ++i) {
            const Row& row = rows[i];
            CAPTURE(row.name);
            CHECK(named_routers()[i].name == std::string(row.name));
            const ModelConfig model = with("router = \"" + std::string(row.name) + "\"\n").model;
            const RoutingConfig& r = model.encoder_routing;
            CHECK(r.kind == row.kind);
            CHECK(model.decoder_routing.kind == row.decoder_kind);
            CHECK(r.k == row.k);
            CHECK(r.normalize == row.normalize);
            CHECK(r.density == row.density);
            CHECK(r.second_train == row.second_train);
            CHECK(r.second_eval == row.second_eval);
            CHECK(r.second_threshold == row.threshold);
            CHECK(r.capacity_factor == row.factor);
            CHECK(r.eval_capacity_factor == row.eval_factor);
            CHECK(r.jitter == row.jitter);
            CHECK(r.dropless == row.dropless);
            CHECK(r.balance_bias == row.bias);
            CHECK(r.min_capacity == 4);
            CHECK_FALSE(r.prioritized);
            CHECK_FALSE(r.route_padding);
        }
        CHECK(with("router = \"expert_choice\"\n").model.decoder_routing.k == 2);  // top-2 in the decoder
    }

    TEST_CASE("a stack can have a router of its own, and options override names") {
        const ModelConfig model = with("router = \"switch\"\n", "k = 3\n[moe.decoder]\nrouter = \"gshard\"\nk = 4\n").model;
        CHECK(model.encoder_routing.k == 3);
        CHECK(model.encoder_routing.jitter == 0.01);
        CHECK(model.decoder_routing.k == 4);
        CHECK((model.decoder_routing.normalize && model.decoder_routing.jitter == 0));
    }

    TEST_CASE("settings that cannot route are refused, with the remedy") {
        CHECK(contains(refusal("router = \"top_k\"\nk = 9\n"), "moe.encoder.k is 9, more than the 8 experts of moe.experts"));
        CHECK(contains(refusal("capacity_factor = 0.001\nmin_capacity = 0\n"), "moe.encoder.capacity_factor = 0.001 leaves no slot"));
        CHECK(contains(refusal("eval_capacity_factor = 0.001\nmin_capacity = 0\n"), "moe.encoder.eval_capacity_factor = 0.001 leaves no slot"));
        CHECK(contains(refusal("min_capacity = 0\n", "[moe.decoder]\ncapacity_factor = 0.1\n[data]\nobjective = \"instruct\"\ndecoder_length = 16\n"), "moe.decoder.capacity_factor = 0.1 leaves no slot"));
        CHECK(refusal("capacity_factor = 0.001\nmin_capacity = 1\n").empty());
        CHECK(contains(refusal("capacity_factor = 0.0\n"), "moe.capacity_factor must be above 0"));
        CHECK(contains(refusal("capacity = -1\n"), "moe.capacity must be at least 0, not -1"));
        CHECK(contains(refusal("", "[moe.decoder]\nrouter = \"expert_choice\"\n"), "a causal decoder must not; set moe.decoder.router = \"top_k\", or moe.decoder.force_causal = true"));
        CHECK(contains(refusal("kind = \"expert_choice\"\n"), "moe.decoder.kind = \"expert_choice\" lets experts compare a token with later ones"));
        CHECK(refusal("", "[moe.decoder]\nrouter = \"expert_choice\"\nforce_causal = true\n").empty());
        CHECK(contains(refusal("router = \"expert_choice\"\ndropless = true\n"), "moe.encoder.kind = \"expert_choice\" needs a capacity"));
        CHECK(contains(refusal("router = \"balanced\"\nbalance_bias = true\n"), "balance_bias is for token choice"));
        CHECK(contains(refusal("router = \"switch\"\ninput_dropout = 0.1\n"), "moe.encoder.jitter = 0.01, input_dropout = 0.1 and sample_temperature = 0 are policies of exploration"));
        CHECK(refusal("router = \"switch\"\njitter = 0.0\ninput_dropout = 0.1\n").empty());
        CHECK(refusal("router = \"top_k\"\nsample_temperature = 0.5\n").empty());
        CHECK(contains(refusal("router = \"top_k\"\nsample_temperature = 0.5\nbalance_bias = true\n"), "moe.encoder.sample_temperature draws the experts that tokens choose"));
        CHECK(contains(refusal("router = \"balanced\"\nsample_temperature = 0.5\n"), "moe.encoder.sample_temperature draws"));
        CHECK(contains(refusal("multiplicative_bias = true\n"), "moe.multiplicative_bias is a part of gated experts"));
        CHECK(refusal("multiplicative_bias = true\nactivation = \"gated_gelu\"\n").empty());
    }

    TEST_CASE("what is allowed but must be known is said") {
        const auto warnings = [](const std::string& moe, const std::string& more = "") {
            std::string text;
            for (const std::string& warning : routing_warnings(with(moe, more).model)) text += warning + "\n";
            return text;
        };
        CHECK(warnings("router = \"switch\"\n").empty());
        CHECK(warnings("router = \"expert_choice\"\n").empty());
        CHECK(contains(warnings("", "[moe.decoder]\nrouter = \"expert_choice\"\nforce_causal = true\n"), "expert choice in the decoder sees the future"));
        CHECK(contains(warnings("prioritized = true\n"), "moe.decoder.prioritized sees the future"));
        CHECK(warnings("", "[moe.encoder]\nprioritized = true\n").empty());
        CHECK(contains(warnings("router = \"balanced\"\n"), "good for measurements"));
        CHECK(routing_warnings(parse_config("[moe]\nrouter = \"balanced\"\n", "a.toml").model).empty());  // a dense model
    }
}

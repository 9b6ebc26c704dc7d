// config.json: every field of ModelConfig survives, the traps of the Hugging Face keys, and what is refused.
#include "checkpoint/hf_config.hpp"

#include "core/error.hpp"

#include <doctest/doctest.h>

using namespace flanmoe;

namespace {

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

// One text per config that holds every field: equal texts, equal configs.
bool same(const RoutingConfig& a, const RoutingConfig& b) {
    return a.kind == b.kind && a.k == b.k && a.normalize == b.normalize && a.prioritized == b.prioritized && a.density == b.density &&
           a.second_train == b.second_train && a.second_eval == b.second_eval && a.second_threshold == b.second_threshold &&
           a.capacity == b.capacity && a.capacity_factor == b.capacity_factor && a.eval_capacity_factor == b.eval_capacity_factor &&
           a.min_capacity == b.min_capacity && a.dropless == b.dropless && a.eval_dropless == b.eval_dropless && a.balance_bias == b.balance_bias && a.balance_bias_rate == b.balance_bias_rate &&
           a.force_causal == b.force_causal && a.group_rows == b.group_rows && a.route_padding == b.route_padding &&
           a.jitter == b.jitter && a.input_dropout == b.input_dropout && a.sample_temperature == b.sample_temperature;
}
bool same(const ModelConfig& a, const ModelConfig& b) {
    return a.encoder_decoder == b.encoder_decoder && a.vocab_size == b.vocab_size && a.d_model == b.d_model && a.d_kv == b.d_kv &&
           a.heads == b.heads && a.d_ff == b.d_ff && a.encoder_layers == b.encoder_layers && a.decoder_layers == b.decoder_layers &&
           a.activation == b.activation && a.gated == b.gated && a.tied == b.tied && a.scale_outputs == b.scale_outputs && a.buckets == b.buckets &&
           a.max_distance == b.max_distance && a.bias_per_layer == b.bias_per_layer && a.norm_epsilon == b.norm_epsilon && a.dropout == b.dropout &&
           a.attention_dropout == b.attention_dropout && a.dropout_broadcast == b.dropout_broadcast && a.pad_id == b.pad_id && a.eos_id == b.eos_id && a.decoder_start_id == b.decoder_start_id &&
           a.experts == b.experts && a.encoder_sparse == b.encoder_sparse && a.decoder_sparse == b.decoder_sparse && a.expert_d_ff == b.expert_d_ff &&
           a.expert_activation == b.expert_activation && a.expert_gated == b.expert_gated && a.expert_dropout == b.expert_dropout &&
           a.extra_ffn == b.extra_ffn && a.multiplicative_bias == b.multiplicative_bias && same(a.encoder_routing, b.encoder_routing) && same(a.decoder_routing, b.decoder_routing) &&
           a.kv_heads == b.kv_heads && a.rotary == b.rotary && a.scale_attention == b.scale_attention && a.qkv_bias == b.qkv_bias &&
           a.attention_window == b.attention_window && a.bidirectional_prefix == b.bidirectional_prefix && a.shared_d_ff == b.shared_d_ff &&
           a.shared_gate == b.shared_gate && a.init_scale == b.init_scale && a.flanmoe_layout == b.flanmoe_layout;
}

ModelConfig switch_config() {
    ModelConfig c;
    c.encoder_layers = 4, c.decoder_layers = 2;
    c.activation = Activation::relu, c.gated = false, c.tied = c.scale_outputs = true;
    c.experts = 8, c.encoder_sparse = {1, 3}, c.decoder_sparse = {1};
    c.expert_dropout = 0.4, c.attention_dropout = 0.05, c.dropout_broadcast = true, c.init_scale = 0.1;
    c.encoder_routing.jitter = c.decoder_routing.jitter = 0.01;
    c.decoder_routing.capacity_factor = 1.5;
    return c;
}

void check_round_trip(const ModelConfig& config, const std::string& type) {
    const std::string text = write_hf_config(config);
    CAPTURE(text);
    CHECK(contains(text, "\"model_type\": \"" + type + "\""));
    CHECK(same(parse_hf_config(text, "config.json"), config));
}

std::string refusal(const std::string& text) {
    try {
        parse_hf_config(text, "somewhere/config.json");
    } catch (const Error& error) {
        CHECK(error.code == Exit::bad_checkpoint);
        CHECK(contains(error.what(), "somewhere/config.json"));
        return error.what();
    }
    return "";
}

const std::string sizes = R"("vocab_size":64,"d_model":8,"d_kv":4,"d_ff":16,"num_heads":2,"num_layers":4)";
ModelConfig parse(const std::string& type, const std::string& more) {
    return parse_hf_config(fmt::format(R"({{"model_type":"{}",{}{}}})", type, sizes, more), "x");
}

}  // namespace

TEST_SUITE("checkpoint/hf_config") {
    TEST_CASE("every field survives, in the first layout that can say it") {
        check_round_trip(ModelConfig(), "t5");
        ModelConfig v10;
        v10.activation = Activation::relu, v10.gated = false, v10.tied = v10.scale_outputs = true;
        v10.dropout = 0.07, v10.attention_dropout = 0, v10.init_scale = 0.3, v10.norm_epsilon = 1e-5, v10.encoder_layers = 3, v10.decoder_layers = 7;
        check_round_trip(v10, "t5");
        v10.scale_outputs = false;  // transformers 4 cannot say this
        check_round_trip(v10, "flanmoe");
        v10.scale_outputs = true, v10.flanmoe_layout = true;
        check_round_trip(v10, "flanmoe");
        v10.flanmoe_layout = false, v10.encoder_d_ff = {16, 32, 16};  // a dense twin of a top-2 model
        check_round_trip(v10, "flanmoe");
        for (const Activation activation : {Activation::relu, Activation::gelu_tanh, Activation::gelu_erf, Activation::silu})
            for (const bool gated : {false, true}) {
                ModelConfig c;
                c.activation = activation, c.gated = gated;
                check_round_trip(c, gated && activation == Activation::gelu_erf ? "flanmoe" : "t5");
            }
        check_round_trip(switch_config(), "switch_transformers");
        ModelConfig explores = switch_config();
        explores.encoder_routing.jitter = 0, explores.encoder_routing.input_dropout = 0.1;
        explores.decoder_routing.jitter = 0, explores.decoder_routing.sample_temperature = 0.7;

        check_round_trip(explores, "switch_transformers");

        ModelConfig gshard = switch_config();
        RoutingConfig& r = gshard.encoder_routing;
        r.k = 2, r.normalize = true, r.second_train = SecondPolicy::random, r.second_eval = SecondPolicy::threshold, r.second_threshold = 0.3,
        r.group_rows = 4;
        gshard.decoder_routing.kind = RouterKind::expert_choice, gshard.decoder_routing.group_rows = 0;
        gshard.decoder_routing.prioritized = true, gshard.decoder_routing.density = Density::any, gshard.decoder_routing.capacity_factor = 2;
        gshard.expert_gated = true, gshard.expert_activation = Activation::gelu_tanh, gshard.expert_d_ff = 99, gshard.extra_ffn = true;
        check_round_trip(gshard, "flanmoe");
        gshard.multiplicative_bias = true;
        gshard.encoder_routing.balance_bias = true, gshard.encoder_routing.balance_bias_rate = 0.25, gshard.encoder_routing.eval_dropless = true;
        gshard.decoder_routing.force_causal = true;
        check_round_trip(gshard, "flanmoe");
        gshard.decoder_routing.kind = RouterKind::balanced;
        check_round_trip(gshard, "flanmoe");

        ModelConfig glam;
        glam.encoder_decoder = false, glam.encoder_layers = 0, glam.bias_per_layer = true, glam.experts = 4, glam.decoder_sparse = {0, 5, 6};
        glam.decoder_routing.capacity = 17, glam.decoder_routing.route_padding = true, glam.decoder_routing.min_capacity = 1;
        check_round_trip(glam, "flanmoe");
        glam.bias_per_layer = false, glam.rotary = 1e4, glam.kv_heads = 2, glam.scale_attention = glam.qkv_bias = glam.bidirectional_prefix = true;
        glam.shared_d_ff = 30, glam.shared_gate = true, glam.attention_window = 9;
        check_round_trip(glam, "flanmoe");
        for (const auto change : {+[](ModelConfig& m) { m.kv_heads = 3; }, +[](ModelConfig& m) { m.rotary = 1e4; }, +[](ModelConfig& m) { m.scale_attention = true; },
                                  +[](ModelConfig& m) { m.qkv_bias = true; }, +[](ModelConfig& m) { m.attention_window = 5; }})
            for (ModelConfig c : {ModelConfig(), switch_config()}) {
                change(c);
                check_round_trip(c, "flanmoe");
            }
    }

    TEST_CASE("Switch only where its class computes the same") {
        CHECK(layout_of(switch_config()) == HfLayout::switch_transformers);
        const auto layout = [](auto change) {
            ModelConfig c = switch_config();
            change(c);
            check_round_trip(c, name_of(layout_of(c)));
            return layout_of(c);
        };
        CHECK(layout([](ModelConfig& c) { c.encoder_sparse = {0, 1, 2, 3}; }) == HfLayout::switch_transformers);
        CHECK(layout([](ModelConfig& c) { c.decoder_sparse = {}; }) == HfLayout::switch_transformers);
        CHECK(layout([](ModelConfig& c) { c.encoder_sparse = {1}; }) == HfLayout::switch_transformers);
        CHECK(layout([](ModelConfig& c) { c.encoder_sparse = {3}; }) == HfLayout::flanmoe);  // every 4th as in T5X: i % 4 == 3
        CHECK(layout([](ModelConfig& c) { c.expert_gated = true; }) == HfLayout::flanmoe);
        CHECK(layout([](ModelConfig& c) { c.encoder_routing.k = 2; }) == HfLayout::flanmoe);
        CHECK(layout([](ModelConfig& c) { c.encoder_routing.capacity = 5; }) == HfLayout::flanmoe);
        CHECK(layout([](ModelConfig& c) { c.encoder_routing.capacity = c.decoder_routing.capacity = 5; }) == HfLayout::switch_transformers);
        CHECK(layout([](ModelConfig& c) { c.shared_d_ff = 8; }) == HfLayout::flanmoe);
        CHECK(layout([](ModelConfig& c) { c.decoder_routing.balance_bias = true; }) == HfLayout::flanmoe);
        CHECK(layout([](ModelConfig& c) { c.encoder_routing.kind = RouterKind::balanced; }) == HfLayout::flanmoe);
        CHECK(layout([](ModelConfig& c) { c.tied = false; }) == HfLayout::flanmoe);
    }

    TEST_CASE("the integer capacity of Switch") {
        ModelConfig c = switch_config();
        CHECK(contains(write_hf_config(c), "\"expert_capacity\": 1000000"));
        CHECK(contains(write_hf_config(c, DType::f32, 512), "\"expert_capacity\": 128"));  // 2.0 x 512 / 8
        c.encoder_routing.capacity = c.decoder_routing.capacity = 5;
        CHECK(contains(write_hf_config(c, DType::f32, 512), "\"expert_capacity\": 5"));
    }

    TEST_CASE("traps of T5 keys") {
        CHECK(parse("t5", "").decoder_layers == 4);
        CHECK(parse("t5", R"(,"num_decoder_layers":null)").decoder_layers == 4);
        CHECK(parse("t5", R"(,"num_decoder_layers":2)").decoder_layers == 2);
        CHECK(parse("t5", "").activation == Activation::relu);
        CHECK_FALSE(parse("t5", "").gated);
        CHECK(parse("t5", R"(,"feed_forward_proj":"gated-gelu")").activation == Activation::gelu_tanh);
        CHECK(parse("t5", R"(,"feed_forward_proj":"gelu")").activation == Activation::gelu_erf);
        CHECK(parse("t5", R"(,"feed_forward_proj":"gated-gelu","dense_act_fn":"gelu_new","is_gated_act":true)").gated);
        // Tied and scaled go together, unless the key of transformers 5 says otherwise.
        CHECK(parse("t5", "").tied);
        CHECK(parse("t5", "").scale_outputs);
        CHECK_FALSE(parse("t5", R"(,"tie_word_embeddings":false)").scale_outputs);
        CHECK_FALSE(parse("t5", R"(,"tie_word_embeddings":true,"scale_decoder_outputs":false)").scale_outputs);
        CHECK(parse("t5", R"(,"n_positions":512,"task_specific_params":{"x":1},"dtype":"bfloat16")").vocab_size == 64);
    }

    TEST_CASE("sparse layers of Switch: the step decides, whatever the counts say") {
        using Layers = std::vector<int64_t>;
        CHECK(parse("switch_transformers", R"(,"num_sparse_encoder_layers":2)").encoder_sparse == Layers{1, 3});
        CHECK(parse("switch_transformers", R"(,"num_sparse_encoder_layers":1,"encoder_sparse_step":1)").encoder_sparse == Layers{0, 1, 2, 3});
        CHECK(parse("switch_transformers", R"(,"num_sparse_encoder_layers":2,"encoder_sparse_step":0)").encoder_sparse == Layers{});
        CHECK(parse("switch_transformers", R"(,"num_sparse_encoder_layers":1)").encoder_sparse == Layers{1});  // step 4
        const ModelConfig c = parse("switch_transformers", R"(,"expert_capacity":3,"router_jitter_noise":0.0,"num_experts":5)");
        CHECK(c.encoder_routing.capacity == 3);
        CHECK(c.decoder_routing.route_padding);
        CHECK(c.encoder_routing.jitter == 0);
        CHECK(c.experts == 5);
        CHECK(c.scale_outputs);
    }

    TEST_CASE("routing as recorded cases write it") {
        RoutingConfig r;
        parse_routing(
            R"({"router":"gshard","k":2,"capacity":12,"normalize":true,"density":"first","second":{"policy":"random","threshold":0.25},)"
            R"("group":"batch","route_padding":true})",
            r, "x");
        CHECK(r.k == 2);
        CHECK(r.capacity == 12);
        CHECK(r.normalize);
        CHECK(r.second_train == SecondPolicy::random);
        CHECK(r.second_eval == SecondPolicy::random);
        CHECK(r.second_threshold == 0.25);
        CHECK(r.group_rows == 0);
        parse_routing(R"({"router":"expert_choice","capacity":null})", r, "x");
        CHECK(r.dropless);
        CHECK(r.capacity == 0);
        CHECK(r.kind == RouterKind::expert_choice);
        CHECK_THROWS_AS(parse_routing(R"({"router":"lottery"})", r, "x"), Error);
        CHECK_THROWS_AS(parse_routing(R"({"capacities":3})", r, "x"), Error);
        CHECK_THROWS_AS(parse_routing(R"({"capacity":0})", r, "x"), Error);
    }

    TEST_CASE("what cannot be computed is refused with its key") {
        CHECK(contains(refusal("{"), "not a JSON object"));
        CHECK(contains(refusal("[]"), "not a JSON object"));
        CHECK(contains(refusal("{}"), "model_type is missing"));
        CHECK(contains(refusal(R"({"model_type":"bert"})"), "bert"));
        CHECK(contains(refusal(R"({"model_type":"t5"})"), "vocab_size is missing"));
        const auto refused = [](const std::string& type, const std::string& more) {
            return refusal(fmt::format(R"({{"model_type":"{}",{}{}}})", type, sizes, more));
        };
        CHECK(contains(refused("t5", R"(,"feed_forward_proj":"mish")"), "mish"));
        CHECK(contains(refused("t5", R"(,"quantization_config":{})"), "quantization_config"));
        CHECK(contains(refused("t5", R"(,"is_encoder_decoder":false)"), "is_encoder_decoder"));
        CHECK(contains(refused("t5", R"(,"num_decoder_layers":-1)"), "num_decoder_layers is -1"));
        CHECK(contains(refused("t5", R"(,"dropout_rate":"0.1")"), "dropout_rate is not a number"));
        CHECK(contains(refused("t5", R"(,"num_decoder_layers":1.5)"), "not an integer"));
        CHECK(contains(refused("switch_transformers", R"(,"router_bias":true)"), "router_bias"));
        CHECK(contains(refused("switch_transformers", R"(,"router_dtype":"bfloat16")"), "router_dtype"));
        CHECK(contains(refused("flanmoe", R"(,"moe_extra_fnn":true)"), "moe_extra_fnn is unknown"));
        CHECK(contains(refused("flanmoe", R"(,"num_experts":2,"encoder_moe":{"layers":[4]})"), "encoder_moe.layers"));
        CHECK(contains(refused("flanmoe", R"(,"num_experts":2,"encoder_moe":{"layers":[1,1]})"), "encoder_moe.layers"));
        CHECK(contains(refused("flanmoe", R"(,"encoder_moe":{"layers":[1]})"), "num_experts"));
        CHECK(contains(refused("flanmoe", R"(,"num_experts":2,"encoder_moe":{"layers":[1],"k":3})"), "encoder_moe has k = 3, more than the 2 experts"));
        CHECK(contains(refused("flanmoe", R"(,"num_experts":2,"encoder_moe":{"layers":[1],"router":"expert_choice","capacity":null})"), "without a capacity"));
        CHECK(contains(refused("flanmoe", R"(,"num_experts":2,"decoder_moe":{"layers":[1],"eval_capacity_factor":0})"), "leaves no slot"));
        CHECK(contains(refused("flanmoe", R"(,"num_experts":2,"moe_multiplicative_bias":true)"), "experts are not gated"));
        std::string edited = write_hf_config(switch_config());
        edited.replace(edited.find("\"encoder_sparse_step\": 2"), 24, "\"encoder_sparse_step\": 1");
        CHECK(contains(refusal(edited), "contradicts"));
    }
}

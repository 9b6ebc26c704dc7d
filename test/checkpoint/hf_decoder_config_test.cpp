// config.json of Mixtral and Qwen2-MoE: defaults of the classes, round trips, tensor names, and what is refused.
#include "checkpoint/hf_config.hpp"
#include "checkpoint/hf_names.hpp"
#include "config/config.hpp"
#include "core/error.hpp"

#include <doctest/doctest.h>

using namespace flanmoe;

namespace {

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

ModelConfig parse(const std::string& type, const std::string& more) { return parse_hf_config(fmt::format(R"({{"model_type":"{}"{}}})", type, more), "x"); }

std::string refused(const std::string& type, const std::string& more) {
    try {
        parse(type, more);
    } catch (const Error& error) {
        CHECK(error.code == Exit::bad_checkpoint);
        return error.what();
    }
    return "";
}

// Every option of the model, as TOML.
std::string all_of(const ModelConfig& model) {
    Config config;
    config.model = model;
    return to_toml(config);
}

void check_round_trip(const ModelConfig& config, HfLayout layout) {
    CHECK(layout_of(config) == layout);
    const std::string text = write_hf_config(config);
    CAPTURE(text);
    CHECK(contains(text, fmt::format("\"model_type\": \"{}\"", name_of(layout))));
    CHECK(all_of(parse_hf_config(text, "config.json")) == all_of(config));
}

const std::string sizes = R"(,"vocab_size":64,"hidden_size":32,"intermediate_size":40,"num_hidden_layers":4,"num_attention_heads":4,"num_key_value_heads":2)";

}  // namespace

TEST_SUITE("checkpoint/hf_decoder_config") {
    TEST_CASE("absent keys have the defaults of the classes") {
        const ModelConfig m = parse("mixtral", "");
        CHECK(m.vocab_size == 32000);
        CHECK(m.d_model == 4096);
        CHECK(m.d_ff == 14336);
        CHECK(m.decoder_layers == 32);
        CHECK(m.heads == 32);
        CHECK(m.kv_heads == 8);
        CHECK(m.d_kv == 128);
        CHECK(m.rotary == 1e6);
        CHECK(m.norm_epsilon == 1e-5);
        CHECK(m.experts == 8);
        CHECK(m.decoder_sparse.size() == 32);
        CHECK(m.decoder_routing.k == 2);
        CHECK(m.decoder_routing.normalize);
        CHECK(m.decoder_routing.dropless);
        CHECK(m.decoder_start_id == 1);
        CHECK(m.eos_id == 2);
        CHECK(m.pad_id == 0);
        CHECK(m.dropout == 0);
        CHECK(m.attention_window == 0);
        CHECK_FALSE(m.tied);
        const ModelConfig q = parse("qwen2_moe", "");
        CHECK(q.vocab_size == 151936);
        CHECK(q.kv_heads == 0);  // as many as heads
        CHECK(q.rotary == 1e4);
        CHECK(q.qkv_bias);
        CHECK(q.experts == 60);
        CHECK(q.expert_d_ff == 1408);
        CHECK(q.shared_d_ff == 5632);
        CHECK(q.shared_gate);
        CHECK(q.decoder_routing.k == 4);
        CHECK_FALSE(q.decoder_routing.normalize);
    }

    TEST_CASE("keys") {
        using Layers = std::vector<int64_t>;
        const std::string experts = R"(,"num_experts":4,"num_experts_per_tok":2,"num_local_experts":4)";
        const auto mixtral = [&](const std::string& more) { return parse("mixtral", sizes + experts + more); };
        const auto qwen = [&](const std::string& more) { return parse("qwen2_moe", sizes + experts + more); };
        CHECK(mixtral("").d_kv == 8);
        CHECK(mixtral(R"(,"head_dim":16)").d_kv == 16);
        CHECK(mixtral(R"(,"rope_parameters":{"rope_type":"default","rope_theta":500.0})").rotary == 500);
        CHECK(mixtral(R"(,"sliding_window":7)").attention_window == 7);
        CHECK(mixtral(R"(,"sliding_window":null,"rope_scaling":null,"head_dim":null,"pad_token_id":null)").attention_window == 0);
        CHECK(mixtral(R"(,"tie_word_embeddings":true)").tied);
        CHECK_FALSE(mixtral(R"(,"tie_word_embeddings":true)").scale_outputs);
        CHECK(mixtral(R"(,"hidden_act":"gelu")").activation == Activation::gelu_erf);
        CHECK(mixtral(R"(,"eos_token_id":[5,6])").eos_id == 5);
        CHECK(mixtral(R"(,"eos_token_id":0)").pad_id == 1);
        CHECK(mixtral(R"(,"router_jitter_noise":0.1)").decoder_routing.jitter == 0.1);
        CHECK(mixtral("").decoder_sparse == Layers{0, 1, 2, 3});
        CHECK(qwen(R"(,"decoder_sparse_step":2)").decoder_sparse == Layers{1, 3});
        CHECK(qwen(R"(,"mlp_only_layers":[0,3])").decoder_sparse == Layers{1, 2});
        CHECK(qwen(R"(,"decoder_sparse_step":2,"mlp_only_layers":[1])").decoder_sparse == Layers{3});
        CHECK(qwen(R"(,"mlp_only_layers":[0,1,2,3])").experts == 0);
        CHECK(qwen(R"(,"norm_topk_prob":true)").decoder_routing.normalize);
        CHECK_FALSE(qwen(R"(,"qkv_bias":false)").qkv_bias);
    }

    TEST_CASE("every field survives") {
        ModelConfig m = parse("mixtral", sizes + R"(,"num_local_experts":4)");
        check_round_trip(m, HfLayout::mixtral);
        m.dropout = 0.1, m.attention_dropout = 0.2, m.expert_dropout = 0.3, m.tied = true, m.attention_window = 9, m.kv_heads = 4, m.init_scale = 0.5;
        m.decoder_routing.jitter = 0.1, m.decoder_routing.route_padding = true, m.decoder_routing.density = Density::first, m.buckets = 8, m.d_kv = 6;
        check_round_trip(m, HfLayout::mixtral);
        ModelConfig q = parse("qwen2_moe", sizes + R"(,"num_experts":4,"num_experts_per_tok":2,"decoder_sparse_step":2)");
        check_round_trip(q, HfLayout::qwen2_moe);
        for (const std::vector<int64_t>& sparse : {std::vector<int64_t>{0, 1, 2, 3}, {0}, {3}, {1, 2}, {0, 3}}) {
            q.decoder_sparse = sparse, q.decoder_routing.normalize = sparse.size() == 2, q.qkv_bias = sparse.size() == 1;
            check_round_trip(q, HfLayout::qwen2_moe);
        }
        check_round_trip(parse("qwen2_moe", sizes + R"(,"num_experts":0)"), HfLayout::qwen2_moe);
        // What the classes do not compute is ours.
        const auto ours = [](ModelConfig c, auto change) {
            change(c);
            check_round_trip(c, HfLayout::flanmoe);
        };
        ours(m, [](ModelConfig& c) { c.decoder_routing.dropless = false; });
        ours(m, [](ModelConfig& c) { c.bidirectional_prefix = true, c.attention_window = 0; });
        ours(m, [](ModelConfig& c) { c.scale_attention = false; });
        ours(m, [](ModelConfig& c) { c.decoder_sparse = {1}; });
        ours(m, [](ModelConfig& c) { c.rotary = 0; });
        ours(m, [](ModelConfig& c) { c.decoder_routing.normalize = false; });
        ours(q, [](ModelConfig& c) { c.shared_gate = false; });
        ours(q, [](ModelConfig& c) { c.shared_d_ff = 0, c.shared_gate = false; });
        ours(q, [](ModelConfig& c) { c.attention_window = 5; });
    }

    TEST_CASE("tensor names") {
        const auto name = [](const std::string& n) { return name_in_layout(n, HfLayout::mixtral) + " " + name_in_layout(n, HfLayout::qwen2_moe); };
        CHECK(name("shared.weight") == "model.embed_tokens.weight model.embed_tokens.weight");
        CHECK(name("lm_head.weight") == "lm_head.weight lm_head.weight");
        CHECK(name("decoder.final_layer_norm.weight") == "model.norm.weight model.norm.weight");
        CHECK(name("decoder.block.7.layer.0.layer_norm.weight") == "model.layers.7.input_layernorm.weight model.layers.7.input_layernorm.weight");
        CHECK(name("decoder.block.7.layer.1.layer_norm.weight") == "model.layers.7.post_attention_layernorm.weight model.layers.7.post_attention_layernorm.weight");
        CHECK(name("decoder.block.0.layer.0.SelfAttention.k.bias") == "model.layers.0.self_attn.k_proj.bias model.layers.0.self_attn.k_proj.bias");
        CHECK(name("decoder.block.0.layer.0.SelfAttention.o.weight") == "model.layers.0.self_attn.o_proj.weight model.layers.0.self_attn.o_proj.weight");
        CHECK(name("decoder.block.1.layer.1.mlp.router.classifier.weight") == "model.layers.1.block_sparse_moe.gate.weight model.layers.1.mlp.gate.weight");
        CHECK(name("decoder.block.1.layer.1.mlp.experts.expert_12.wi_0.weight") == "model.layers.1.block_sparse_moe.experts.12.w1.weight model.layers.1.mlp.experts.12.gate_proj.weight");
        CHECK(name("decoder.block.1.layer.1.mlp.experts.expert_{e}.wi_1.weight") == "model.layers.1.block_sparse_moe.experts.{e}.w3.weight model.layers.1.mlp.experts.{e}.up_proj.weight");
        CHECK(name("decoder.block.1.layer.1.mlp.experts.expert_0.wo.weight") == "model.layers.1.block_sparse_moe.experts.0.w2.weight model.layers.1.mlp.experts.0.down_proj.weight");
        CHECK(name_in_layout("decoder.block.1.layer.1.mlp.wi_0.weight", HfLayout::qwen2_moe) == "model.layers.1.mlp.gate_proj.weight");
        CHECK(name_in_layout("decoder.block.1.layer.1.mlp.shared_expert.wo.weight", HfLayout::qwen2_moe) == "model.layers.1.mlp.shared_expert.down_proj.weight");
        CHECK(name_in_layout("decoder.block.1.layer.1.mlp.shared_expert_gate.weight", HfLayout::qwen2_moe) == "model.layers.1.mlp.shared_expert_gate.weight");
        CHECK(name_in_layout("encoder.block.1.layer.1.mlp.wo.weight", HfLayout::t5) == "encoder.block.1.layer.1.DenseReluDense.wo.weight");
        CHECK(name_in_layout("encoder.block.1.layer.1.DenseReluDense.wo.weight", HfLayout::flanmoe) == "encoder.block.1.layer.1.mlp.wo.weight");
    }

    TEST_CASE("what cannot be computed is refused with its key") {
        CHECK(contains(refused("mixtral", sizes + R"(,"rope_scaling":{"type":"yarn"})"), "rope_scaling"));
        CHECK(contains(refused("mixtral", sizes + R"(,"rope_parameters":{"rope_type":"yarn"})"), "rope_parameters.rope_type"));
        CHECK(contains(refused("mixtral", sizes + R"(,"head_dim":7)"), "head_dim is 7"));
        CHECK(contains(refused("mixtral", sizes + R"(,"num_key_value_heads":3)"), "num_key_value_heads is 3"));
        CHECK(contains(refused("mixtral", sizes + R"(,"num_local_experts":2,"num_experts_per_tok":3)"), "num_experts_per_tok is 3"));
        CHECK(contains(refused("mixtral", sizes + R"(,"quantization_config":{})"), "quantization_config"));
        CHECK(contains(refused("mixtral", sizes + R"(,"hidden_act":"mish")"), "mish"));
        CHECK(contains(refused("qwen2_moe", sizes + R"(,"use_sliding_window":true)"), "use_sliding_window"));
        CHECK(contains(refused("qwen2_moe", sizes + R"(,"mlp_only_layers":3)"), "mlp_only_layers"));
        CHECK(contains(refused("qwen2_moe", sizes + R"(,"decoder_sparse_step":0)"), "decoder_sparse_step is 0"));
        std::string edited = write_hf_config(parse("mixtral", sizes));
        edited.replace(edited.find("\"rope_theta\": 1000000.0"), 23, "\"rope_theta\": 100.0");
        CHECK_THROWS_AS(parse_hf_config(edited, "x"), Error);
    }
}

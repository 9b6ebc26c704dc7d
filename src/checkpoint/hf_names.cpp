#include "checkpoint/hf_names.hpp"

#include <algorithm>
#include <string_view>
#include <utility>

namespace flanmoe {

namespace {

// The first occurrence of `from`, replaced; whether there was one.
bool replace(std::string& name, std::string_view from, std::string_view to) {
    const size_t at = name.find(from);
    if (at != std::string::npos) name.replace(at, from.size(), to);
    return at != std::string::npos;
}

using Words = std::vector<std::pair<std::string_view, std::string_view>>;

// Applied in order to the part of a name behind the layer's number.
const Words attention_words = {{"layer.0.SelfAttention.q.", "self_attn.q_proj."}, {"layer.0.SelfAttention.k.", "self_attn.k_proj."},
                               {"layer.0.SelfAttention.v.", "self_attn.v_proj."}, {"layer.0.SelfAttention.o.", "self_attn.o_proj."},
                               {"layer.0.layer_norm.", "input_layernorm."},       {"layer.1.layer_norm.", "post_attention_layernorm."}};
const Words mixtral_words = {{"layer.1.mlp.", "block_sparse_moe."}, {"router.classifier.", "gate."}, {"experts.expert_", "experts."},
                             {".wi_0.", ".w1."},                    {".wi_1.", ".w3."},              {".wo.", ".w2."}};
const Words qwen2_words = {{"layer.1.mlp.", "mlp."}, {"router.classifier.", "gate."}, {"experts.expert_", "experts."},
                           {".wi_0.", ".gate_proj."}, {".wi_1.", ".up_proj."},        {".wo.", ".down_proj."}};

std::string decoder_name(std::string name, const Words& words) {
    if (name == "shared.weight") return "model.embed_tokens.weight";
    if (name == "decoder.final_layer_norm.weight") return "model.norm.weight";
    if (!name.starts_with("decoder.block.")) return name;
    replace(name, "decoder.block.", "model.layers.");
    for (const Words* list : {&attention_words, &words})
        for (const auto& [from, to] : *list) replace(name, from, to);
    return name;
}

}  // namespace

std::string name_in_layout(const std::string& name, HfLayout layout) {
    if (layout == HfLayout::mixtral) return decoder_name(name, mixtral_words);
    if (layout == HfLayout::qwen2_moe) return decoder_name(name, qwen2_words);
    std::string renamed = name;  // T5 calls a feed-forward DenseReluDense, Switch and our layout mlp
    if (layout == HfLayout::t5) replace(renamed, ".mlp.", ".DenseReluDense.");
    else replace(renamed, ".DenseReluDense.", ".mlp.");
    return renamed;
}

std::vector<std::string> names_in_layouts(const std::string& name) {
    std::vector<std::string> names = {name};
    for (const HfLayout layout : {HfLayout::t5, HfLayout::flanmoe, HfLayout::mixtral, HfLayout::qwen2_moe})
        if (std::string other = name_in_layout(name, layout); std::find(names.begin(), names.end(), other) == names.end()) names.push_back(std::move(other));
    return names;
}

}  // namespace flanmoe
